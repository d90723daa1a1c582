"""Attack accuracy that survives a small blur."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._edits import blurred, surviving


@dataclass(frozen=True, kw_only=True)
class BlurredAccuracy(Metric):
    """Share of protected labels' reconstructions that the judge knows before and after a small blur.

    Adversarial patterns are fine, faces are not. Of the real test images of suite `quick` that its judge
    knows, 98 % survive the default, 76 % twice as much. Interval as for `aa`.

    Args:
        sigma: standard deviation of the Gaussian as a share of the image's height, in (0, 0.1].
    """

    name = "aa_blur"
    title = "AA (blur)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy that survives a small Gaussian blur")

    sigma: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 0.1:
            raise ValueError(f"aa_blur: sigma must lie in (0, 0.1], got {self.sigma}.")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return surviving(case, lambda x: blurred(x, self.sigma))
