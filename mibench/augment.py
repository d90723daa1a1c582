"""Random views of images: crop, stretch, turn, mirror and tint, each image by itself.

Attacks look at their candidates through views so that what they find does not hang on single pixels. Own
code, because torchvision's transforms draw one set of numbers for a whole batch; here every row draws its
own from its stream, so that rows stay independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mibench.noise import Noise


@dataclass(frozen=True, kw_only=True)
class Views:
    """Ranges of random views; the defaults change nothing.

    Args:
        scale: smallest and largest area of the crop as a share of the image, in (0, 1].
        ratio: smallest and largest width of the crop relative to its height, > 0.
        flip: probability of mirroring left to right.
        turn: largest rotation to either side in degrees, >= 0.
        jitter: largest relative change of brightness and of contrast, in [0, 1).
        jitter_rate: probability that an image is tinted at all.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.0
    turn: float = 0.0
    jitter: float = 0.0
    jitter_rate: float = 1.0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, (low, high), most in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if not 0 < low <= high <= most:
                raise ValueError(f"views: {name} must be two rising numbers > 0, got {[low, high]}.")
        for name in ("flip", "jitter_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"views: {name} must lie in [0, 1], got {getattr(self, name)}.")
        if not self.turn >= 0 or not 0 <= self.jitter < 1:
            raise ValueError(
                f"views: turn must be >= 0 and jitter in [0, 1), got {self.turn} and {self.jitter}."
            )

    @property
    def is_warped(self) -> bool:
        """Whether pixels move, other than by mirroring."""
        return self.scale != (1.0, 1.0) or self.ratio != (1.0, 1.0) or self.turn > 0

    def of(self, x: Tensor, noise: Noise, *, purpose: str = "view", step: int = 0) -> Tensor:
        """One view of each image.

        Args:
            x: (B, C, H, W), float32 in [0, 1]; differentiable.
            noise: one stream for each image.
            purpose: name of the draws; another name gives other views.
            step: number of the draw.

        Returns:
            (B, C, H, W), float32, on x's device. Crops are sampled bilinearly, beyond the border its pixels
            are repeated.
        """
        draws = noise.uniform(purpose, 9, step=step).to(x.device)
        if self.is_warped:
            grid = F.affine_grid(self._maps(draws), [len(x), *x.shape[1:]], align_corners=False)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        if self.flip > 0:
            x = torch.where((draws[:, 0] <= self.flip)[:, None, None, None], x.flip(3), x)
        if self.jitter > 0:
            x = self._tinted(x, draws)
        return x

    def _maps(self, draws: Tensor) -> Tensor:
        """Affine maps (B, 2, 3) from a view's coordinates to the image's, both in [-1, 1]."""
        low, high = self.scale
        area = low + (high - low) * draws[:, 1]
        narrow, wide = (math.log(end) for end in self.ratio)  # evenly in the logarithm, as torchvision does
        ratio = torch.exp(narrow + (wide - narrow) * draws[:, 2])
        width = (area * ratio).sqrt().clamp_max(1)
        height = (area / ratio).sqrt().clamp_max(1)
        right = (2 * draws[:, 3] - 1) * (1 - width)
        down = (2 * draws[:, 4] - 1) * (1 - height)
        angle = math.radians(self.turn) * (2 * draws[:, 5] - 1)
        cos, sin = torch.cos(angle), torch.sin(angle)
        across = torch.stack([width * cos, -height * sin, right], dim=1)
        along = torch.stack([width * sin, height * cos, down], dim=1)
        return torch.stack([across, along], dim=1)

    def _tinted(self, x: Tensor, draws: Tensor) -> Tensor:
        """Images with another brightness and contrast, some of them left as they are."""
        bright = 1 + self.jitter * (2 * draws[:, 7] - 1)
        contrast = 1 + self.jitter * (2 * draws[:, 8] - 1)
        mean = x.mean((1, 2, 3), keepdim=True)
        tinted = ((x - mean) * contrast[:, None, None, None] + mean * bright[:, None, None, None]).clamp(0, 1)
        return torch.where((draws[:, 6] <= self.jitter_rate)[:, None, None, None], tinted, x)
