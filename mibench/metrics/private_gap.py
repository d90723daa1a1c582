"""Nearest private against nearest public: is a reconstruction more than a stranger's public photo?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.metric import Case, Estimate, Metric
from mibench.noise import derive_seed
from mibench.plugin import Card, Context
from mibench.statistics import nested_bootstrap


@dataclass(frozen=True, kw_only=True)
class PrivateGap(Metric):
    """How much nearer reconstructions lie to the targeted person than to anything public.

    The mean over protected labels' reconstructions of the distance to the nearest of all the attacker's
    public images, minus that to the nearest private training image of the targeted person; distances between
    points of length 1 in the embedder's space, so the gap lies in [-2, 2]. Above zero the image is nearer to
    its person than to every stranger, although the strangers have many more images to be near by luck.
    Interval over labels, then images.
    """

    name = "private_gap"
    title = "Private gap"
    better = "lower"
    needs = frozenset({"embedder", "public"})
    card = Card(title="Distance to the nearest public image less that to the nearest one of the person")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The mean gap; `count` is the number of reconstructions, None without any."""
        points, targets = case.points[case.protected], case.got.targets[case.protected]
        if len(points) == 0:
            return None
        own = torch.empty(len(points), dtype=torch.float64)
        for label in targets.unique().tolist():
            rows = targets == label
            private = case.private_points[case.private_train.labels == label]
            own[rows] = nearest(points[rows], private, max_batch=case.max_batch)
        gaps = nearest(points, case.public_points, max_batch=case.max_batch) - own
        low, high = nested_bootstrap(gaps.numpy(), targets.numpy(), seed=derive_seed(ctx.seed, "interval"))
        value = float(gaps.mean())
        # means of equal values differ by rounding
        return Estimate(value, min(low, value), max(high, value), len(gaps))


def nearest(points: Tensor, others: Tensor, *, max_batch: int) -> Tensor:
    """The Euclidean distance of each of points (N, D) to the nearest of others (M, D): (N,), float64."""
    wide = others.double()
    return torch.cat([_distances(part.double(), wide).amin(1) for part in points.split(max_batch)])


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """Euclidean distances (N, M) without the matrix product, which loses the digits of small ones."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")
