"""Image processing for searches in pixel space; each image is treated by itself."""

from __future__ import annotations

import math

import torch
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
