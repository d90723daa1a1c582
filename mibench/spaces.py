"""The two latent spaces that attacks search: a Gaussian one, and the styles of a style generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.styled import StyledGenerator, to_p
from mibench.noise import Noise
from mibench.victim import freeze


class ZSpace:
    """The latents z of a generator, standard normal; realism is minus the critic's score."""

    def __init__(self, g: nn.Module, d: nn.Module, *, dim: int, clamp: float) -> None:
        self.g, self.d, self.dim, self.clamp = freeze(g), freeze(d), dim, clamp
        self._device = next(g.parameters()).device

    def start(self, noise: Noise) -> Tensor:
        """Standard normal latents (B, dim)."""
        return noise.normal("start", self.dim).to(self._device)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        images: Tensor = self.g(latents)
        return images

    def project(self, latents: Tensor) -> Tensor:
        """Latents clamped to the box [-clamp, clamp]."""
        return latents.clamp(-self.clamp, self.clamp)

    def realism(self, images: Tensor) -> Tensor:
        """Minus the critic's score (B,); a Wasserstein critic is unbounded, so no logarithm."""
        scores: Tensor = self.d(images)
        return -scores


class WSpace:
    """The latents w of a style generator, bounded by a box in P space.

    The leaky ReLU between W and P is monotone, so clamping w to the mapped box *is* the clamp in P space
    (An et al., NDSS 2022).
    """

    def __init__(self, g: StyledGenerator, d: nn.Module, low: Tensor, high: Tensor) -> None:
        freeze(g)
        self.g, self.d, self.low, self.high, self.dim = g, freeze(d), low, high, g.w_dim
        self._mapping = g.mapping
        self._synthesis = g.synthesis
        self._z_dim = g.latent_dim
        self.num_ws = g.num_ws

    @property
    def spread(self) -> Tensor:
        """Standard deviation of P space scaled by kappa: half the width of the box in P space, (dim,)."""
        return (to_p(self.high) - to_p(self.low)) / 2

    def start(self, noise: Noise) -> Tensor:
        """The w (B, dim) of standard normal z, not projected."""
        with torch.no_grad():
            w: Tensor = self._mapping(noise.normal("start", self._z_dim).to(self.low.device))
        return w

    def truncate(self, latents: Tensor, psi: float) -> Tensor:
        """The w moved towards the mean w: psi 1 keeps them, psi 0 gives the mean."""
        return self.g.truncate(latents, psi)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of w, with the stored noise."""
        images: Tensor = self._synthesis(latents)
        return images

    def decode_z(self, z: Tensor, *, is_bounded: bool = False) -> Tensor:
        """Images of z (B, latent_dim), or of one z for each layer (B, num_ws, latent_dim).

        With `is_bounded` their w are clamped to the box; beyond it no gradient passes.
        """
        w: Tensor = self._mapping(z.flatten(0, -2))
        if is_bounded:
            w = self.project(w)
        return self.decode(w.unflatten(0, z.shape[:-1]))

    def project(self, latents: Tensor) -> Tensor:
        """The w clamped to the box."""
        return torch.minimum(torch.maximum(latents, self.low), self.high)

    def realism(self, images: Tensor) -> Tensor:
        """softplus(-D) of images (B,): minus the log-probability of being real."""
        loss: Tensor = F.softplus(-self.d(images))
        return loss
