"""The one way from a prior to reconstructions: chunks, restarts, search, choice and effort curve.

A latent attack gives its loss, where its searches start and how it chooses among restarts; the rest is here.
So is how the chunks of any attack keep their effort curves (`Film`) and become one result (`joined`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.data.split import quantize
from mibench.latent import Search, pick_best, search_latents
from mibench.memory import pieces
from mibench.noise import Noise, repeats
from mibench.plugin import Context
from mibench.prior import LatentSpace
from mibench.victim import LabelVictim, WhiteBoxVictim


@dataclass(frozen=True)
class Problem:
    """The searches of one chunk; those of one reconstruction lie next to each other.

    Args:
        labels: (R,), int64, on the device; the label of each search.
        noise: one stream for each search.
        ranks: (R,), int64, on the CPU: the how-manieth search of its label it is, counted over repeats.
        restarts: searches of each reconstruction; R is a multiple of it.
    """

    labels: Tensor
    noise: Noise
    ranks: Tensor
    restarts: int


Loss = Callable[[Tensor, Problem, int], Tensor]
Choice = Callable[[Tensor, Problem], tuple[Tensor, Tensor]]
Region = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stage:
    """A search that goes on where the one before it ended, with latents of its own.

    Args:
        search: its options.
        enter: latents that the search before it kept (R, D) -> where this one starts (R, E).
        decode: latents (R, E) -> images (R, C, H, W) in [0, 1], differentiable, each row by itself.
        bound: the start (R, E) -> what moves latents (R, E) into the allowed region after each step; the
            start lies in it.
    """

    search: Search
    enter: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    bound: Callable[[Tensor], Region]


def invert_latents(
    victim: WhiteBoxVictim,
    space: LatentSpace,
    targets: Tensor,
    ctx: Context,
    *,
    search: Search,
    loss: Loss,
    restarts: int = 1,
    start: Callable[[Problem], Tensor] | None = None,
    choose: Choice | None = None,
    is_bounded: bool = True,
    per_step: int = 1,
    per_choice: int = 1,
    further: Sequence[Stage] = (),
    is_any_end: bool = False,
    penalty: Callable[[Tensor, Problem], Tensor] | None = None,
) -> Reconstructions:
    """Search latents for each target and keep the best restart.

    Args:
        victim: what the search looks at; its allowance shortens the search.
        space: a trained generator.
        targets: (B,), int64, repeats allowed.
        ctx: gives noise, chunk size, device and reporter.
        search: options of the search.
        loss: (images (R, C, H, W), problem, step) -> (R,); what falls. The iterate with the least is kept.
        restarts: searches of each reconstruction, >= 1.
        start: problem -> latents (R, D); None draws them from the prior.
        choose: (images (R, C, H, W), problem) -> rows (R / problem.restarts,) of the chosen ones, and the
            victim's score of each image (R,); None takes the largest target logit.
        is_bounded: move each latent into the space's region after each step.
        per_step: images that `loss` asks the victim about for each search; chunks are so much smaller.
        per_choice: images that `choose` asks the victim about for each image that it chooses among.
        further: searches that follow, one after another, with the same loss; its `step` counts on. The
            allowance shortens the last of them first, and drops those that it pays no step of.
        is_any_end: choose among the ends of all searches, not of the last one alone.
        penalty: (latents (R, D), problem) -> (R,); added to the loss of the first search. None adds nothing.

    Returns:
        One reconstruction for each target, with its effort curve.

    Raises:
        QueryBudgetError: the allowance does not even pay for the start and the choice.
    """
    first = Stage(search, _unchanged, space.decode, lambda _: space.project if is_bounded else _unchanged)
    once, ends = restarts * per_step, 1 + len(further) if is_any_end else 1
    wanted = sum(stage.search.steps + 1 for stage in further) + search.steps
    steps = victim.steps_within(wanted, per_step=once, reserve=once + ends * restarts * per_choice)
    run = _Run(
        victim=victim,
        stages=_within([first, *further], steps + 1),
        ctx=ctx,
        loss=loss,
        start=start or (lambda problem: space.start(problem.noise)),
        choose=choose or largest_logit(victim),
        is_any_end=is_any_end,
        penalty=penalty,
    )
    return _solved(run, targets, restarts, images=restarts * max(per_step, ends))


def _solved(run: _Run, targets: Tensor, restarts: int, *, images: int) -> Reconstructions:
    """Reconstructions of targets (B,), each with so many restarts; each holds so many images at once."""
    at_once = max(1, run.ctx.max_batch // images)  # whole reconstructions
    noise, before = run.ctx.noise(targets), repeats(targets)

    def solve(rows: slice) -> Part:
        ranks = before[rows][:, None] * restarts + torch.arange(restarts)
        problem = Problem(
            labels=targets[rows].repeat_interleave(restarts).to(run.ctx.device),
            noise=noise[rows].repeat(restarts),
            ranks=ranks.flatten(),
            restarts=restarts,
        )
        with run.victim.refunded():
            return run.solve(problem)

    return joined(pieces(solve, len(targets), rows=at_once, what="inversion"), targets)


def _unchanged(latents: Tensor) -> Tensor:
    return latents


def _within(stages: list[Stage], evaluations: int) -> list[Stage]:
    """The stages, with the steps that a number of evaluations of the loss pays for; the first one stays."""
    kept: list[Stage] = []
    for stage in stages:
        if kept and evaluations < 1 + min(1, stage.search.steps):
            break
        steps = min(stage.search.steps, evaluations - 1)
        kept.append(dataclasses.replace(stage, search=dataclasses.replace(stage.search, steps=steps)))
        evaluations -= steps + 1
    return kept


def largest_logit(victim: WhiteBoxVictim) -> Choice:
    """The choice of the restart with the largest target logit; scores are the victim's softmax."""

    def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        logits = victim.logits(images)
        own = logits.gather(1, problem.labels[:, None]).squeeze(1)
        score = logits.softmax(1).gather(1, problem.labels[:, None]).squeeze(1)
        return pick_best(-own, problem.restarts), score

    return choose


