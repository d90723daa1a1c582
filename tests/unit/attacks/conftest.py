"""A space to search in whose answers are known: latents are images, and their box is the unit cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.gan import StylePrior
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior

DIM = 6


class Cube:
    """Latents that are images of one row of pixels; their box is [0, 1]."""

    dim, low, high = DIM, torch.zeros(DIM), torch.ones(DIM)
    spread = (high - low) / 2

    def start(self, noise: Noise) -> Tensor:
        return 3 * noise.normal("start", DIM)

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :, None, None]

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(0, 1)

    def realism(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images))


@dataclass(frozen=True, kw_only=True)
class CubePrior(StylePrior):
    """A prior without a generator, for known answers."""

    def load(self, prior: Prior, shape: tuple[int, int, int], ctx: Context) -> Any:
        return Cube()


@pytest.fixture
def cube_prior() -> CubePrior:
    """The prior of the unit cube: images of six channels and one pixel."""
    return CubePrior()
