"""Frechet distance between reconstructions and the real images of the same people."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.frechet import frechet_distance
from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._features import compared


@dataclass(frozen=True, kw_only=True)
class FrechetDistance(Metric):
    """Frechet distance of protected labels' reconstructions to their private training images.

    Features are the judge's penultimate ones; with Inception's, as in other papers, the values are other
    ones. Means and sample covariances in float64 (divisor N - 1, as in torch-fidelity and torchmetrics). The
    distance is biased upward for few images, so values of different `count` do not compare. It has no
    interval: a bootstrap repeats images, which moves all its draws above the value. None below two images.
    """

    name = "fid"
    title = "FID"
    better = "higher"
    card = Card(title="Frechet distance in the judge's features", paper="arXiv:1706.08500", year=2017)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; `count` is the number of reconstructions."""
        got, real = compared(case)
        if min(len(got), len(real)) < 2:
            return None
        value = frechet_distance(got, real)
        return Estimate(value, value, value, len(got))
