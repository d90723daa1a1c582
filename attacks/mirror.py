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
from mibench.victim import WhiteBoxVictim

from ._presamples import rank_presamples, starts_of


@dataclass(frozen=True, kw_only=True)
class Mirror(Attack[WhiteBoxVictim]):
    """White-box Mirror: Adam on w, projected on the P-space box.

    Args:
        prior: the style generator and its training.
        search: steps, peak rate and schedule of Adam; the authors' scripts take 20,000 steps at 0.25 with
            5 % warm-up and 25 % cosine cool-down.
        candidates: restarts of each reconstruction, >= 1; the authors take 8.
        presamples: images of the prior scored once for all labels; the authors take 100,000.
        keep: presamples kept for each label, >= candidates.
        loss: identity loss; the authors take cross-entropy.
        flip: mirror each image left to right with probability 1/2 in every step.
        select: choice among the candidates: "consistent" is the authors' rule on runner-up labels,
            "confidence" the largest score of the target.
    """

    name = "mirror"
    version = 2
    access = WhiteBoxVictim
    card = Card(
        title="MIRROR: Model Inversion for Deep Learning Network with High Fidelity",
        paper="An et al., NDSS 2022",
        year=2022,
        code="https://github.com/njuaplusplus/mirror",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "styles are not truncated; the authors' generator moves those of its first 8 layers to 0.7",
            "mirroring, best iterate and schedule are per image, so that rows are independent",
            "the best iterate is stored with its own loss; the authors' code is off by one step",
            "presamples are moved into the box before the first step, not after it",
            "random dropout of the victim's blocks, an option of the authors' code, is left out",
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

    prior: StylePrior = field(default_factory=StylePrior)
    search: Search = field(default_factory=lambda: Search(steps=20_000, lr=0.25, warmup=0.05, cooldown=0.25))
    candidates: int = 8
    presamples: int = 100_000
    keep: int = 64
    loss: IdentityLoss = "ce"
    flip: bool = True
    select: Literal["consistent", "confidence"] = "consistent"

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= self.keep <= self.presamples:
            raise ValueError(
                "mirror: 1 <= candidates <= keep <= presamples must hold, got "
                f"{self.candidates}, {self.keep}, {self.presamples}."
            )

    def prior_spec(self) -> StylePrior:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the best presamples of each label, (K, keep, dim), added as `starts`."""
        space = self.prior.load(prior, victim.shape, ctx)
        starts, _ = rank_presamples(space, victim, ctx, count=self.presamples, keep=self.keep)
        return {**prior, "starts": starts}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        views = Views(flip=0.5 if self.flip else 0.0)

        def loss(images: Tensor, problem: Problem, step: int) -> Tensor:
            seen = views.of(images, problem.noise, step=step)
            return identity_loss(victim.logits(seen), problem.labels, self.loss)

        def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
            logits = victim.logits(images)
            score = logits.softmax(1).gather(1, problem.labels[:, None]).squeeze(1)
            return self._choose(logits.cpu(), problem.labels.cpu()), score

        return invert_latents(
            victim,
            self.prior.load(prior, victim.shape, ctx),
            targets,
            ctx,
            search=self.search,
            loss=loss,
            restarts=self.candidates,
            start=lambda problem: starts_of(prior["starts"], problem),
            choose=choose,
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
