"""Black-box Mirror: a genetic algorithm over w that asks the victim for scores only.

Prior, presamples and the P-space box are those of `mirror`. A population starts at the best presamples of
the label; parents are drawn by their scores, children cross coordinates and mutate inside the box, and the
best individual is always kept.

Source: An et al., NDSS 2022, and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import StylePrior, WSpace
from mibench.nets.style import from_p, to_p
from mibench.noise import Noise
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import ScoreVictim

from ._presamples import rank_presamples

_LEAST = 1e-30  # floor of a released probability before its logarithm


@dataclass(frozen=True, kw_only=True)
class MirrorBb(Attack[ScoreVictim]):
    """Black-box Mirror.

    Args:
        prior: the style generator and its training; equal to `mirror`'s, it is trained once for both.
        population: individuals of each reconstruction, >= 2; the authors' scripts take 1,000.
        generations: at most so many, >= 0; the authors take 100.
        stop_confidence: a reconstruction is done at this score of its target; the authors take 0.95.
        mutation_rate: probability that a coordinate of a child mutates; the authors take 0.1.
        mutation_size: largest move as a share of half the box's width in P space, which is one standard
            deviation for the prior's kappa = 1; the authors take 0.1.
        presamples: images of the prior scored once for all labels; the authors take 100,000.
        crossover: share of the first parent's coordinates: "fixed" is p1 / (p1 + p2); "paper" is the
            authors' f1 / (f1 + f2) with f = log p, which favors the *less* fit parent.
    """

    name = "mirror_bb"
    access = ScoreVictim
    card = Card(
        title="MIRROR: Model Inversion for Deep Learning Network with High Fidelity (black box)",
        paper="An et al., NDSS 2022",
        year=2022,
        code="https://github.com/njuaplusplus/mirror",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "styles are not truncated; the authors' generator moves those of its first 8 layers to 0.7",
            "presamples are moved into the box before the first generation; the authors move children alone",
            "mutation noise is drawn for each child; the authors share one draw in a generation",
            "crossover gives the fitter parent the larger share by default; 'paper' is the authors' rule",
            "the score of the best individual is kept and not asked for again",
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
        "population": 8,
        "generations": 2,
        "presamples": 32,
    }

    prior: StylePrior = field(default_factory=StylePrior)
    population: int = 1_000
    generations: int = 100
    stop_confidence: float = 0.95
    mutation_rate: float = 0.1
    mutation_size: float = 0.1
    presamples: int = 100_000
    crossover: Literal["fixed", "paper"] = "fixed"

    def __post_init__(self) -> None:
        if not 2 <= self.population <= self.presamples:
            raise ValueError(
                "mirror_bb: 2 <= population <= presamples must hold, got "
                f"{self.population} and {self.presamples}."
            )
        if self.generations < 0:
            raise ValueError(f"mirror_bb: generations must be >= 0, got {self.generations}.")

    def prior_spec(self) -> StylePrior:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the best presamples of each label, (K, population, dim), added as `starts`."""
        space = self.prior.load(prior, victim.shape, ctx)
        starts, _ = rank_presamples(space, victim, ctx, count=self.presamples, keep=self.population)
        return {**prior, "starts": starts}

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. Repeats of a label evolve from the same start with their own noise."""
        space = self.prior.load(prior, victim.shape, ctx)
        noise, results = ctx.noise(targets), []
        for row, label in enumerate(targets.tolist()):
            found = self._evolve(
                victim,
                space,
                ctx,
                start=prior["starts"][label],
                label=label,
                noise=noise[slice(row, row + 1)],
            )
            results.append(found)
            ctx.report(row + 1, len(targets), score=found[1])
        latents = torch.stack([latent for latent, _ in results])
        with torch.no_grad():
            images = torch.cat([space.decode(w.to(ctx.device)).cpu() for w in latents.split(ctx.max_batch)])
        return Reconstructions.collect(images, targets, torch.tensor([score for _, score in results]))

    def _evolve(
        self, victim: ScoreVictim, space: WSpace, ctx: Context, *, start: Tensor, label: int, noise: Noise
    ) -> tuple[Tensor, float]:
        """Best latent (dim,) of one reconstruction and its score of the label."""
        people = space.project(start.to(ctx.device))
        scores = self._score(victim, space, people, label, ctx)
        for generation in range(self.generations):
            elite = int(scores.argmax())
            if float(scores[elite]) >= self.stop_confidence:
                break
            children = self._children(people, scores, space, noise, generation)
            fresh = self._score(victim, space, children, label, ctx)
            people = torch.cat([people[elite : elite + 1], children])
            scores = torch.cat([scores[elite : elite + 1], fresh])
        best = int(scores.argmax())
        return people[best].cpu(), float(scores[best])

    def _score(self, victim: ScoreVictim, space: WSpace, people: Tensor, label: int, ctx: Context) -> Tensor:
        with torch.no_grad():
            parts = [victim.scores(space.decode(w))[:, label] for w in people.split(ctx.max_batch)]
        return torch.cat(parts)

    def _children(
        self, people: Tensor, scores: Tensor, space: WSpace, noise: Noise, generation: int
    ) -> Tensor:
        """Next generation without its elite: (population - 1, dim), inside the box."""
        count, dim = len(people) - 1, people.shape[1]
        device = people.device

        def draw(purpose: str, *shape: int) -> Tensor:
            return noise.uniform(purpose, *shape, step=generation)[0].to(device)

        # parents by the softmax of log p, which is p itself, by inversion of its distribution function
        chances = (scores + _LEAST).cumsum(0) / (scores + _LEAST).sum()
        picks = torch.searchsorted(chances, draw("parents", 2, count)).clamp(max=len(people) - 1)
        share = self._share(scores[picks[0]], scores[picks[1]])
        crossed = torch.where(draw("cross", count, dim) < share[:, None], people[picks[0]], people[picks[1]])
        moved = draw("mutate", count, dim) < self.mutation_rate
        move = (2 * draw("move", count, dim) - 1) * self.mutation_size * space.spread
        return space.project(from_p(to_p(crossed) + moved * move))

    def _share(self, first: Tensor, second: Tensor) -> Tensor:
        """Share of the first parent's coordinates, in [0, 1], for scores of both parents (N,)."""
        if self.crossover == "paper":
            first, second = (p.clamp(_LEAST, 1 - 1e-7).log() for p in (first, second))
        total = first + second
        return torch.where(total == 0, torch.full_like(total, 0.5), first / total)
