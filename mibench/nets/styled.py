"""What every style-based generator offers: a mapping from z to w, and a synthesis by blocks, coarse to fine.

Source: Karras et al., CVPR 2019 (arXiv:1812.04948) and CVPR 2020 (arXiv:1912.04958).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Noise = Literal["const", "random", "none"]

SLOPE = 0.2  # StyleGAN's leaky ReLU


def to_p(w: Tensor) -> Tensor:
    """P-space points of w, same shape: the inverse of the mapping's last leaky ReLU.

    A constant gain of that activation scales all points alike, and is left in.

    >>> to_p(torch.tensor([0.5, -0.1]))
    tensor([ 0.5000, -0.5000])
    """
    return F.leaky_relu(w, 1.0 / SLOPE)


def from_p(p: Tensor) -> Tensor:
    """The w of P-space points p, same shape."""
    return F.leaky_relu(p, SLOPE)


class StyledGenerator(nn.Module):
    """Latents (N, latent_dim), standard normal, to images (N, C, size, size) in [0, 1].

    Attributes:
        latent_dim: length of z.
        w_dim: length of one w.
        num_ws: styles of one image, coarse to fine.
        channels: of the picture that the blocks add up.
        map_shapes: (C, H, W) of the map that leaves each block.
        w_avg: mean w, (w_dim,).
    """

    latent_dim: int
    w_dim: int
    num_ws: int
    channels: int
    map_shapes: tuple[tuple[int, int, int], ...]
    w_avg: Tensor

    @abstractmethod
    def mapping(self, z: Tensor) -> Tensor:
        """The w of latents z, (N, w_dim)."""

    @abstractmethod
    def stem(self, count: int) -> tuple[Tensor, Tensor]:
        """What enters the first block: the constant map (count, C, H, W), and the picture's start."""

    @abstractmethod
    def block(
        self,
        level: int,
        x: Tensor,
        rgb: Tensor,
        ws: Tensor,
        *,
        noise: Noise = "const",
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """One block of the synthesis, from the map and the picture that enter it to those that leave it.

        Args:
            level: number of the block, from 0, the coarsest; a map that leaves it has shape
                `map_shapes[level]`.
            x: (N, C, H, W), the map that left the block before, or the stem's.
            rgb: (N, channels, H, W), the picture so far, or the stem's.
            ws: (N, num_ws, w_dim), one style for each layer.
            noise: as for `synthesis`.
            generator: as for `synthesis`.
        """

    @abstractmethod
    def finish(self, rgb: Tensor) -> Tensor:
        """Images in [0, 1] of the picture that leaves the last block."""

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Each w moved towards the mean w: psi 1 keeps it, psi 0 gives the mean. Same shape."""
        return self.w_avg + psi * (w - self.w_avg)

    def synthesis(
        self, w: Tensor, *, noise: Noise = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """Images of w.

        Args:
            w: (N, w_dim), one style for all layers, or (N, num_ws, w_dim), one for each.
            noise: "const" adds the stored noise, "random" fresh noise, "none" nothing.
            generator: source of the fresh noise.

        Raises:
            ValueError: noise is "random" and there is no generator.
        """
        ws = w[:, None].expand(-1, self.num_ws, -1) if w.dim() == 2 else w
        x, rgb = self.stem(len(w))
        for level in range(len(self.map_shapes)):
            x, rgb = self.block(level, x, rgb, ws, noise=noise, generator=generator)
        return self.finish(rgb)

    def forward(
        self, z: Tensor, *, noise: Noise = "const", generator: torch.Generator | None = None
    ) -> Tensor:
        """Images of latents z: the synthesis of their mapping."""
        return self.synthesis(self.mapping(z), noise=noise, generator=generator)

    @torch.no_grad()
    def p_stats(self, num: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mean and population standard deviation of P space, (w_dim,) each, over `num` draws of z.

        Source: An et al., NDSS 2022, the box of Mirror's search.
        """
        z = torch.randn(num, self.latent_dim, generator=generator, device=generator.device)
        p = to_p(self.mapping(z.to(self.w_avg.device)))
        return p.mean(0), p.std(0, correction=0)
