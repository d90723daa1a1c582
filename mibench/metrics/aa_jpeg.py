"""Attack accuracy that survives JPEG."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._edits import recompressed, surviving


@dataclass(frozen=True, kw_only=True)
class RecompressedAccuracy(Metric):
    """Share of protected labels' reconstructions that the judge knows before and after JPEG.

    What a photo loses on its way through the web. Of the real test images of suite `quick` that its judge
    knows, 95 % survive the default. Interval as for `aa`.

    Args:
        quality: of Pillow's JPEG, in [1, 95]; 75 is its default.
    """

    name = "aa_jpeg"
    title = "AA (JPEG)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy that survives JPEG compression")

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise ValueError(f"aa_jpeg: quality must lie in [1, 95], got {self.quality}.")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return surviving(case, lambda x: recompressed(x, self.quality))
