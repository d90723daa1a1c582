"""Black-box Mirror: a genetic algorithm over w that asks the victim for scores only.

Prior, presamples and the P-space box are those of `mirror`. A population starts at the best presamples of
the label; parents are drawn by their scores, children cross coordinates and mutate inside the box, and the
best individual is always kept. Instead, CMA-ES may search the box from the best presample of the label.

Source: An et al., NDSS 2022, and the authors' code. CMA-ES: Hansen and Ostermeier, 2001.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import StylePrior
from mibench.nets.styled import from_p, to_p
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.spaces import WSpace
from mibench.stylegan import StyleChoice
from mibench.victim import ScoreVictim

from ._cma import CmaEs, require_cma
from ._evolution import LEAST, Advance, Trial, evolve
from ._presamples import rank_presamples
from ._truncation import check_truncation, truncated


@dataclass(frozen=True, kw_only=True)
class MirrorBb(Attack[ScoreVictim]):
    """Black-box Mirror.

    Args:
        prior: the style generator and its training, or a ready one (docs/weights.md); equal to
            `mirror`'s, it is trained once for both.
        population: individuals of each reconstruction, >= 2; the authors' scripts take 1,000.
        generations: at most so many, >= 0; the authors take 100.
        stop_confidence: a reconstruction is done at this score of its target; the authors take 0.95.
        mutation_rate: probability that a coordinate of a child mutates; the authors take 0.1.
        mutation_size: largest move as a share of half the box's width in P space, which is one standard
            deviation for the prior's kappa = 1; the authors take 0.1.
        presamples: images of the prior scored once for all labels; the authors take 100,000.
        psi: truncation of styles in presampling and search, in [0, 1]; the authors take 0.7.
        psi_layers: styles that are truncated, from the coarsest on; the authors take 8, up to 32 px.
        crossover: share of the first parent's coordinates: "fixed" is p1 / (p1 + p2); "paper" is the
            authors' f1 / (f1 + f2) with f = log p, which favors the *less* fit parent.
        engine: the authors' genetic algorithm; or CMA-ES (package `cma`) with `population` children.
        step_size: CMA-ES's first standard deviation as a share of half the box's width, > 0.

    Raises:
        PluginError: the engine is CMA-ES and its package is not installed.
    """

    name = "mirror_bb"
    version = 2
    access = ScoreVictim
    card = Card(
        title="MIRROR: Model Inversion for Deep Learning Network with High Fidelity (black box)",
        paper="An et al., NDSS 2022",
        year=2022,
        code="https://github.com/njuaplusplus/mirror",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "presamples are moved into the box before the first generation; the authors move children alone",
            "mutation noise is drawn for each child; the authors share one draw in a generation",
            "crossover gives the fitter parent the larger share by default; 'paper' is the authors' rule",
            "the score of the best individual is kept and not asked for again",
            "the engine 'cma_es', which searches the same box, is not the authors'",
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

    prior: StyleChoice = field(default_factory=StylePrior)
    population: int = 1_000
    generations: int = 100
    stop_confidence: float = 0.95
    mutation_rate: float = 0.1
    mutation_size: float = 0.1
    presamples: int = 100_000
    psi: float = 0.7
    psi_layers: int = 8
    crossover: Literal["fixed", "paper"] = "fixed"
    engine: Literal["genetic", "cma_es"] = "genetic"
    step_size: float = 0.3

    def __post_init__(self) -> None:
        if not 2 <= self.population <= self.presamples:
            raise ValueError(
                "mirror_bb: 2 <= population <= presamples must hold, got "
                f"{self.population} and {self.presamples}."
            )
        if self.generations < 0:
            raise ValueError(f"mirror_bb: generations must be >= 0, got {self.generations}.")
        if not self.step_size > 0:
            raise ValueError(f"mirror_bb: step_size must be > 0, got {self.step_size}.")
        check_truncation(self.name, psi=self.psi, layers=self.psi_layers)

    def prior_spec(self) -> StyleChoice:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the best presamples of each label, (K, population, dim), added as `starts`."""
        if self.engine == "cma_es":
            require_cma(self.name)  # before the victim is asked
        space = self._space(prior, victim, ctx)
        starts, _ = rank_presamples(space, victim, ctx, count=self.presamples, keep=self.population)
        return {**prior, "starts": starts}

    def _space(self, prior: Prior, victim: ScoreVictim, ctx: Context) -> WSpace:
        return truncated(self.prior.load(prior, victim.shape, ctx), psi=self.psi, layers=self.psi_layers)

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. Repeats of a label evolve from the same start with their own noise."""
        space = self._space(prior, victim, ctx)
        is_genetic = self.engine == "genetic"

        def begin(trial: Trial, _generations: int) -> Advance:
            start = space.project(prior["starts"][trial.labels.cpu()].to(ctx.device))
            if is_genetic:
                return _Genetic(self, space, trial, start)
            return CmaEs(space, trial, start[:, 0], children=self.population, step_size=self.step_size)

        return evolve(
            victim,
            space,
            targets,
            ctx,
            begin=begin,
            generations=self.generations,
            first=self.population if is_genetic else 1,
            each=self.population - 1 if is_genetic else self.population,
            stop=self.stop_confidence,
        )

    def share(self, first: Tensor, second: Tensor) -> Tensor:
        """Share of the first parent's coordinates, in [0, 1], for scores of both parents, of any shape."""
        if self.crossover == "paper":
            first, second = (p.clamp(LEAST, 1 - 1e-7).log() for p in (first, second))
        total = first + second
        return torch.where(total == 0, torch.full_like(total, 0.5), first / total)


