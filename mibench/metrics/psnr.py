"""Peak signal-to-noise ratio of reconstructed instances."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._truth import averaged, squared_error

# mean squared error of rounding to bytes: a step of 1/255 spreads evenly. Images are stored so, and a smaller
# error, as of equal images, would be no finding
_ROUNDING = 1 / 12 / 255**2


@dataclass(frozen=True, kw_only=True)
class SignalToNoise(Metric):
    """Mean over reconstructions of 10 log10(1 / squared error), in decibels.

    Errors below the rounding to bytes count as that, so equal images have 58.9 dB and not infinitely many.
    Protected labels; interval over labels, then images. None where the goal was the class.
    """

    name = "psnr"
    title = "PSNR"
    better = "lower"
    card = Card(title="Peak signal-to-noise ratio in decibels")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The ratio; see Metric.measure."""
        return averaged(case, ctx, decibels)


def decibels(got: Tensor, true: Tensor) -> Tensor:
    """PSNR of each pair of images (N, C, H, W) in [0, 1]: (N,)."""
    return -10 * squared_error(got, true).clamp_min(_ROUNDING).log10()