@dataclass(frozen=True, kw_only=True)
class _Run:
    """All that the chunks of one inversion share."""

    victim: WhiteBoxVictim
    stages: list[Stage]
    ctx: Context
    loss: Loss
    start: Callable[[Problem], Tensor]
    choose: Choice
    is_any_end: bool
    penalty: Callable[[Tensor, Problem], Tensor] | None

    def solve(self, problem: Problem) -> Part:
        """The reconstructions of one chunk.

        The effort curve has the checkpoints of the first search, the ends of the others, and the choice.
        """
        film, evaluation = Film(self.victim), itertools.count()
        latents, ends, losses = self.start(problem).to(self.ctx.device), [], []
        for stage in self.stages:
            latents, score = self._search(stage, stage.enter(latents), problem, evaluation, film)
            ends.append(_decoded(stage, latents))
            losses.append(score.cpu())
        images, loss = ends[-1], losses[-1]
        single = quantize(images[:: problem.restarts]) if problem.restarts > 1 else None
        if self.is_any_end and len(ends) > 1:
            images, loss = torch.stack(ends, 1).flatten(0, 1), torch.stack(losses, 1).flatten()
            problem = _widened(problem, len(ends))
        with torch.no_grad():
            rows, score = self.choose(images.to(self.ctx.device), problem)
        rows = rows.cpu()
        if problem.restarts > 1 or film.asked > film.queries[-1]:  # else the search ended with these images
            film.add(images[rows], loss[rows])
        return film.part(images[rows], score.cpu()[rows], single)

    def _search(
        self, stage: Stage, start: Tensor, problem: Problem, evaluation: Iterator[int], film: Film
    ) -> tuple[Tensor, Tensor]:
        """The latents that one search keeps, (R, E), and their losses (R,)."""
        is_first = stage is self.stages[0]

        def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
            loss = self.loss(stage.decode(latents), problem, next(evaluation))
            if is_first and self.penalty is not None:
                loss = loss + self.penalty(latents, problem)
            return loss, loss.detach()

        def watch(step: int, latents: Tensor, score: Tensor) -> None:
            if is_first or step == stage.search.steps:
                rows = pick_best(score, problem.restarts)
                film.add(_decoded(stage, latents[rows]), score[rows])

        region = stage.bound(start)
        return search_latents(start, objective, stage.search, self.ctx, project=region, watcher=watch)