class _Genetic:
    """Populations (T, n, dim) of one chunk and their scores (T, n); called, they go on for one generation."""

    def __init__(self, options: MirrorBb, space: WSpace, trial: Trial, start: Tensor) -> None:
        self.options, self.space, self.trial, self.people = options, space, trial, start
        self.scores = trial.score(trial.all_rows, start)

    def __call__(self, rows: Tensor, generation: int) -> None:
        """Replace all but the best individual of some rows by children."""
        people, scores = self.people[rows], self.scores[rows]
        elite, here = scores.argmax(1), torch.arange(len(rows), device=rows.device)
        children = self.children(rows, generation)
        fresh = self.trial.score(rows, children)
        self.people[rows] = torch.cat([people[here, elite][:, None], children], dim=1)
        self.scores[rows] = torch.cat([scores[here, elite][:, None], fresh], dim=1)

    def children(self, rows: Tensor, generation: int) -> Tensor:
        """Next generation of some rows without its elite: (R, n - 1, dim), inside the box."""
        people, scores = self.people[rows], self.scores[rows]
        rounds, count, dim = len(rows), people.shape[1] - 1, people.shape[2]

        def draw(purpose: str, *shape: int) -> Tensor:
            return self.trial.draw(rows, purpose, *shape, step=generation - 1)

        # parents by the softmax of log p, which is p itself, by inversion of its distribution function
        chances = (scores + LEAST).cumsum(1) / (scores + LEAST).sum(1, keepdim=True)
        picks = torch.searchsorted(chances, draw("parents", 2 * count)).clamp(max=count)
        parents = people.gather(1, picks[:, :, None].expand(-1, -1, dim)).view(rounds, 2, count, dim)
        fit = scores.gather(1, picks).view(rounds, 2, count)
        share = self.options.share(fit[:, 0], fit[:, 1])
        is_first = draw("cross", count, dim) < share[:, :, None]
        crossed = torch.where(is_first, parents[:, 0], parents[:, 1])
        moved = draw("mutate", count, dim) < self.options.mutation_rate
        move = (2 * draw("move", count, dim) - 1) * self.options.mutation_size * self.space.spread
        return self.space.project(from_p(to_p(crossed) + moved * move))
