"""Precision: how many reconstructions lie among the real images of the protected people."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context
from mibench.rates import rate

from ._neighbors import balls_around, check_neighbors, clouds, radii


@dataclass(frozen=True, kw_only=True)
class Precision(Metric):
    """Share of protected labels' reconstructions inside the balls around those labels' training images.

    Each real image has a ball as far as its k-th nearest other one, in the judge's penultimate features; all
    protected labels that were attacked make one cloud. One outlier among the real images has a large ball,
    which `density` weighs less. The interval counts labels and takes the real images as given.
    None where there are no more real images than neighbors.

    Args:
        neighbors: k; a ball reaches to the k-th nearest other image, >= 1.
    """

    name = "precision"
    title = "Precision"
    better = "lower"
    percent = True
    card = Card(
        title="Improved Precision and Recall Metric for Assessing Generative Models",
        paper="arXiv:1904.06991",
        year=2019,
        deviations=("k = 5, with which density and coverage are published; the paper takes 3.",),
    )
    neighbors: int = 5

    def __post_init__(self) -> None:
        check_neighbors(self.name, self.neighbors)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The share; equation 1 of the paper, averaged over reconstructions."""
        got, real = clouds(case, ctx)
        if len(real) <= self.neighbors:
            return None
        inside = balls_around(got, real, radii(real, self.neighbors)) > 0
        return rate(inside, case.got.targets[case.protected])
