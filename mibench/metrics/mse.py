"""Squared pixel error of reconstructed instances: AMI's "inversion error"."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._truth import averaged, squared_error


@dataclass(frozen=True, kw_only=True)
class SquaredError(Metric):
    """Mean squared pixel difference between reconstructions and the images that they reconstruct.

    Pixels in [0, 1]; protected labels; interval over labels, then images. None where the goal was the class.
    A mean face scores well, so compare with a control of the same cell.
    """

    name = "mse"
    version = 2  # the interval ends at zero
    title = "MSE"
    better = "higher"
    card = Card(title="Inversion error: mean squared pixel difference", paper="arXiv:1902.08552", year=2019)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The error; see Metric.measure."""
        return averaged(case, ctx, squared_error, least=0.0)
