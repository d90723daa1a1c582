"""What the NetGuard family shares: a trained victim is fine-tuned on fakes of two people.

Private fakes, which the victim takes for the protected label l_t, are pushed away from it; fakes of a public
person, the decoy l_p, are pulled towards it. An attack that climbs to l_t then ends at the decoy. Elastic
weight consolidation holds the rest of the victim.

With q and r the victim's probability of l_t on private and public fakes, the weights minimize

    alpha * mean push(q)  +  beta * mean pull(r)  +  ewc_weight / 2 * sum_i F_i (theta_i - theta*_i)^2

where push is minus L_pri (see `_decoy_losses`) and pull is L_pub. The paper's lambda_3 is 1 here, since it
only scales ewc_weight. Its ablations are options: L_pri alone is beta = 0, ewc_weight = 0; L_pri + L_pub is
ewc_weight = 0; both without clean images, replay_fraction = 0.
Source: Gong et al., IEEE TIFS 2023, equations 7 to 10.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from mibench.training import accuracy, check_finite
from mibench.victim import freeze

from ._decoy_images import Fakes, draw_decoy, fake_distance, keep_aside
from ._decoy_losses import LOWEST_LOG_Q, PUSHES, PushLoss, let_go, log_odds
from ._ewc import Anchor, fisher_diagonal, mean_of

Auto = Literal["auto"]

FLOOR = "The log-probability in the push has a floor of -10 by default: the published term is unbounded."

# what no member of the family has from its paper
DEVIATIONS = (
    "All weights, learning rates, steps and numbers of images are ours: the paper gives none.",
    "Equation 10 has no clean images (replay_fraction = 0), the text adds the fakes to the training images "
    "(1) and cites that 1 % of them is enough (0.01): report all three.",
    FLOOR,
    "Fisher information is divided by its mean, and its penalty is a proximal step in Adam's metric: the "
    "same minima, and stable for any weight.",
    "BatchNorm keeps its running statistics while the net learns from fakes.",
)

_LEAST_DISTANCE = 0.5 / 255  # closer images are equal once they are stored as bytes
_ROUNDING = 1e-6  # of accuracies, which are float32 means of ones and zeros


@dataclass(frozen=True, kw_only=True)
class DecoyDefense(Defense):
    """Fine-tuning on fakes of the protected label and of a decoy; subclasses say where fakes come from.

    Args:
        alpha: weight of the term that pushes private fakes away from the protected label, >= 0.
        beta: weight of the term that pulls decoy fakes towards it, >= 0; both 0 leave the net as it is.
        ewc_weight: omega, how hard the old weights hold, >= 0; 0 lets them go. "auto" takes the smallest of
            `ewc_ladder` that costs at most `max_drop` of accuracy, and the largest if none does.
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
        least_confidence: mean probability in [0, 1] that private fakes must have of the protected label, and
            public ones of the decoy where a classifier judges them; else the training fails. 0 asks for
            nothing, and the record has the flag `fakes_missed_label` below 0.5.
        ewc_ladder: weights >= 0 in rising order that "auto" tries.
        max_drop: accuracy in [0, 1] that "auto" may cost on the private images that it keeps aside.
        validation_fraction: share in (0, 1) of each label's training images that "auto" keeps aside: they
            join neither replay nor Fisher information. The undefended victim has learned from them.
    """

    acts = "fine-tuning"
    per_target = True
    starts_from = "trained"

    toy: ClassVar[Settings] = {"num_fakes": 8, "finetune_steps": 4, "fisher_samples": 16}
    neutral: ClassVar[Settings | None] = {"alpha": 0.0, "beta": 0.0}
    weak_to: ClassVar[frozenset[Weakness]] = frozenset({"decoys"})
    added = frozenset({"least_confidence", "ewc_ladder", "max_drop", "validation_fraction"})
    # the pull does the work, and more of it costs more accuracy; beside replay ewc_weight weakens the decoy
    # and saves no accuracy, more finetune_steps repair the net, alpha hardly moves fakes that it is sure of
    strength: ClassVar[str] = "beta"
    strength_levels: ClassVar[tuple[object, ...]] = (0.05, 0.2, 1.0, 5.0)

    alpha: float = 1.0
    beta: float = 1.0
    ewc_weight: float | Auto = 30.0
    num_fakes: int = 32
    finetune_steps: int = 100
    finetune_lr: float = 1e-4
    push_limit: Literal["floor", "chance", "none"] = "floor"
    replay_fraction: float = 1.0
    fisher_samples: int = 256
    fisher_norm: Literal["mean", "none"] = "mean"
    least_confidence: float = 0.0
    ewc_ladder: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    max_drop: float = 0.02
    validation_fraction: float = 0.2

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "ewc_weight", "finetune_steps"):
            value = getattr(self, name)
            if value != "auto" and not 0 <= value < math.inf:
                raise ValueError(f"{self.name}: {name} must be >= 0 and finite, got {value}.")
        for name in ("num_fakes", "fisher_samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{self.name}: {name} must be >= 1, got {getattr(self, name)}.")
        if not 0 < self.finetune_lr < math.inf:
            raise ValueError(f"{self.name}: finetune_lr must be > 0 and finite, got {self.finetune_lr}.")
        for name in ("replay_fraction", "least_confidence", "max_drop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{self.name}: {name} must lie in [0, 1], got {getattr(self, name)}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"{self.name}: validation_fraction must lie in (0, 1), got {self.validation_fraction}."
            )
        steps = list(self.ewc_ladder)
        if not steps or steps != sorted(set(steps)) or not 0 <= steps[0] <= steps[-1] < math.inf:
            raise ValueError(f"{self.name}: ewc_ladder must rise from >= 0 and be finite, got {steps}.")

    @property
    def weighting(self) -> tuple[PushLoss, float]:
        """Loss of the private fakes, and the focusing gamma >= 0 of both roles."""
        return "ce", 0.0

    @property
    def hold(self) -> float | Auto:
        """The factor of elastic weight consolidation that is in force, >= 0, or "auto"."""
        return self.ewc_weight

    @abstractmethod
    def make_fakes(self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context) -> Fakes:
        """The fakes of label `target` of the frozen victim and of public person `decoy`."""

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The trained victim, fine-tuned; see Defense.train.

        Notes on the record: `decoy` (public label), `fake_confidence_private` (mean q before), `fake_q` and
        `fake_r` (means after), `fake_distance`, `fisher_mean` (before normalization), `push_limit` and
        `push_limited` (share of private fakes that it holds back at the end); those of `_choose` for "auto".

        Raises:
            MibenchError: the view has no label to protect or several.
            TrainingError: private and decoy fakes are the same images or miss their labels, or the
                fine-tuning diverged.
        """
        target = self._target(view)
        decoy = draw_decoy(view.public.labels, target, ctx)
        ctx.note("decoy", decoy)
        net.to(ctx.device)
        freeze(net)
        if self.alpha == 0 and self.beta == 0:
            return net
        hold, data = self.hold, view.private_train
        if isinstance(hold, str):
            data, aside = keep_aside(data, self.validation_fraction, ctx.generator("validation"))
            fakes = self._checked_fakes(net, replace(view, private_train=data), target, decoy, ctx)
            net = self._choose(net, fakes, target, data, ctx, aside=aside)
        else:
            fakes = self._checked_fakes(net, view, target, decoy, ctx)
            self._finetune(net, fakes, target, data, ctx, hold=hold)
        self._note(net, fakes, target, ctx)
        return net

    def push(self, logits: Tensor, label: int) -> Tensor:
        """Mean loss (scalar) of private fakes with logits (N, K): falls as they leave `label`."""
        kind, gamma = self.weighting
        log_q, log_not_q = log_odds(logits, label)
        if self.push_limit == "chance" and float(log_q.detach().exp().mean()) < 1 / logits.shape[1]:
            return 0.0 * log_q.mean()
        if self.push_limit == "floor":
            log_q, log_not_q = let_go(log_q, log_not_q)
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

    def _checked_fakes(
        self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context
    ) -> Fakes:
        """The fakes, with notes of what they are worth: equal roles leave nothing to learn."""
        fakes = self.make_fakes(net, view, target, decoy, ctx)
        sure = confidence(net, fakes.private, target)
        ctx.note("fake_confidence_private", sure)
        distance = fake_distance(fakes.private, fakes.public)
        ctx.note("fake_distance", distance)
        if distance < _LEAST_DISTANCE:
            raise TrainingError(
                f"defense '{self.name}': the images of label {target} and of the decoy are the same "
                f"(mean distance {distance:.2g}). Train the generator longer: it makes one image only."
            )
        self._require(sure, f"the victim gives the fakes of label {target}")
        if fakes.sure is not None:
            self._require(fakes.sure, f"the public classifier gives the fakes of person {decoy}")
        return fakes

    def _require(self, sure: float, who: str) -> None:
        if sure < self.least_confidence:
            raise TrainingError(
                f"defense '{self.name}': {who} their label with a mean probability of {sure:.3g}, wanted is "
                f"{self.least_confidence} at least. Make surer fakes, by z_steps or a longer trained "
                "generator, or lower least_confidence."
            )

    def _choose(
        self, net: Classifier, fakes: Fakes, target: int, data: Labeled, ctx: Context, *, aside: Labeled
    ) -> Classifier:
        """The net fine-tuned under the smallest weight of the ladder that keeps the accuracy.

        Every rung starts from the victim and meets the same fakes and batches; rungs above the chosen one
        are not tried. Notes: `validation_accuracy` (before), `validation_accuracy_ewc_W` (after, for each
        weight W that was tried), `ewc_weight` (chosen), `max_drop_kept` ("no" where even the largest fails).
        """
        before = accuracy(net, aside, max_batch=ctx.max_batch)
        ctx.note("validation_accuracy", before)
        ctx.note("max_drop_kept", "no")
        trial = net
        for weight in self.ewc_ladder:
            trial = copy.deepcopy(net)
            self._finetune(trial, fakes, target, data, ctx, hold=weight)
            after = accuracy(trial, aside, max_batch=ctx.max_batch)
            ctx.note(f"validation_accuracy_ewc_{weight:g}", after)
            ctx.note("ewc_weight", weight)
            if before - after <= self.max_drop + _ROUNDING:
                ctx.note("max_drop_kept", "yes")
                break
        return trial

    def _finetune(
        self, net: Classifier, fakes: Fakes, target: int, data: Labeled, ctx: Context, *, hold: float
    ) -> None:
        """Descend on all fakes at once, in place."""
        anchor = self._anchor(net, data, hold, ctx) if hold > 0 else None
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

    def _anchor(self, net: Classifier, data: Labeled, hold: float, ctx: Context) -> Anchor:
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
        scale = hold / (mean if self.fisher_norm == "mean" else 1.0)
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
            "floor": log_q < LOWEST_LOG_Q,
            "chance": (log_q.exp().mean() < 1 / logits.shape[1]).expand(len(log_q)),
            "none": torch.zeros_like(log_q, dtype=torch.bool),
        }
        ctx.note("push_limit", self.push_limit)
        ctx.note("push_limited", float(held[self.push_limit].float().mean()))


def confidence(net: Classifier, images: Tensor, label: int) -> float:
    """Mean probability of a label on images (N, C, H, W)."""
    with torch.no_grad():
        return float(net(images).softmax(1)[:, label].mean())


def check_gamma(name: str, gamma: float) -> None:
    """Raise ValueError where the focusing exponent of defense `name` is none."""
    if not 0 <= gamma < math.inf:
        raise ValueError(f"{name}: gamma must be >= 0 and finite, got {gamma}.")
