"""Image processing for searches in pixel space; each image is treated by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F


def blur(x: Tensor, sigma: float) -> Tensor:
    """Images x (N, C, H, W) under a 3x3 Gaussian of standard deviation `sigma` pixels, > 0.

    Three taps and replicated borders keep the mean of each image exactly; reflected borders do not.
    """
    side = math.exp(-0.5 / sigma**2)
    taps = torch.tensor([side, 1.0, side], dtype=x.dtype, device=x.device)
    taps = taps / taps.sum()
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows = taps[0] * padded[:, :, :-2] + taps[1] * padded[:, :, 1:-1] + taps[2] * padded[:, :, 2:]
    return taps[0] * rows[..., :-2] + taps[1] * rows[..., 1:-1] + taps[2] * rows[..., 2:]


def unsharp(x: Tensor, amount: float, sigma: float) -> Tensor:
    """Images x (N, C, H, W) with their fine detail raised: x + amount * (x - blur(x))."""
    return x + amount * (x - blur(x, sigma))


def rescale(x: Tensor) -> Tensor:
    """Images x (N, C, H, W), each stretched from its least value to its largest one onto [0, 1].

    A plain image is clipped to [0, 1] and otherwise left alone.
    """
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) / torch.where(span > 0, span, 1), x.clamp(0, 1))


@dataclass(frozen=True, kw_only=True)
class NonLocalMeans:
    """Denoising by averages over pixels whose surroundings look alike.

    u(i) = sum_j w(i, j) x(j) / sum_j w(i, j) over the pixels j of a window around i, with
    w(i, j) = exp(-d(i, j) / strength^2) and d the mean squared difference of the patches around i and j over
    pixels and channels. Own code, because scikit-image takes one image at a time. Source: Buades, Coll and
    Morel, CVPR 2005, with flat patches in place of Gaussian ones, as their fast variants have.

    Args:
        strength: difference of patches, in pixels of [0, 1], at which a weight has fallen to 1/e, > 0.
        patch: height and width of a patch in pixels, odd, >= 1.
        window: height and width of the window in pixels, odd, >= 1.
    """

    strength: float = 0.1
    patch: int = 3
    window: int = 7
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if not self.strength > 0:
            raise ValueError(f"nlm: strength must be > 0, got {self.strength}.")
        for name in ("patch", "window"):
            value = getattr(self, name)
            if value < 1 or value % 2 == 0:
                raise ValueError(f"nlm: {name} must be odd and >= 1, got {value}.")

    def of(self, x: Tensor) -> Tensor:
        """Denoised images of x (N, C, H, W); beyond the border its pixels are repeated."""
        _, _, height, width = x.shape
        reach, rim = self.window // 2, self.patch // 2
        wide = F.pad(x, (reach,) * 4, mode="replicate")
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for down in range(self.window):
            for right in range(self.window):
                moved = wide[:, :, down : down + height, right : right + width]
                gap = (x - moved).square().mean(1, keepdim=True)
                gap = F.avg_pool2d(F.pad(gap, (rim,) * 4, mode="replicate"), self.patch, stride=1)
                weight = torch.exp(-gap / self.strength**2)
                total, weights = total + weight * moved, weights + weight
        return total / weights


def total_variation(x: Tensor) -> Tensor:
    """Sum of absolute differences between neighbors: images x (N, C, H, W) to (N,).

    Source: Rudin, Osher and Fatemi, Physica D 60, 1992, in its anisotropic form.
    """
    down = (x[:, :, 1:] - x[:, :, :-1]).abs().sum((1, 2, 3))
    right = (x[..., 1:] - x[..., :-1]).abs().sum((1, 2, 3))
    return down + right


def denoise_tv(x: Tensor, weight: float, *, steps: int = 10) -> Tensor:
    """Images near x (N, C, H, W) with less total variation, mean unchanged.

    The dual projection of Chambolle (J. Math. Imaging and Vision 20, 2004), step 1/4, channel by channel:
    approaches argmin_u |u - x|^2 / 2 + weight * TV(u), TV isotropic.
    """
    field = torch.zeros(2, *x.shape, dtype=x.dtype, device=x.device)
    for _ in range(steps):
        slope = _gradient(_divergence(field) - x / weight)
        field = (field + 0.25 * slope) / (1 + 0.25 * slope.norm(dim=0))
    return x - weight * _divergence(field)


def _gradient(x: Tensor) -> Tensor:
    """Forward differences of x (N, C, H, W), zero at the far border: (2, N, C, H, W)."""
    down = F.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
    right = F.pad(x[..., 1:] - x[..., :-1], (0, 1))
    return torch.stack([down, right])


def _divergence(field: Tensor) -> Tensor:
    """The negative adjoint of `_gradient`: (2, N, C, H, W) to (N, C, H, W)."""
    down, right = field[0, :, :, :-1], field[1, ..., :-1]
    rows = F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0))
    return rows + F.pad(right, (0, 1)) - F.pad(right, (1, 0))
