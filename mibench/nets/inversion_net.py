"""The decoder from a prediction to an image, and how predictions are prepared for it.

Source: Yang et al., CCS 2019 (AMI, arXiv:1902.08552) and its authors' code, 64 px and base
width 128; the doublings follow the image size here (32 px drops one, 112 px starts at 7x7).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.shapes import pyramid

_FLOOR = -1000.0  # least log-probability; AMI's code
_SHIFT = 50.0  # constant c; AMI's code


def prepare_prediction(log_p: Tensor, truncation: int) -> Tensor:
    """Predictions spread out for the decoder: the largest entries kept, the others 0.

    v = max(log p, -1000) + 50 of the `truncation` largest entries, raised where needed so that
    no entry is negative. A sure class gives about 50, a class cut off 0.
    Source: AMI's code, `Inversion.forward`.

    Args:
        log_p: log-probabilities (N, K), float32; -inf is allowed.
        truncation: number m of entries kept, in [1, K].

    Returns:
        Prepared predictions (N, K), >= 0.

    Raises:
        ValueError: `truncation` lies outside [1, K].

    >>> prepare_prediction(torch.tensor([[0.9, 0.1]]).log(), 1).round(decimals=2)
    tensor([[49.8900,  0.0000]])
    """
    if not 1 <= truncation <= log_p.shape[1]:
        raise ValueError(f"truncation must lie in [1, {log_p.shape[1]}], got {truncation}.")
    top, index = log_p.topk(truncation, dim=1)
    value = top.clamp(min=_FLOOR) + _SHIFT
    lift = F.relu(-value.amin(1, keepdim=True))
    return torch.zeros_like(log_p).scatter(1, index, value + lift)


class InversionNet(nn.Module):
    """Prepared predictions (N, num_classes) to images (N, channels, size, size) in [0, 1].

    Args:
        num_classes: length K of a prediction.
        width: channels of the last hidden map, 128 in AMI; each earlier map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(self, *, num_classes: int, width: int = 128, size: int = 64, channels: int = 3) -> None:
        super().__init__()
        start, doublings = pyramid(size)
        widths = [width * 2**power for power in reversed(range(doublings))]
        layers: list[nn.Module] = [nn.ConvTranspose2d(num_classes, widths[0], start, bias=False)]
        for inputs, outputs in pairwise(widths):
            layers += [nn.BatchNorm2d(inputs), nn.Tanh(), _up(inputs, outputs, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.Tanh(), _up(width, channels, bias=True), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, prediction: Tensor) -> Tensor:
        """Images of prepared predictions."""
        images: Tensor = self.layers(prediction[:, :, None, None])
        return images


def _up(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    """Transposed conv 4x4 that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=bias)
