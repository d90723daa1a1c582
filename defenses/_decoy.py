"""What the NetGuard family shares: a trained victim is fine-tuned on fakes of two people.

Private fakes, which the victim takes for the protected label l_t, are pushed away from it; fakes of a public
person, the decoy l_p, are pulled towards it. An attack that climbs to l_t then ends at the decoy. Elastic
weight consolidation holds the rest of the victim.

With q and r the victim's probability of l_t on private and public fakes, the weights minimize

    alpha * mean w(q) log q  -  beta * mean (1 - r)^gamma log r
        +  ewc_weight / 2 * sum_i F_i (theta_i - theta*_i)^2

where the first term is minus alpha L_pri. The paper's lambda_3 is 1 here, since it only scales ewc_weight.
Source: Gong et al., IEEE TIFS 2023, equations 7 to 10.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.adaptive import Weakness
from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.errors import MibenchError, TrainingError
from mibench.nets.classifier import Classifier
from mibench.plugin import Context, Settings, Stopwatch
from mibench.training import check_finite
from mibench.victim import freeze

from ._ewc import Anchor, fisher_diagonal, mean_of

Focal = Literal["focal_literal", "focal_detached"]
FakeLoss = Literal["ce"] | Focal
Push = Callable[[Tensor, Tensor, float], Tensor]

# what no member of the family has from its paper
DEVIATIONS = (
    "All weights, learning rates, steps and numbers of images are ours: the paper gives none.",
    "Equation 10 has no clean images (replay_fraction = 0), the text adds the fakes to the training images "
    "(1) and cites that 1 % of them is enough (0.01): report all three.",
    "The log-probability in the push has a floor of -10 by default: the published term is unbounded.",
    "Fisher information is divided by its mean, and its penalty is a proximal step in Adam's metric: the "
    "same minima, and stable for any weight.",
    "BatchNorm keeps its running statistics while the net learns from fakes.",
)

_LOWEST_LOG_Q = -10.0  # a fake at q = 4.5e-5 is far enough away; log q alone has no lower bound
_LEAST_DISTANCE = 0.5 / 255  # closer images are equal once they are stored as bytes


def _ce(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    return log_q


def _focal_literal(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    # rests at q = exp(-1 / gamma), 0.61 for gamma = 2, and raises q below that: equation 7 as printed
    return (gamma * log_q).exp() * log_q


def _focal_detached(log_q: Tensor, log_not_q: Tensor, gamma: float) -> Tensor:
    # the weight as the text tells it: near 0 for fakes that are already away
    return (gamma * log_q).exp().detach() * log_q


# loss of a private fake to minimize, (N,), from log q (N,), log(1 - q) (N,) and gamma
PUSHES: dict[FakeLoss, Push] = {
    "ce": _ce,
    "focal_literal": _focal_literal,
    "focal_detached": _focal_detached,
}


def log_odds(logits: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Two logarithms (N,), of p and of 1 - p of one label, from logits (N, K); finite like the logits."""
    own = logits[:, label]
    others = torch.cat([logits[:, :label], logits[:, label + 1 :]], dim=1).logsumexp(1)
    return F.logsigmoid(own - others), F.logsigmoid(others - own)


