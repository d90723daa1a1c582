"""Density: among how many real images of the protected people a reconstruction lies."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._means import mean_of
from ._neighbors import balls_around, check_neighbors, clouds, radii


@dataclass(frozen=True, kw_only=True)
class Density(Metric):
    """Mean number of real images' balls that a protected label's reconstruction lies in, over k.

    The balls are those of `precision`. Near 1 where reconstructions are spread as the real images are, above
    it where they crowd in the midst of them. The interval resamples labels, then reconstructions, and takes
    the real images as given. None where there are no more real images than neighbors.

    Args:
        neighbors: k; a ball reaches to the k-th nearest other image, >= 1.
    """

    name = "density"
    title = "Density"
    better = "lower"
    card = Card(
        title="Reliable Fidelity and Diversity Metrics for Generative Models",
        paper="arXiv:2002.09797",
        year=2020,
    )
    neighbors: int = 5

    def __post_init__(self) -> None:
        check_neighbors(self.name, self.neighbors)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The density; `count` is the number of reconstructions."""
        got, real = clouds(case, ctx)
        if len(real) <= self.neighbors:
            return None
        balls = balls_around(got, real, radii(real, self.neighbors)).double()
        return mean_of(balls / self.neighbors, case.got.targets[case.protected], ctx, least=0.0)
