"""Structural similarity of reconstructed instances to the true images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._truth import averaged

# Wang et al., IEEE TIP 13 (2004), section III.C
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2  # (K L)^2 for pixels in [0, 1]


@dataclass(frozen=True, kw_only=True)
class StructuralSimilarity(Metric):
    """Mean structural similarity (SSIM) of reconstructions and the images that they reconstruct, in [-1, 1].

    A Gaussian window of 11 x 11 pixels with standard deviation 1.5, at each place that it fits; images
    smaller than that take the largest odd window that they hold. Protected labels; interval over labels, then
    images. None where the goal was the class.
    """

    name = "ssim"
    title = "SSIM"
    better = "lower"
    card = Card(
        title="Image Quality Assessment: From Error Visibility to Structural Similarity",
        paper="doi:10.1109/TIP.2003.819861",
        year=2004,
        deviations=("Color images: the mean over channels; the paper's are gray.",),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The similarity; see Metric.measure."""
        return averaged(case, ctx, similarity)


def similarity(got: Tensor, true: Tensor) -> Tensor:
    """SSIM of each pair of images (N, C, H, W) in [0, 1]: (N,); equation 13 of the paper, then its mean."""
    size = min(_WINDOW, *got.shape[2:])
    weights = _window(size - 1 + size % 2).to(got)

    def local(x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, weights[None, None, None]), weights[None, None, :, None])

    mean_got, mean_true = local(got), local(true)
    product = mean_got * mean_true
    both = mean_got.square() + mean_true.square()
    spread = local(got * got + true * true) - both  # sum of the two variances
    covariance = local(got * true) - product
    map_ = (2 * product + _C1) * (2 * covariance + _C2) / ((both + _C1) * (spread + _C2))
    return map_.flatten(1).mean(1).view(got.shape[:2]).mean(1)


def _window(size: int) -> Tensor:
    """Gaussian weights over an odd number of pixels, with sum 1."""
    place = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-place.square() / (2 * _SIGMA**2))
    return weights / weights.sum()
