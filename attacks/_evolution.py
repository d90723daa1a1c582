"""The one way from populations of latents to reconstructions by scores alone.

A black-box attack gives a function that scores where the populations of a chunk start and returns how they go
on for one generation. Allowance, chunks, stops, the best latent so far and the effort curve are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.inversion import Film, Part, joined
from mibench.latent import checkpoints
from mibench.noise import Noise
from mibench.plugin import Context, Stopwatch
from mibench.prior import LatentSpace
from mibench.victim import ScoreVictim

Fitness = Callable[[Tensor, Tensor], Tensor]
Advance = Callable[[Tensor, int], None]
_TAIL, _TAIL_START = 0.06, 0.6  # C2FMI: over the last 30 of 500 generations, (generations left) / 50
LEAST = 1e-30  # floor of a released probability before its logarithm


def own_score(scores: Tensor, labels: Tensor) -> Tensor:
    """Released probability (N,) of each image's label, for scores (N, K) and labels (N,)."""
    return scores.gather(1, labels[:, None]).squeeze(1)


def masked_score(scores: Tensor, labels: Tensor, *, top: int) -> Tensor:
    """The label's probability (N,) if it is among the `top` largest of its row, else minus their sum.

    What an attacker climbs who sees the largest scores only (C2FMI's code, its variant against defenses).
    """
    largest = scores.topk(min(top, scores.shape[1]), dim=1).values
    own = own_score(scores, labels)
    return torch.where(own >= largest[:, -1], own, -largest.sum(1))


class Trial:
    """One chunk's targets while their populations evolve; whatever is scored may become the best of its row.

    Args:
        victim: asked about every latent that is scored.
        space: a trained generator.
        labels: (T,), int64, on the device.
        noise: one stream for each row.
        ctx: gives chunk size and device.
        fitness: (scores (N, K), labels (N,)) -> (N,); what is to rise.
        stop: a row is done once the released score of its label reaches it.
    """

    def __init__(
        self,
        victim: ScoreVictim,
        space: LatentSpace,
        labels: Tensor,
        noise: Noise,
        ctx: Context,
        *,
        fitness: Fitness,
        stop: float,
    ) -> None:
        self.victim, self.space, self.labels, self.noise, self.ctx = victim, space, labels, noise, ctx
        self.fitness, self.stop = fitness, stop
        count, device = len(labels), ctx.device
        self.best = torch.zeros(count, space.dim, device=device)
        self.best_fitness = torch.full((count,), -torch.inf, device=device)
        self.confidence = torch.zeros(count, device=device)
        self.is_done = torch.zeros(count, dtype=torch.bool, device=device)

    @property
    def all_rows(self) -> Tensor:
        """Numbers of all rows, (T,), int64."""
        return torch.arange(len(self.labels), device=self.labels.device)

    def draw(self, rows: Tensor, purpose: str, *shape: int, step: int = 0) -> Tensor:
        """Uniform numbers (R, *shape) in (0, 1] of some rows' streams, on the device."""
        u: Tensor = self.noise[rows.cpu()].uniform(purpose, *shape, step=step)
        return u.to(self.ctx.device)

    def score(self, rows: Tensor, latents: Tensor) -> Tensor:
        """Fitness (R, n), float32, of latents (R, n, dim) of some rows; each costs one query."""
        flat, labels = latents.flatten(0, 1), self.labels[rows].repeat_interleave(latents.shape[1])
        parts = []
        with torch.no_grad():
            for w, label in zip(flat.split(self.ctx.max_batch), labels.split(self.ctx.max_batch)):
                scores = self.victim.scores(self.space.decode(w))
                parts.append(torch.stack([self.fitness(scores, label), own_score(scores, label)]))
        fitness, own = torch.cat(parts, dim=1).view(2, *latents.shape[:2]).unbind()
        top, index = fitness.max(1)
        here = torch.arange(len(rows), device=rows.device)
        better = top > self.best_fitness[rows]
        improved, chosen = rows[better], index[better]
        self.best[improved] = latents[here[better], chosen]
        self.best_fitness[improved] = top[better]
        self.confidence[improved] = own[here[better], chosen]
        self.is_done |= self.confidence >= self.stop
        return fitness