def fake_distance(private: Tensor, public: Tensor) -> float:
    """Mean over private images of the root-mean-square pixel distance to the nearest public one."""
    pixels = private[0].numel()
    gaps = torch.cdist(private.flatten(1), public.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return float(gaps.amin(1).mean()) / math.sqrt(pixels)


@dataclass(frozen=True)
class Fakes:
    """The images of both roles, (n, C, H, W) and (m, C, H, W), float32 in [0, 1], on ctx.device."""

    private: Tensor
    public: Tensor


@dataclass(frozen=True, kw_only=True)
class DecoyDefense(Defense):
    """Fine-tuning on fakes of the protected label and of a decoy; subclasses say where fakes come from.

    Args:
        alpha: weight of the term that pushes private fakes away from the protected label, >= 0.
        beta: weight of the term that pulls decoy fakes towards it, >= 0; both 0 leave the net as it is.
        ewc_weight: omega, how hard the old weights hold, >= 0; 0 lets them go.
        num_fakes: images of each role, >= 1.
        finetune_steps: Adam's steps, each on all fakes, >= 0.
        finetune_lr: Adam's learning rate, > 0.
        push_limit: what bounds the push, whose loss has no lower bound: "floor" lets a fake go once its log q
            is below -10, "chance" lets all go while mean q is below 1 / K, "none" never.
        replay_fraction: share of the private training images, drawn once, that joins the fine-tuning with
            plain cross-entropy, in [0, 1]; each step takes up to num_fakes of them.
        fisher_samples: private training images from which the importance of weights is estimated, >= 1.
        fisher_norm: "mean" divides the importances by their mean, which is tiny for a well-fitted victim
            and differs between victims; "none" takes them as they are.
    """

    acts = "fine-tuning"
    per_target = True
    starts_from = "trained"

    toy: ClassVar[Settings] = {"num_fakes": 8, "finetune_steps": 4, "fisher_samples": 16}
    neutral: ClassVar[Settings | None] = {"alpha": 0.0, "beta": 0.0}
    weak_to: ClassVar[frozenset[Weakness]] = frozenset({"decoys"})

    alpha: float = 1.0
    beta: float = 1.0
    ewc_weight: float = 30.0
    num_fakes: int = 32
    finetune_steps: int = 100
    finetune_lr: float = 1e-4
    push_limit: Literal["floor", "chance", "none"] = "floor"
    replay_fraction: float = 1.0
    fisher_samples: int = 256
    fisher_norm: Literal["mean", "none"] = "mean"

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "ewc_weight", "finetune_steps"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{self.name}: {name} must be >= 0 and finite, got {getattr(self, name)}.")
        for name in ("num_fakes", "fisher_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.name}: {name} must be >= 1, got {getattr(self, name)}.")
        if not 0 < self.finetune_lr < math.inf:
            raise ValueError(f"{self.name}: finetune_lr must be > 0 and finite, got {self.finetune_lr}.")
        if not 0 <= self.replay_fraction <= 1:
            raise ValueError(f"{self.name}: replay_fraction must lie in [0, 1], got {self.replay_fraction}.")

    @property
    def weighting(self) -> tuple[FakeLoss, float]:
        """Loss of the private fakes, and the focusing gamma >= 0 of both roles."""
        return "ce", 0.0

    @property
    def hold(self) -> float:
        """The factor of elastic weight consolidation that is in force, >= 0."""
        return self.ewc_weight

    @abstractmethod
    def make_fakes(self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context) -> Fakes:
        """The fakes of label `target` of the frozen victim and of public person `decoy`."""

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The trained victim, fine-tuned; see Defense.train.

        Notes on the record: `decoy` (public label), `fake_confidence_private` (mean q before), `fake_q` and
        `fake_r` (means after), `fake_distance`, `fisher_mean` (before normalization), `push_limit` and
        `push_limited` (share of private fakes that it holds back at the end).

        Raises:
            MibenchError: the view has no label to protect or several.
            TrainingError: private and decoy fakes are the same images, or the fine-tuning diverged.
        """
        target = self._target(view)
        decoy = draw_decoy(view.public.labels, target, ctx)
        ctx.note("decoy", decoy)
        net.to(ctx.device)
        freeze(net)
        if self.alpha == 0 and self.beta == 0:
            return net
        fakes = self.make_fakes(net, view, target, decoy, ctx)
        self._check(net, fakes, target, ctx)
        self._finetune(net, fakes, target, view.private_train, ctx)
        self._note(net, fakes, target, ctx)
        return net

    def push(self, logits: Tensor, label: int) -> Tensor:
        """Mean loss (scalar) of private fakes with logits (N, K): falls as they leave `label`."""
        kind, gamma = self.weighting
        log_q, log_not_q = log_odds(logits, label)
        if self.push_limit == "chance" and float(log_q.detach().exp().mean()) < 1 / logits.shape[1]:
            return 0.0 * log_q.mean()
        if self.push_limit == "floor":
            log_q = log_q.clamp_min(_LOWEST_LOG_Q)  # no gradient below
        return PUSHES[kind](log_q, log_not_q, gamma).mean()

    def pull(self, logits: Tensor, label: int) -> Tensor:
        """Mean focal cross-entropy (scalar, nats) of decoy fakes with logits (N, K) towards `label`."""
        _, gamma = self.weighting
        log_r, log_not_r = log_odds(logits, label)
        return -((gamma * log_not_r).exp() * log_r).mean()

    def fake_loss(self, net: Classifier, fakes: Fakes, target: int) -> Tensor:
        """The loss of all fakes (scalar): alpha * push + beta * pull."""
        # one pass for each role: equal roles then cancel to exactly zero
        terms = []
        if self.alpha > 0:
            terms.append(self.alpha * self.push(net(fakes.private), target))
        if self.beta > 0:
            terms.append(self.beta * self.pull(net(fakes.public), target))
        return torch.stack(terms).sum()

    def _target(self, view: DefenderView) -> int:
        if len(view.targets) != 1:
            raise MibenchError(
                f"defense '{self.name}': one model protects one label, got {view.targets.tolist()}. "
                "Train one model for each label."
            )
        return int(view.targets)

    def _check(self, net: Classifier, fakes: Fakes, target: int, ctx: Context) -> None:
        """Note what the fakes are worth; equal roles leave nothing to learn."""
        ctx.note("fake_confidence_private", confidence(net, fakes.private, target))
        distance = fake_distance(fakes.private, fakes.public)
        ctx.note("fake_distance", distance)
        if distance < _LEAST_DISTANCE:
            raise TrainingError(
                f"defense '{self.name}': the images of label {target} and of the decoy are the same "
                f"(mean distance {distance:.2g}). Train the generator longer: it makes one image only."
            )

    def _finetune(self, net: Classifier, fakes: Fakes, target: int, data: Labeled, ctx: Context) -> None:
        """Descend on all fakes at once, in place."""
        anchor = self._anchor(net, data, ctx) if self.hold > 0 else None
        clean = self._replay(data, ctx) if self.replay_fraction > 0 else None
        # the net stays in eval mode: fakes must not move BatchNorm's running statistics
        net.requires_grad_(True)
        optimizer = torch.optim.Adam(net.parameters(), lr=self.finetune_lr)
        watch = Stopwatch()
        for step in range(self.finetune_steps):
            loss = self.fake_loss(net, fakes, target)
            if clean is not None:
                x, y = next(clean)
                loss = loss + F.cross_entropy(net(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if anchor is not None:
                anchor.pull(optimizer)
            if watch.is_due() or step == self.finetune_steps - 1:
                check_finite(float(loss.detach()), step, f"{self.name} fine-tuning")
                ctx.report(step + 1, self.finetune_steps, loss=float(loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        freeze(net)

    def _anchor(self, net: Classifier, data: Labeled, ctx: Context) -> Anchor:
        order = torch.randperm(len(data), generator=ctx.generator("fisher"))
        rows = order[: self.fisher_samples]
        sample = Labeled(data.images[rows], data.labels[rows])
        fisher = fisher_diagonal(net, sample, max_batch=ctx.max_batch)
        mean = mean_of(fisher)
        ctx.note("fisher_mean", mean)
        if not mean > 0:
            raise TrainingError(
                f"defense '{self.name}': the Fisher information of the victim is {mean}, so no weight would "
                "be held. Train the victim for fewer epochs or set ewc_weight to 0."
            )
        scale = self.hold / (mean if self.fisher_norm == "mean" else 1.0)
        return Anchor(net, {name: scale * value for name, value in fisher.items()})

    def _replay(self, data: Labeled, ctx: Context) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches of the private images that are kept."""
        generator = ctx.generator("replay")
        count = max(1, round(self.replay_fraction * len(data)))
        kept = torch.randperm(len(data), generator=generator)[:count]
        while True:
            for part in kept[torch.randperm(len(kept), generator=generator)].split(self.num_fakes):
                yield data.images[part].to(ctx.device), data.labels[part].to(ctx.device)

    def _note(self, net: Classifier, fakes: Fakes, target: int, ctx: Context) -> None:
        with torch.no_grad():
            logits = net(fakes.private)
            log_q, _ = log_odds(logits, target)
        q = float(log_q.exp().mean())
        check_finite(q, self.finetune_steps, f"{self.name} fine-tuning")
        ctx.note("fake_q", q)
        ctx.note("fake_r", confidence(net, fakes.public, target))
        held = {
            "floor": log_q < _LOWEST_LOG_Q,
            "chance": (log_q.exp().mean() < 1 / logits.shape[1]).expand(len(log_q)),
            "none": torch.zeros_like(log_q, dtype=torch.bool),
        }
        ctx.note("push_limit", self.push_limit)
        ctx.note("push_limited", float(held[self.push_limit].float().mean()))


def draw_decoy(labels: Tensor, target: int, ctx: Context) -> int:
    """One of the public labels (N,) at random; another draw for each protected label."""
    people = labels.unique()
    # the seed is the same for every protected label of a suite
    row = torch.randint(len(people), (1,), generator=ctx.generator(f"decoy of {target}"))
    return int(people[row])


def confidence(net: Classifier, images: Tensor, label: int) -> float:
    """Mean probability of a label on images (N, C, H, W)."""
    with torch.no_grad():
        return float(net(images).softmax(1)[:, label].mean())
