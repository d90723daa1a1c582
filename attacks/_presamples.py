"""Images of a prior, scored once by the victim; the best start the search for each label (Mirror, PPA)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.inversion import Problem
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import LatentSpace
from mibench.victim import ScoreVictim


def rank_presamples(
    space: LatentSpace,
    victim: ScoreVictim,
    ctx: Context,
    *,
    count: int,
    keep: int,
    draw: Callable[[Noise], Tensor] | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents of the prior that the victim likes most for each label.

    Args:
        space: a trained generator.
        victim: asked about each of the `count` images, once unless `score` asks more.
        ctx: gives noise, chunk size and reporter.
        count: images drawn from the prior, >= 1.
        keep: latents kept for each label, <= count.
        draw: one stream for each latent -> latents (B, dim); None draws them from the prior as it is.
        score: images (B, C, H, W) -> scores (B, K); None takes the victim's released scores.

    Returns:
        Latents (K, keep, dim), best first, float32 on the CPU, and their scores (K, keep).
    """
    draw, score = draw or space.start, score or victim.scores
    noise = Noise.of_targets(ctx.seed, torch.full((count,), -1))
    latents, scores = [], []
    for first in range(0, count, ctx.max_batch):
        with torch.no_grad():
            part = draw(noise[slice(first, first + ctx.max_batch)])
            latents.append(part.cpu())
            scores.append(score(space.decode(part)).cpu())
        ctx.report(first, count)
    best = torch.cat(scores).topk(min(keep, count), dim=0)
    return torch.cat(latents)[best.indices.T].contiguous(), best.values.T.contiguous()


def starts_of(ranked: Tensor, problem: Problem) -> Tensor:
    """Starts (R, dim) from ranked latents (K, keep, dim): the i-th search of a label takes the i-th rank.

    After the last rank it begins anew.
    """
    return ranked[problem.labels.cpu(), problem.ranks % ranked.shape[1]]
