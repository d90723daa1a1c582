"""Coverage: how many real images of the protected people have a reconstruction near them."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._neighbors import check_neighbors, clouds, covered, radii


@dataclass(frozen=True, kw_only=True)
class Coverage(Metric):
    """Share of protected labels' training images whose ball holds at least one of their reconstructions.

    The balls are those of `precision`. It grows with the number of reconstructions, so values of different
    n do not compare. It has no interval: a bootstrap leaves out a third of the reconstructions, which moves
    all its draws below the value. None where there are no more real images than neighbors, or nothing was
    reconstructed.

    Args:
        neighbors: k; a ball reaches to the k-th nearest other image, >= 1.
    """

    name = "coverage"
    title = "Coverage"
    better = "lower"
    percent = True
    card = Card(
        title="Reliable Fidelity and Diversity Metrics for Generative Models",
        paper="arXiv:2002.09797",
        year=2020,
    )
    neighbors: int = 5

    def __post_init__(self) -> None:
        check_neighbors(self.name, self.neighbors)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The share; `count` is the number of real images."""
        got, real = clouds(case, ctx)
        if len(real) <= self.neighbors or len(got) == 0:
            return None
        value = float(covered(got, real, radii(real, self.neighbors)).double().mean())
        return Estimate(value, value, value, len(real))
