"""Distance of reconstructions to the middle of the training images of the person that they should show."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._features import to_own_people


@dataclass(frozen=True, kw_only=True)
class FeatureDistance(Metric):
    """Mean squared distance of reconstructions to the centroid of their target label's training images.

    |f(x) - mean f(y)|^2 in the judge's penultimate features f, over all private training images y of the
    label; protected labels; the interval resamples labels, then reconstructions. It grows with the scale of
    the judge's features and compares within one judge alone.
    """

    name = "feature_distance"
    title = "Feature distance"
    better = "higher"
    card = Card(
        title="Feature distance (The Secret Revealer: Generative Model-Inversion Attacks)",
        paper="arXiv:1911.07135",
        year=2020,
        deviations=(
            "The judge's features, as for all distances here.",
            "The square, as for `knn_distance`.",
        ),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; `count` is the number of reconstructions."""
        return to_own_people(case, ctx, _to_centroid)


def _to_centroid(got: Tensor, real: Tensor) -> Tensor:
    """Squared distance of each of got (N, D) to the mean of real (M, D): (N,)."""
    return (got - real.mean(0)).square().sum(1)
