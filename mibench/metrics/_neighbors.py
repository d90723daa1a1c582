"""Balls around points, as far as their k-th nearest neighbor: what precision, recall, density, coverage ask.

Distances come from differences, not from scalar products, so that equal points have distance 0 to the last
bit and points at a radius lie on it; in float64, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mibench.metric import Case
from mibench.plugin import Context

from ._features import compared

_ENTRIES = 2**24  # distances held at once: 128 MB


def clouds(case: Case, ctx: Context) -> tuple[Tensor, Tensor]:
    """`compared` reconstructions (N, D) and real images (M, D), in float64 on the context's device."""
    got, real = compared(case)
    return got.to(ctx.device).double(), real.to(ctx.device).double()


def check_neighbors(name: str, neighbors: int) -> None:
    """ValueError, in the name of a metric, where there is no k-th neighbor."""
    if neighbors < 1:
        raise ValueError(f"{name}: neighbors must be >= 1, got {neighbors}.")


def radii(points: Tensor, neighbors: int) -> Tensor:
    """(N,), the distance of each of points (N, D), N > neighbors, to its k-th nearest other point."""
    # a point is its own nearest neighbor, so one more is counted
    parts = [part.kthvalue(neighbors + 1, dim=1).values for part in _distances(points, points)]
    return torch.cat(parts)


def balls_around(points: Tensor, centers: Tensor, radius: Tensor) -> Tensor:
    """(N,), int64: in how many balls, rim included, each of points (N, D) lies.

    Args:
        points: (N, D), float64.
        centers: (M, D), float64.
        radius: (M,), float64, of the ball around each center.
    """
    return torch.cat([(part <= radius).sum(1) for part in _distances(points, centers)]).cpu()


def covered(points: Tensor, centers: Tensor, radius: Tensor) -> Tensor:
    """(M,), bool: whether the ball of each of centers (M, D), radius (M,), holds one of points (N, D)."""
    nearest = torch.cat([part.min(1).values for part in _distances(centers, points)])
    return (nearest <= radius).cpu()


def _distances(points: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Euclidean distances (rows, M) of points (N, D) to others (M, D), a chunk of rows at a time."""
    for part in points.split(max(1, _ENTRIES // max(1, len(others)))):
        yield torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
