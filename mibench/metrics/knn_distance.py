"""Distance of reconstructions to the nearest training image of the person that they should show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._features import to_own_people


@dataclass(frozen=True, kw_only=True)
class NearestDistance(Metric):
    """Mean squared distance of reconstructions to the nearest training image of their target label.

    |f(x) - f(y)|^2 in the judge's penultimate features f, y the nearest private training image of the label;
    protected labels; the interval resamples labels, then reconstructions. It grows with the scale of the
    judge's features and compares within one judge alone.
    """

    name = "knn_distance"
    title = "KNN distance"
    better = "higher"
    card = Card(
        title="K-nearest-neighbor distance (Knowledge-Enriched Distributional Model Inversion Attacks)",
        paper="arXiv:2010.04092",
        year=2021,
        deviations=("The square, which published evaluation code averages; the paper says L2 distance.",),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; `count` is the number of reconstructions."""
        return to_own_people(case, ctx, _to_nearest)


def _to_nearest(got: Tensor, real: Tensor) -> Tensor:
    """Squared distance of each of got (N, D) to the nearest of real (M, D): (N,)."""
    # from differences and not from scalar products, so that an equal image is at 0
    distances = torch.cdist(got, real, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.min(1).values.square()
