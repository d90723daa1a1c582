"""Attack accuracy that survives blur, crop and JPEG, as pictures of people do."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._edits import blurred, cropped, recompressed, surviving


@dataclass(frozen=True, kw_only=True)
class RobustAccuracy(Metric):
    """Share of protected labels' reconstructions whose success survives each of three edits by itself.

    The edits are those of `aa_blur`, `aa_crop` and `aa_jpeg`, from the image as it was. Interval as for `aa`.

    Args:
        sigma: standard deviation of the blur as a share of the image's height, in (0, 0.1].
        keep: share of each side that the crop keeps, in [0.5, 1).
        quality: of Pillow's JPEG, in [1, 95].
    """

    name = "aa_robust"
    title = "AA (robust)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy that survives blur, crop and JPEG")

    sigma: float = 0.02
    keep: float = 0.9
    quality: int = 75

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 0.1:
            raise ValueError(f"aa_robust: sigma must lie in (0, 0.1], got {self.sigma}.")
        if not 0.5 <= self.keep < 1:
            raise ValueError(f"aa_robust: keep must lie in [0.5, 1), got {self.keep}.")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"aa_robust: quality must lie in [1, 95], got {self.quality}.")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        edits = (
            lambda x: blurred(x, self.sigma),
            lambda x: cropped(x, self.keep),
            lambda x: recompressed(x, self.quality),
        )
        return surviving(case, *edits)
