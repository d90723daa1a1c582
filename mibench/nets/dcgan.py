"""The deconvolution generator and the critic that most model-inversion attacks train.

Source: Zhang et al., CVPR 2020 (GMI, arXiv:1911.07135) and its authors' code, 64 px and base
width 64; the doublings and widths follow the image size here.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mibench.nets.classifier import center
from mibench.nets.shapes import pyramid

_SLOPE = 0.2  # of every leaky ReLU; GMI's code


def _up(inputs: int, outputs: int, *, bias: bool) -> nn.ConvTranspose2d:
    """Transposed conv 5x5 that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1, bias=bias)


class DcganGenerator(nn.Module):
    """Latents (N, latent_dim), standard normal, to images (N, channels, size, size) in [0, 1].

    Args:
        latent_dim: length of a latent, 100 in GMI.
        width: channels of the last hidden map, 64 in GMI; each earlier map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(self, *, latent_dim: int = 100, width: int = 64, size: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        start, doublings = pyramid(size)
        widths = [width * 2**power for power in reversed(range(doublings))]
        self.start = (widths[0], start, start)
        first = widths[0] * start**2
        self.project = nn.Sequential(
            nn.Linear(latent_dim, first, bias=False), nn.BatchNorm1d(first), nn.ReLU()
        )
        self.grow = nn.ModuleList(
            nn.Sequential(_up(inputs, outputs, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
            for inputs, outputs in pairwise(widths)
        )
        self.to_image = nn.Sequential(_up(width, channels, bias=True), nn.Sigmoid())

    def maps(self, z: Tensor) -> tuple[Tensor, ...]:
        """Hidden maps of latents z, from (N, C, 4, 4) to (N, width, size / 2, size / 2)."""
        hidden = self.project(z).unflatten(1, self.start)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        out = [hidden]
        for block in self.grow:
            out.append(block(out[-1]))
        return tuple(out)

    def forward(self, z: Tensor) -> Tensor:
        """Images of latents z."""
        images: Tensor = self.to_image(self.maps(z)[-1])
        return images


class Critic(nn.Module):
    """Images (N, channels, size, size) in [0, 1] to scores (N,), unbounded; higher is more real.

    No batch norm, so the gradient penalty of each image is its own (GMI's DGWGAN).

    Args:
        width: channels of the first map, 64 in GMI; each later map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(self, *, width: int = 64, size: int = 64, channels: int = 3) -> None:
        super().__init__()
        start, doublings = pyramid(size)
        widths = [width * 2**power for power in range(doublings)]
        self.feature_dim = widths[-1] * start**2
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 5, 2, 2), nn.LeakyReLU(_SLOPE)]
        for inputs, outputs in pairwise(widths):
            layers += [
                nn.Conv2d(inputs, outputs, 5, 2, 2),
                nn.InstanceNorm2d(outputs, affine=True),
                nn.LeakyReLU(_SLOPE),
            ]
        self.body = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, start)

    def features(self, x: Tensor) -> Tensor:
        """The last hidden map of x, flattened to (N, feature_dim)."""
        return self._hidden(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of x, (N,)."""
        scores: Tensor = self.score(self._hidden(x))
        return scores.flatten()

    def _hidden(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.body(center(x))
        return hidden
