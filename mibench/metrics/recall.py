"""Recall: how many real images of the protected people lie among the reconstructions."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._neighbors import balls_around, check_neighbors, clouds, radii


@dataclass(frozen=True, kw_only=True)
class Recall(Metric):
    """Share of protected labels' training images inside the balls around those labels' reconstructions.

    Each reconstruction has a ball as far as its k-th nearest other one, in the judge's penultimate features.
    Far-flung reconstructions have large balls, so noise can raise it: read it beside `precision`; `coverage`
    takes the balls of the real images instead. It has no interval: a bootstrap repeats reconstructions, which
    shrinks their balls. None where there are no more reconstructions than neighbors.

    Args:
        neighbors: k; a ball reaches to the k-th nearest other reconstruction, >= 1.
    """

    name = "recall"
    title = "Recall"
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
        """The share; `count` is the number of real images."""
        got, real = clouds(case, ctx)
        if len(got) <= self.neighbors or len(real) == 0:
            return None
        inside = balls_around(real, got, radii(got, self.neighbors)) > 0
        value = float(inside.double().mean())
        return Estimate(value, value, value, len(real))
