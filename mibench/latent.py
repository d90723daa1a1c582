"""The one search loop over latents, its identity losses and the choice among restarts.

Serves every latent attack (through `mibench.inversion`) and the shadow inversions of the NetGuard defenses.
Rows are independent: losses are summed, optimizers are element-wise, the best iterate is kept per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mibench.plugin import Context, Stopwatch
from mibench.precision import fused

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Watcher = Callable[[int, Tensor, Tensor], None]
IdentityLoss = Literal["ce", "max_margin", "logit", "poincare"]
NUM_CHECKPOINTS = 8  # of an effort curve, beside the start
_POINCARE_MARGIN = 1e-4  # how far the authors move the target point into the ball
_LEAST = 1e-7  # keeps the distance of a one-hot prediction finite


@dataclass(frozen=True, kw_only=True)
class Search:
    """Options of a latent search.

    Args:
        steps: gradient steps, >= 0.
        lr: peak learning rate, > 0.
        optimizer: Adam; or SGD with momentum 0.9, Nesterov's, which is GMI's update, or the plain one.
        betas: of Adam, each in [0, 1).
        warmup: share of the steps with a linear rise of the learning rate, in [0, 1).
        cooldown: share of the steps at the end with a cosine decay to zero, in [0, 1).
        keep: return the iterate with the lowest score of each row, or the last one.
    """

    steps: int = 300
    lr: float = 0.02
    optimizer: Literal["adam", "nesterov", "momentum"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: float = 0.0
    cooldown: float = 0.0
    keep: Literal["best", "last"] = "best"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.lr > 0:
            raise ValueError(f"search: steps must be >= 0 and lr > 0, got {self.steps} and {self.lr}.")
        if not (0 <= self.warmup < 1 and 0 <= self.cooldown < 1):
            raise ValueError(
                f"search: warmup and cooldown must lie in [0, 1), got {self.warmup} and {self.cooldown}."
            )

        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"search: betas must lie in [0, 1), got {list(self.betas)}.")

    def rate(self, step: int) -> float:
        """Learning rate relative to the peak at a step in [0, steps].

        Linear warm-up, plateau, cosine cool-down (An et al., NDSS 2022: 5 % and 25 %).
        """
        t = step / max(1, self.steps)
        if t < self.warmup:
            return t / self.warmup
        if t > 1 - self.cooldown:
            return 0.5 * (1 + math.cos(math.pi * (t - 1 + self.cooldown) / self.cooldown))
        return 1.0


def search_latents(
    start: Tensor,
    objective: Objective,
    search: Search,
    ctx: Context,
    *,
    project: Callable[[Tensor], Tensor] | None = None,
    watcher: Watcher | None = None,
) -> tuple[Tensor, Tensor]:
    """Minimize an objective over latents, each row by itself.

    Args:
        start: (B, D) float32, where the rows begin; not changed.
        objective: latents (B, D) -> (loss (B,) to descend, score (B,) by which the best iterate is kept).
        search: options.
        ctx: gives the reporter.
        project: moves latents into the allowed region, the start first and then after each step; None leaves
            them.
        watcher: called at `checkpoints(search.steps)` with the step, and with the latents (B, D) and scores
            (B,) that would be returned if that evaluation were the last one.

    Returns:
        The kept latents (B, D) and their scores (B,), detached. Scores belong to the latents returned.
    """
    # a start outside the region often scores best of all, and would be kept
    start = start.detach() if project is None else project(start.detach())
    latents = start.clone().requires_grad_(True)
    best, best_score = start.clone(), torch.full((len(start),), torch.inf, device=start.device)
    optimizer = _make_optimizer(latents, search)
    watch = Stopwatch()
    stops = frozenset(checkpoints(search.steps)) if watcher is not None else frozenset()
    for step in range(search.steps + 1):
        loss, score = objective(latents)
        with torch.no_grad():
            better = score < best_score if search.keep == "best" else torch.ones_like(score, dtype=torch.bool)
            best = torch.where(better[:, None], latents, best)
            best_score = torch.where(better, score, best_score)
        if watcher is not None and step in stops:
            watcher(step, best.detach(), best_score)
        if watch.is_due():
            ctx.report(step, search.steps, loss=float(loss.detach().mean()))
        if step == search.steps:
            break
        (latents.grad,) = torch.autograd.grad(loss.sum(), latents)
        for group in optimizer.param_groups:
            group["lr"] = search.lr * search.rate(step)
        optimizer.step()
        if project is not None:
            with torch.no_grad():
                latents.copy_(project(latents))
    return best.detach(), best_score.detach()


def _make_optimizer(latents: Tensor, search: Search) -> torch.optim.Optimizer:
    if search.optimizer == "adam":
        first, second = search.betas
        betas = float(first), float(second)
        return torch.optim.Adam([latents], lr=search.lr, betas=betas, fused=fused(latents.device))
    is_nesterov = search.optimizer == "nesterov"
    return torch.optim.SGD(
        [latents], lr=search.lr, momentum=0.9, nesterov=is_nesterov, fused=fused(latents.device)
    )


def checkpoints(steps: int) -> list[int]:
    """Evaluations 0 to `steps` at which an effort curve has a point: the first, the last, log-spaced between.

    >>> checkpoints(100)
    [0, 1, 2, 4, 7, 14, 27, 52, 100]
    """
    spaced = (round(steps ** (i / (NUM_CHECKPOINTS - 1))) for i in range(NUM_CHECKPOINTS))
    return sorted({0, *(min(step, steps) for step in spaced)}) if steps > 0 else [0]


def identity_loss(logits: Tensor, targets: Tensor, kind: IdentityLoss) -> Tensor:
    """Loss (B,) that falls as logits (B, K) speak for targets (B,).

    `ce`: cross-entropy. `max_margin`: largest other logit minus the target's (Yuan et al., AAAI 2023),
    which keeps its gradient where the softmax is saturated. `logit`: minus the target's logit (Nguyen et
    al., CVPR 2023). `poincare`: hyperbolic distance to the target's corner, which does not saturate
    (Struppek et al., ICML 2022).
    """
    if kind == "ce":
        return F.cross_entropy(logits, targets, reduction="none")
    if kind == "poincare":
        return poincare_distance(logits, targets)
    own = logits.gather(1, targets[:, None]).squeeze(1)
    if kind == "logit":
        return -own
    others = logits.scatter(1, targets[:, None], -torch.inf)
    return others.max(1).values - own


def poincare_distance(logits: Tensor, targets: Tensor) -> Tensor:
    """Distance (B,) in the Poincare ball from L1-normalized logits (B, K) to the corners of targets (B,).

    With u = logits / ||logits||_1 and v = max(onehot - 1e-4, 0): arccosh(1 + 2 ||u - v||^2 / ((1 - ||u||^2)
    (1 - ||v||^2))). A one-hot u lies on the rim, infinitely far away; the distance is cut off there.
    Source: Struppek et al., ICML 2022 (arXiv:2201.12179).
    """
    u = logits / logits.abs().sum(1, keepdim=True).clamp_min(_LEAST)
    v = (F.one_hot(targets, logits.shape[1]).to(u) - _POINCARE_MARGIN).clamp_min(0)
    gap = (u - v).square().sum(1)
    room = (1 - u.square().sum(1)).clamp_min(_LEAST) * (1 - v.square().sum(1))
    return torch.acosh(1 + 2 * gap / room)


def pick_best(scores: Tensor, restarts: int) -> Tensor:
    """Row numbers (B,) of the lowest score among the restarts of each problem, for scores (B * restarts,).

    Rows of one problem lie next to each other, as `Noise.repeat` lays them.
    """
    table = scores.view(-1, restarts)
    return table.argmin(1) + torch.arange(len(table), device=scores.device) * restarts
