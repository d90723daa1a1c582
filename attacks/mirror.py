"""Mirror: search the w space of a style generator inside a box of natural images.

A style generator is trained on public faces without the victim. Many of its images are scored once by the
victim; the best of them start the search for every label. After each step the latent is moved back into
the box mean +- kappa standard deviations of P space, where latents are nearly Gaussian. The genetic engine,
which needs scores only, is the plugin `mirror_bb`.

Source: An et al., NDSS 2022, and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.augment import Views
from mibench.gan import StylePrior
from mibench.inversion import Problem, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.spaces import WSpace
from mibench.stylegan import StyleChoice, check_critic
from mibench.victim import WhiteBoxVictim

from ._dropout import with_dropout
from ._penalty import Penalty
from ._presamples import rank_presamples, starts_of
from ._truncation import check_truncation, truncated


@dataclass(frozen=True, kw_only=True)
class Mirror(Attack[WhiteBoxVictim]):
    """White-box Mirror: Adam on w, projected on the P-space box.

    Args:
        prior: the style generator and its training, or a ready one (docs/weights.md).
        search: steps, peak rate and schedule of Adam; the authors' scripts take 20,000 steps at 0.25 with
            5 % warm-up and 25 % cosine cool-down.
        candidates: restarts of each reconstruction, >= 1; the authors take 8.
        presamples: images of the prior scored once for all labels; the authors take 100,000.
        keep: presamples kept for each label, >= candidates.
        loss: identity loss; the authors take cross-entropy.
        identity_weight: weight of the identity loss, > 0; the authors' scripts take 10. Adam does not see it
            where no penalty is on.
        penalty: weights of optional terms beside it; the authors take none.
        flip: mirror each image left to right with probability 1/2 in every step.
        dropout: drop random blocks of the victim in every step, see `_dropout`; an option of the authors.
        psi: truncation of styles in presampling and search, in [0, 1]; the authors take 0.7.
        psi_layers: styles that are truncated, from the coarsest on; the authors take 8, up to 32 px.
        select: choice among the candidates: "consistent" is the authors' rule on runner-up labels,
            "confidence" the largest score of the target.
    """

    name = "mirror"
    version = 3
    access = WhiteBoxVictim
    card = Card(
        title="MIRROR: Model Inversion for Deep Learning Network with High Fidelity",
        paper="An et al., NDSS 2022",
        year=2022,
        code="https://github.com/njuaplusplus/mirror",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "mirroring, best iterate and schedule are per image, so that rows are independent",
            "the best iterate is stored with its own loss; the authors' code is off by one step",
            "presamples are moved into the box before the first step, not after it",
            "penalties are per image, the mean w is the generator's running mean",
            "dropout draws per image among the net's stages and its one linear layer; the number that "
            "sets the rate counts those that are dropped",
            "only one w for all layers is searched; the authors' code also offers w+, z and z+",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {
            "latent_dim": 8,
            "w_dim": 8,
            "width": 4,
            "critic_width": 4,
            "steps": 8,
            "batch": 8,
            "p_samples": 64,
        },
        "search": {"steps": 10, "lr": 0.1},
        "candidates": 2,
        "presamples": 32,
        "keep": 4,
    }

    prior: StyleChoice = field(default_factory=StylePrior)
    search: Search = field(default_factory=lambda: Search(steps=20_000, lr=0.25, warmup=0.05, cooldown=0.25))
    candidates: int = 8
    presamples: int = 100_000
    keep: int = 64
    loss: IdentityLoss = "ce"
    identity_weight: float = 10.0
    penalty: Penalty = field(default_factory=Penalty)
    flip: bool = True
    dropout: bool = False
    psi: float = 0.7
    psi_layers: int = 8
    select: Literal["consistent", "confidence"] = "consistent"

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= self.keep <= self.presamples:
            raise ValueError(
                "mirror: 1 <= candidates <= keep <= presamples must hold, got "
                f"{self.candidates}, {self.keep}, {self.presamples}."
            )
        if not self.identity_weight > 0:
            raise ValueError(f"mirror: identity_weight must be > 0, got {self.identity_weight}.")
        check_truncation(self.name, psi=self.psi, layers=self.psi_layers)
        check_critic(self.name, self.prior, **{"penalty.critic": self.penalty.critic})

    def prior_spec(self) -> StyleChoice:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the best presamples of each label, (K, keep, dim), added as `starts`."""
        space = self._space(prior, victim, ctx)
        starts, _ = rank_presamples(space, victim, ctx, count=self.presamples, keep=self.keep)
        return {**prior, "starts": starts}

    def _space(self, prior: Prior, victim: WhiteBoxVictim, ctx: Context) -> WSpace:
        return truncated(self.prior.load(prior, victim.shape, ctx), psi=self.psi, layers=self.psi_layers)

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        space = self._space(prior, victim, ctx)
        views = Views(flip=0.5 if self.flip else 0.0)
        is_bounded = self.penalty.energy == 0
        pull = self.penalty.of(space, ctx)

        def start(problem: Problem) -> Tensor:
            latents = starts_of(prior["starts"], problem).to(ctx.device)
            return space.project(latents) if is_bounded else latents

        def loss(images: Tensor, problem: Problem, step: int) -> Tensor:
            seen, net = views.of(images, problem.noise, step=step), victim
            if self.dropout:
                net = victim.seen_through(with_dropout(victim.net, problem.noise, step=step))
            total = self.identity_weight * identity_loss(net.logits(seen), problem.labels, self.loss)
            return total + self.penalty.critic * space.realism(images) if self.penalty.critic > 0 else total

        def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
            logits = victim.logits(images)
            score = logits.softmax(1).gather(1, problem.labels[:, None]).squeeze(1)
            return self._choose(logits.cpu(), problem.labels.cpu()), score

        return invert_latents(
            victim,
            space,
            targets,
            ctx,
            search=self.search,
            loss=loss,
            restarts=self.candidates,
            start=start,
            choose=choose,
            is_bounded=is_bounded,
            penalty=None if pull is None else lambda latents, problem: pull(latents, start(problem)),
        )

    def _choose(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Row of the chosen candidate of each problem, (B,), for logits (B * candidates, K)."""
        own = logits.gather(1, labels[:, None]).squeeze(1).view(-1, self.candidates)
        if self.select == "consistent" and logits.shape[1] > 2:
            runners = runner_ups(logits, labels).view(-1, self.candidates, min(5, logits.shape[1] - 1))
            picks = [most_consistent(group, score) for group, score in zip(runners, own)]
        else:
            picks = own.argmax(1).tolist()
        return torch.tensor(picks) + torch.arange(len(own)) * self.candidates


def runner_ups(logits: Tensor, labels: Tensor) -> Tensor:
    """The five most probable labels other than the target, (B, min(5, K - 1)), for logits (B, K)."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(5, logits.shape[1] - 1), dim=1).indices


def most_consistent(runners: Tensor, own: Tensor) -> int:
    """The authors' choice among candidates: agreement on runner-up labels, then the target's logit.

    The largest group of candidates that all share the same two runner-up labels wins (then one label, if no
    two candidates share two); within it, and among groups of that size, the largest target logit. Agreement
    tells a face from noise.

    Args:
        runners: (R, 5) int64, runner-up labels of each candidate.
        own: (R,) float32, target logits.
    """
    sets = [frozenset(row) for row in runners.tolist()]
    for shared in (2, 1):
        agreed = {labels for mine in sets for labels in combinations(sorted(mine), shared)}
        groups = [[i for i, mine in enumerate(sets) if mine.issuperset(labels)] for labels in agreed]
        size = max((len(group) for group in groups), default=0)
        if size > 1:
            members = sorted({i for group in groups if len(group) == size for i in group})
            return max(members, key=lambda i: float(own[i]))
    return int(own.argmax())
