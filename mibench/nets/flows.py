"""Normalizing flows whose weights come as vectors, one for each distribution, so that many train at once.

A flow turns standard normal noise into latents by invertible steps whose volume change is known, so the
density of what it draws is known too. Source: Kingma and Dhariwal, NeurIPS 2018 (Glow, arXiv:1807.03039):
activation normalization, shuffle and coupling in several levels; additive coupling from Dinh et al., 2015
(NICE, arXiv:1410.8516), affine coupling from Dinh et al., ICLR 2017 (RealNVP, arXiv:1605.08803).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Coupling = Literal["additive", "affine"]


class CouplingFlow:
    """An invertible map of noise (L, S, dim) to latents (L, S, dim), with weights (L, size).

    It holds no weights: row i of the weights serves the S draws of row i alone. Level l works on the first
    dim / 2^l coordinates, the deepest level first, so that every level but the first leaves some alone.

    Args:
        dim: length of a latent.
        steps: steps of each level, 10 in VMI's code.
        levels: 3 in VMI's code.
        hidden: width of the two hidden layers of each coupling, 100 in VMI's code.
        coupling: "additive" shifts half of the coordinates by what it reads from the others; "affine" also
            scales them, by at most e to either side.
        generator: a CPU generator; draws the shuffles and the start.

    Raises:
        ValueError: a count below 1, or the deepest level would have fewer than two coordinates.
    """

    def __init__(
        self,
        dim: int,
        *,
        steps: int = 10,
        levels: int = 3,
        hidden: int = 100,
        coupling: Coupling = "additive",
        generator: torch.Generator,
    ) -> None:
        if min(steps, levels, hidden) < 1 or dim >> (levels - 1) < 2:
            raise ValueError(
                f"flow: steps, levels and hidden must be >= 1, and {dim} coordinates halved levels - 1 times "
                f">= 2, got {steps}, {levels} and {hidden}. Lower levels or raise the latent size."
            )
        self.dim = dim
        self.steps = [
            _Step(dim >> level, hidden, is_affine=coupling == "affine", generator=generator)
            for level in reversed(range(levels))
            for _ in range(steps)
        ]
        self.size = sum(step.size for step in self.steps)
        self._start = torch.cat([step.start(generator) for step in self.steps])

    def start(self, count: int) -> Tensor:
        """Weights (count, size) with which the flow only reorders its coordinates, equal in each row.

        The last layer of each coupling begins at zero, so what meets an activation normalization is standard
        normal already, and Glow's start from a first batch is the identity.
        """
        return self._start.repeat(count, 1)

    def draw(self, weights: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (L, S, dim) of noise (L, S, dim), and log |det d latents / d noise| (L, S)."""
        x, volume = noise, noise.new_zeros(noise.shape[:2])
        for step, own in self._own(weights):
            head, change = step.forward(own, x[..., : step.dim])
            x, volume = torch.cat([head, x[..., step.dim :]], 2), volume + change
        return x, volume

    def invert(self, weights: Tensor, latents: Tensor) -> Tensor:
        """The noise (L, S, dim) that draws latents (L, S, dim)."""
        x = latents
        for step, own in reversed(list(self._own(weights))):
            x = torch.cat([step.inverse(own, x[..., : step.dim]), x[..., step.dim :]], 2)
        return x

    def _own(self, weights: Tensor) -> Iterator[tuple[_Step, Tensor]]:
        return zip(self.steps, weights.split([step.size for step in self.steps], 1))


class _Step:
    """Activation normalization, shuffle and coupling of `dim` coordinates."""

    def __init__(self, dim: int, hidden: int, *, is_affine: bool, generator: torch.Generator) -> None:
        self.dim, self.is_affine = dim, is_affine
        self.read, self.moved = dim // 2, dim - dim // 2
        sizes = (self.read, hidden, hidden, self.moved * (2 if is_affine else 1))
        self.layers = list(pairwise(sizes))
        self.order = torch.randperm(dim, generator=generator)
        self.back = self.order.argsort()
        self.size = 2 * dim + sum((inputs + 1) * outputs for inputs, outputs in self.layers)

    def start(self, generator: torch.Generator) -> Tensor:
        """Weights (size,): no normalization, He's normal start, a last layer of zeros."""
        parts = [torch.zeros(2 * self.dim)]
        for inputs, outputs in self.layers:
            drawn = torch.randn(inputs * outputs, generator=generator) * math.sqrt(2 / inputs)
            parts += [drawn, torch.zeros(outputs)]
        parts[-2].zero_()
        return torch.cat(parts)

    def forward(self, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (L, S, dim) of x, and the logarithm of the volume change (L, S)."""
        log_scale, bias = self._norm(weights)
        order = self.order.to(x.device)
        x = (x * log_scale.exp() + bias)[..., order]
        read, moved = x.split([self.read, self.moved], 2)
        stretch, shift = self._coupling(weights, read)
        volume = log_scale.sum(2) + stretch.sum(2)
        return torch.cat([read, moved * stretch.exp() + shift], 2), volume

    def inverse(self, weights: Tensor, x: Tensor) -> Tensor:
        """What `forward` takes to x, (L, S, dim)."""
        read, moved = x.split([self.read, self.moved], 2)
        stretch, shift = self._coupling(weights, read)
        x = torch.cat([read, (moved - shift) * (-stretch).exp()], 2)[..., self.back.to(x.device)]
        log_scale, bias = self._norm(weights)
        return (x - bias) * (-log_scale).exp()

    def _norm(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, bias = weights[:, None, : 2 * self.dim].chunk(2, dim=2)
        return log_scale, bias

    def _coupling(self, weights: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Log-stretch and shift (L, S, moved) of the other coordinates."""
        hidden, first = read, 2 * self.dim
        for i, (inputs, outputs) in enumerate(self.layers):
            middle, last = first + inputs * outputs, first + (inputs + 1) * outputs
            matrix = weights[:, first:middle].unflatten(1, (inputs, outputs))
            hidden = torch.baddbmm(weights[:, None, middle:last], hidden if i == 0 else hidden.relu(), matrix)
            first = last
        if not self.is_affine:
            return torch.zeros_like(hidden), hidden
        stretch, shift = hidden.chunk(2, dim=2)
        return stretch.tanh(), shift
