"""The one way from a prior to reconstructions: chunks, restarts, search, choice and effort curve.

A latent attack gives its loss, where its searches start and how it chooses among restarts; the rest is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.data.split import quantize
from mibench.latent import Search, checkpoints, pick_best, search_latents
from mibench.noise import Noise, repeats
from mibench.plugin import Context
from mibench.prior import LatentSpace
from mibench.victim import WhiteBoxVictim


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
        choose: (images (R, C, H, W), problem) -> rows (R / restarts,) of the chosen restarts, and the
            victim's score of each image (R,); None takes the largest target logit.
        is_bounded: move each latent into the space's region after each step.
        per_step: images that `loss` asks the victim about for each search.
        per_choice: images that `choose` asks the victim about for each search.

    Returns:
        One reconstruction for each target, with its effort curve.

    Raises:
        QueryBudgetError: the allowance does not even pay for the start and the choice.
    """
    once, last = restarts * per_step, restarts * per_choice
    steps = victim.steps_within(search.steps, per_step=once, reserve=once + last)
    run = _Run(
        victim=victim,
        space=space,
        ctx=ctx,
        search=dataclasses.replace(search, steps=steps),
        loss=loss,
        start=start or (lambda problem: space.start(problem.noise)),
        choose=choose or largest_logit(victim),
        is_bounded=is_bounded,
    )
    noise, before = ctx.noise(targets), repeats(targets)
    parts = []
    for rows in torch.arange(len(targets)).split(max(1, ctx.max_batch // restarts)):
        ranks = before[rows][:, None] * restarts + torch.arange(restarts)
        problem = Problem(
            labels=targets[rows].repeat_interleave(restarts).to(ctx.device),
            noise=noise[rows].repeat(restarts),
            ranks=ranks.flatten(),
            restarts=restarts,
        )
        parts.append(run.solve(problem))
    queries = torch.tensor([once * (step + 1) for step in checkpoints(steps)])
    return _joined(parts, targets, queries, restarts)


def largest_logit(victim: WhiteBoxVictim) -> Choice:
    """The choice of the restart with the largest target logit; scores are the victim's softmax."""

    def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        logits = victim.logits(images)
        own = logits.gather(1, problem.labels[:, None]).squeeze(1)
        score = logits.softmax(1).gather(1, problem.labels[:, None]).squeeze(1)
        return pick_best(-own, problem.restarts), score

    return choose


@dataclass(frozen=True)
class _Part:
    """One chunk's reconstructions, on the CPU; fields as in Effort and Reconstructions."""

    images: Tensor
    confidence: Tensor
    trail: Tensor
    loss: Tensor
    single: Tensor


@dataclass(frozen=True, kw_only=True)
class _Run:
    """All that the chunks of one inversion share."""

    victim: WhiteBoxVictim
    space: LatentSpace
    ctx: Context
    search: Search
    loss: Loss
    start: Callable[[Problem], Tensor]
    choose: Choice
    is_bounded: bool

    def solve(self, problem: Problem) -> _Part:
        """The reconstructions of one chunk."""
        evaluation = iter(range(self.search.steps + 1))
        trail: list[Tensor] = []
        losses: list[Tensor] = []

        def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
            loss = self.loss(self.space.decode(latents), problem, next(evaluation))
            return loss, loss.detach()

        def watch(_step: int, latents: Tensor, score: Tensor) -> None:
            rows = pick_best(score, problem.restarts)
            trail.append(quantize(self.decoded(latents[rows])))
            losses.append(score[rows].cpu())

        start = self.start(problem).to(self.ctx.device)
        project = self.space.project if self.is_bounded else None
        best, _ = search_latents(start, objective, self.search, self.ctx, project=project, watcher=watch)
        images = self.decoded(best)
        with torch.no_grad():
            rows, score = self.choose(images.to(self.ctx.device), problem)
        rows = rows.cpu()
        single = quantize(images[:: problem.restarts])
        return _Part(images[rows], score.cpu()[rows], torch.stack(trail), torch.stack(losses), single)

    def decoded(self, latents: Tensor) -> Tensor:
        """Images of latents, on the CPU; the victim is not asked."""
        with torch.no_grad():
            return self.space.decode(latents).cpu()


def _joined(parts: list[_Part], targets: Tensor, queries: Tensor, restarts: int) -> Reconstructions:
    single = torch.cat([part.single for part in parts]) if restarts > 1 else None
    images = torch.cat([part.images for part in parts])
    trail = torch.cat([part.trail for part in parts], dim=1)
    loss = torch.cat([part.loss for part in parts], dim=1)
    effort = Effort(queries, trail, loss, single)
    return Reconstructions.collect(images, targets, torch.cat([part.confidence for part in parts]), effort)