def _decoded(stage: Stage, latents: Tensor) -> Tensor:
    """Images of latents, on the CPU; the victim is not asked."""
    with torch.no_grad():
        return stage.decode(latents).cpu()


def _widened(problem: Problem, ends: int) -> Problem:
    """The problem of choosing among several ends of each search, which lie next to each other."""
    return Problem(
        labels=problem.labels.repeat_interleave(ends),
        noise=problem.noise.repeat(ends),
        ranks=problem.ranks.repeat_interleave(ends),
        restarts=problem.restarts * ends,
    )


@dataclass(frozen=True)
class Part:
    """Reconstructions of some rows, on the CPU; fields as in Reconstructions and Effort, but for the queries.

    Args:
        images: (R, C, H, W), float32.
        confidence: (R,), float32.
        queries: (S,), int64; images asked about for all these rows together until each point.
        trail: (S, R, C, H, W), uint8.
        loss: (S, R), float32.
        single: (R, C, H, W), uint8, or None.
    """

    images: Tensor
    confidence: Tensor
    queries: Tensor
    trail: Tensor
    loss: Tensor
    single: Tensor | None = None


class Film:
    """The effort curve of some rows while they are searched; counts what the victim is asked from now on."""

    def __init__(self, victim: LabelVictim) -> None:
        self._victim, self._before = victim, victim.queries.forward
        self.queries: list[int] = []
        self._trail: list[Tensor] = []
        self._loss: list[Tensor] = []

    @property
    def asked(self) -> int:
        """Images asked about for all rows together until now; several looks at one count once."""
        return (self._victim.queries.forward - self._before) // self._victim.per_image

    def add(self, images: Tensor, loss: Tensor) -> None:
        """A point: the best images (R, C, H, W) so far, and their losses (R,)."""
        self.queries.append(self.asked)
        self._trail.append(quantize(images.cpu()))
        self._loss.append(loss.cpu())

    def settle(self, images: Tensor) -> None:
        """Let the last point show these images, and all that was asked until now."""
        self.queries[-1], self._trail[-1] = self.asked, quantize(images.cpu())

    def part(self, images: Tensor, confidence: Tensor, single: Tensor | None = None) -> Part:
        """The rows' reconstructions with this curve."""
        curve = torch.tensor(self.queries), torch.stack(self._trail), torch.stack(self._loss)
        return Part(images.cpu(), confidence.cpu(), *curve, single)


def joined(
    parts: list[Part], targets: Tensor, *, rows: Tensor | None = None, points: int = 0
) -> Reconstructions:
    """The reconstructions of all parts, with one effort curve; a shorter one stays where it ended.

    Args:
        parts: whose rows stand one after another.
        targets: (B,), int64.
        rows: (B,), int64; the row of each target, several of which may share one. None takes them in turn.
        points: least number of points of the curve.
    """
    order = torch.arange(len(targets)) if rows is None else rows
    points = max(points, *(len(part.queries) for part in parts))
    asked = torch.stack([_stretched(part.queries, points) for part in parts]).sum(0)
    singles = [part.single for part in parts if part.single is not None]
    effort = Effort(
        queries=for_each(asked, len(targets)),
        images=torch.cat([_stretched(part.trail, points) for part in parts], dim=1)[:, order],
        loss=torch.cat([_stretched(part.loss, points) for part in parts], dim=1)[:, order],
        single=torch.cat(singles)[order] if singles else None,
    )
    images = torch.cat([part.images for part in parts])[order]
    return Reconstructions.collect(
        images, targets, torch.cat([part.confidence for part in parts])[order], effort
    )


def for_each(asked: Tensor, count: int) -> Tensor:
    """Images asked about for each of `count` reconstructions, (S,), int64, of those for all; rounded up."""
    return -(-asked // count)


def _stretched(curve: Tensor, points: int) -> Tensor:
    """A curve (S, ...) that stays where it ended until it has so many points."""
    return torch.cat([curve, curve[-1:].expand(points - len(curve), *curve.shape[1:])])
