"""A denoising auto-encoder of one hidden layer, learned on public images, whose code can be searched.

Source: Vincent et al., ICML 2008, with tied weights, sigmoid units, masking noise and cross-entropy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from mibench.plugin import Context
from mibench.prior import Prior, Shape
from mibench.training import check_finite


@dataclass(frozen=True, kw_only=True)
class AutoEncoder:
    """Size and training of a denoising auto-encoder.

    Args:
        units: sigmoid units of the code, >= 1; 1,000 in the first layer of Fredrikson et al., CCS 2015.
        corruption: share of pixels set to zero in training, in [0, 1).
        epochs: passes over the public images, >= 1.
        batch: images in a step, >= 1.
        lr: learning rate of Adam, > 0.
    """

    units: int = 1_000
    corruption: float = 0.3
    epochs: int = 20
    batch: int = 64
    lr: float = 1e-3
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("units", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"dae: {name} must be >= 1, got {getattr(self, name)}.")
        if not 0 <= self.corruption < 1 or not self.lr > 0:
            raise ValueError(
                f"dae: corruption must lie in [0, 1) and lr be > 0, got {self.corruption} and {self.lr}."
            )

    def learn(self, public: Tensor, ctx: Context) -> Prior:
        """Weights learned from public images (M, C, H, W), float32 in [0, 1]; see `Code`.

        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        generator = ctx.generator("auto-encoder")
        flat = public.flatten(1).to(ctx.device)
        code = self._untrained(flat.shape[1], generator).to(ctx.device)
        parts = [part.requires_grad_() for part in (code.weights, code.inner, code.outer)]
        optimizer = torch.optim.Adam(parts, lr=self.lr)
        for epoch in range(self.epochs):
            value = torch.zeros(())
            for rows in torch.randperm(len(flat), generator=generator).split(self.batch):
                clean = flat[rows.to(ctx.device)]
                kept = torch.rand(clean.shape, generator=generator).to(ctx.device) >= self.corruption
                value = F.binary_cross_entropy_with_logits(code.pixels(code.encode(clean * kept)), clean)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
            check_finite(float(value.detach()), epoch, "auto-encoder")
            ctx.report(epoch + 1, self.epochs, loss=float(value.detach()))
        names = ("code.weights", "code.inner", "code.outer")
        return {name: part.detach().cpu() for name, part in zip(names, parts)}

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> Code:
        """The trained auto-encoder for images of `shape`, on ctx.device."""
        parts = (prior[name].to(ctx.device) for name in ("code.weights", "code.inner", "code.outer"))
        return Code(*parts, shape=shape)

    def _untrained(self, pixels: int, generator: torch.Generator) -> Code:
        # the range for sigmoid units of Glorot and Bengio, AISTATS 2010
        bound = 4 * math.sqrt(6 / (pixels + self.units))
        weights = (2 * torch.rand(pixels, self.units, generator=generator) - 1) * bound
        return Code(weights, torch.zeros(self.units), torch.zeros(pixels), shape=(pixels, 1, 1))


class Code:
    """Images as codes: enc(x) = sigmoid(x W + b), dec(h) = sigmoid(h W' + c).

    Args:
        weights: W, (C * H * W, units), float32.
        inner: b, (units,).
        outer: c, (C * H * W,).
        shape: (C, H, W) of the images.
    """

    def __init__(self, weights: Tensor, inner: Tensor, outer: Tensor, *, shape: Shape) -> None:
        self.weights, self.inner, self.outer, self.shape = weights, inner, outer, shape

    @property
    def units(self) -> int:
        """Length of a code."""
        return len(self.inner)

    def to(self, device: torch.device) -> Code:
        """The same on a device."""
        moved = (part.to(device) for part in (self.weights, self.inner, self.outer))
        return Code(*moved, shape=self.shape)

    def encode(self, x: Tensor) -> Tensor:
        """Codes (N, units) in (0, 1) of images (N, C, H, W) or (N, C * H * W)."""
        return torch.sigmoid(x.flatten(1) @ self.weights + self.inner)

    def pixels(self, codes: Tensor) -> Tensor:
        """Logits (N, C * H * W) of the pixels of codes (N, units)."""
        return codes @ self.weights.T + self.outer

    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, C, H, W) in (0, 1) of codes (N, units)."""
        return torch.sigmoid(self.pixels(codes)).view(-1, *self.shape)
