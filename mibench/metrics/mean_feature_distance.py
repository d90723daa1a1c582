"""Squared distance between the mean features of reconstructions and of real images."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._features import compared


@dataclass(frozen=True, kw_only=True)
class MeanFeatureDistance(Metric):
    """|mean judge feature of the reconstructions - mean of the real images|^2, same images as `fid`.

    Equation 13 of the TIFS 2023 paper on GAN-D and GAN-ID, which calls it FID; it sees no covariance, so two
    very different clouds may have distance 0. It grows with the scale of the judge's features and compares
    within one judge alone. No interval: its square is biased upward, and a bootstrap adds the bias again.
    """

    name = "mean_feature_distance"
    title = "Mean distance"
    better = "higher"
    card = Card(
        title="Squared distance of mean features (the TIFS 2023 paper's 'FID')",
        year=2023,
        deviations=("Real images are those of the protected labels; the paper's may be the whole test set.",),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; `count` is the number of reconstructions, None without any."""
        got, real = compared(case)
        if min(len(got), len(real)) == 0:
            return None
        value = float((got.double().mean(0) - real.double().mean(0)).square().sum())
        return Estimate(value, value, value, len(got))
