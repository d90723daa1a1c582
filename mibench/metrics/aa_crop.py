"""Attack accuracy that survives a small crop."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._edits import cropped, surviving


@dataclass(frozen=True, kw_only=True)
class CroppedAccuracy(Metric):
    """Share of protected labels' reconstructions that the judge knows before and after a small crop.

    What hangs on the place of single pixels, or on the border, is lost. Of the real test images of suite
    `quick` that its judge knows, 96 % survive the default. Interval as for `aa`.

    Args:
        keep: share of each side that is kept before the middle is enlarged again, in [0.5, 1).
    """

    name = "aa_crop"
    title = "AA (crop)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy that survives a crop of the borders")

    keep: float = 0.9

    def __post_init__(self) -> None:
        if not 0.5 <= self.keep < 1:
            raise ValueError(f"aa_crop: keep must lie in [0.5, 1), got {self.keep}.")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return surviving(case, lambda x: cropped(x, self.keep))