def evolve(
    victim: ScoreVictim,
    space: LatentSpace,
    targets: Tensor,
    ctx: Context,
    *,
    begin: Callable[[Trial, int], Advance],
    generations: int,
    first: int,
    each: int,
    stop: float = math.inf,
    fitness: Fitness = own_score,
) -> Reconstructions:
    """Evolve a population of latents for each target and keep its fittest individual.

    Args:
        victim: what the populations are scored by; its allowance shortens the evolution.
        space: a trained generator.
        targets: (B,), int64, repeats allowed.
        ctx: gives noise, chunk size, device and reporter.
        begin: (trial, generations that are paid for) -> what takes (rows (R,), int64; generation from 1 on)
            through one generation; it scores the start before it returns.
        generations: at most so many, >= 0.
        first: queries of each reconstruction that `begin` asks.
        each: queries of each reconstruction in a generation.
        stop: score of the target at which a reconstruction is done.
        fitness: what is to rise, see `Trial`.

    Returns:
        One reconstruction for each target, with its effort curve: losses are -log of the released score, and
        one that is done asks no more.

    Raises:
        QueryBudgetError: the allowance does not even pay for the start.
    """
    generations = victim.steps_within(generations, per_step=each, reserve=first)
    noise, parts = ctx.noise(targets), []
    for rows in torch.arange(len(targets)).split(max(1, ctx.max_batch // max(first, each))):
        labels = targets[rows].to(ctx.device)
        trial = Trial(victim, space, labels, noise[rows], ctx, fitness=fitness, stop=stop)
        parts.append(_lived(trial, begin, generations))
        ctx.report(int(rows[-1]) + 1, len(targets), score=float(parts[-1].confidence.mean()))
    return joined(parts, targets)


def _lived(trial: Trial, begin: Callable[[Trial, int], Advance], generations: int) -> Part:
    """The reconstructions of one chunk after all its generations."""
    film, stops, watch = Film(trial.victim), frozenset(checkpoints(generations)), Stopwatch()
    advance = begin(trial, generations)
    for generation in range(generations + 1):
        rows = torch.nonzero(~trial.is_done).squeeze(1)
        if generation > 0 and len(rows) > 0:
            advance(rows, generation)
        if generation in stops:
            film.add(_pictured(trial), -trial.confidence.clamp_min(LEAST).log())
        if watch.is_due():
            trial.ctx.report(generation, generations, score=float(trial.confidence.mean()))
    return film.part(_pictured(trial), trial.confidence)


def _pictured(trial: Trial) -> Tensor:
    """Images of the best latents so far, on the CPU; the victim is not asked."""
    with torch.no_grad():
        parts = [trial.space.decode(w).cpu() for w in trial.best.split(trial.ctx.max_batch)]
    return torch.cat(parts)


class Differential:
    """Differential evolution (current to best, several differences, binomial crossover).

    A child is x + pull * (best - x) + scale * sum of differences of random pairs; each of its coordinates is
    the parent's with probability `crossover`; it takes its parent's place if it is fitter. Over the last 6 %
    of the generations the scale falls, from 0.6 of itself to nothing. Source: C2FMI's code.

    Args:
        trial: scores, and the rows' noise.
        people: (T, n, dim), the first generation.
        fitness: (T, n), theirs.
        generations: in all, known before for the fall of the scale.
        pull: share of the way to the best individual.
        scale: weight of the differences.
        pairs: number of differences.
        crossover: probability of the parent's coordinate.
        inside: moves latents into the allowed region.
    """

    def __init__(
        self,
        trial: Trial,
        people: Tensor,
        fitness: Tensor,
        *,
        generations: int,
        pull: float,
        scale: float,
        pairs: int,
        crossover: float,
        inside: Callable[[Tensor], Tensor],
    ) -> None:
        self.trial, self.people, self.fitness, self.generations = trial, people, fitness, generations
        self.pull, self.scale, self.pairs, self.crossover, self.inside = pull, scale, pairs, crossover, inside

    def __call__(self, rows: Tensor, generation: int) -> None:
        """Let one generation of some rows meet its children."""
        people, fitness = self.people[rows], self.fitness[rows]
        children = self.inside(self.children(rows, generation))
        fresh = self.trial.score(rows, children)
        is_fitter = fresh > fitness
        self.people[rows] = torch.where(is_fitter[:, :, None], children, people)
        self.fitness[rows] = torch.where(is_fitter, fresh, fitness)

    def children(self, rows: Tensor, generation: int) -> Tensor:
        """A child (R, n, dim) of each individual of some rows."""
        people = self.people[rows]
        count, size, dim = people.shape
        here = torch.arange(count, device=rows.device)
        best = people[here, self.fitness[rows].argmax(1)][:, None]

        def draw(purpose: str, *shape: int) -> Tensor:
            return self.trial.draw(rows, purpose, *shape, step=generation)

        picks = (draw("pairs", 2 * self.pairs * size) * size).ceil().long() - 1
        picked = people.gather(1, picks[:, :, None].expand(-1, -1, dim)).view(count, 2, self.pairs, size, dim)
        moved = people + self.pull * (best - people)
        moved = moved + self.scale_at(generation) * (picked[:, 0] - picked[:, 1]).sum(1)
        return torch.where(draw("cross", size, dim) > self.crossover, moved, people)

    def scale_at(self, generation: int) -> float:
        """Weight of the differences in a generation, counted from 1."""
        left, tail = self.generations - generation + 1, _TAIL * self.generations
        return self.scale if left > tail else self.scale * _TAIL_START * left / tail
