"""The generator of StyleGAN2 as its authors publish it, for weights that others have trained.

The small generator of `mibench.nets.style` is like it and not the same: bilinear enlargement, a sigmoid.
Here each layer is the paper's: maps are enlarged by a transposed convolution and smoothed by the filter
[1, 3, 3, 1], pictures by the filter alone, activations have the gain sqrt(2), weights unit scale.

Source: Karras et al., CVPR 2020 (arXiv:1912.04958), configuration F with skip connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.shapes import resize
from mibench.nets.style import ScaledLinear
from mibench.nets.styled import SLOPE, Noise, StyledGenerator

_GAIN = 2.0**0.5  # of an activation
_MAPPING_LR = 0.01  # learning rate of the mapping, relative to the rest
_EPS = 1e-8
_START = 4  # height and width of the constant map
_TAPS = (1.0, 3.0, 3.0, 1.0)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L" weighs red, green and blue


@dataclass(frozen=True, kw_only=True)
class StyleGan2Shape:
    """What it takes to build a generator.

    Args:
        latent_dim: length of z.
        w_dim: length of one w.
        hidden: outputs of each layer of the mapping but the last.
        widths: channels of each level, coarse to fine; the image has 2^(levels + 1) pixels a side.
        channels: of the picture, 3 or 1.
    """

    latent_dim: int = 512
    w_dim: int = 512
    hidden: tuple[int, ...] = (512,) * 7
    widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64, 32)
    channels: int = 3

    @property
    def size(self) -> int:
        """Height and width of the picture in pixels."""
        return _START << (len(self.widths) - 1)


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What becomes of the picture: the middle of it, resized, in the channels that are wanted.

    Args:
        crop: share of height and width that is kept, in (0, 1].
        size: height and width of the images in pixels.
        channels: of the images, 3 or 1.
    """

    crop: float = 1.0
    size: int
    channels: int = 3


class _Layer(nn.Module):
    """Modulated and demodulated conv 3x3, twofold enlargement on demand, noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, *, w_dim: int, size: int, is_up: bool) -> None:
        super().__init__()
        self.is_up = is_up
        self.affine = ScaledLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, *, noise: Noise, generator: torch.Generator | None) -> Tensor:
        """Maps (N, outputs, size, size) of maps x in the style w."""
        out = self.convolved(x, self.affine(w))
        if noise == "const":
            out = out + self.noise_const * self.noise_strength
        elif noise == "random":
            out = out + _drawn(out, generator) * self.noise_strength
        return F.leaky_relu(out + self.bias[:, None, None], SLOPE) * _GAIN

    def convolved(self, x: Tensor, style: Tensor) -> Tensor:
        """Maps of unit variance where those of x are (equation 3), for styles (N, inputs).

        Scaling maps before and after one shared convolution equals scaling the weights of each image.
        """
        scaled = x * style[:, :, None, None]
        if self.is_up:
            out = smooth(F.conv_transpose2d(scaled, self.weight.transpose(0, 1), stride=2))
        else:
            out = F.conv2d(scaled, self.weight, padding=1)
        power = F.linear(style.square(), self.weight.square().sum((2, 3)))
        return out * torch.rsqrt(power + _EPS)[:, :, None, None]


class _ToRgb(nn.Module):
    """Modulated conv 1x1 without demodulation, to the picture's channels."""

    def __init__(self, inputs: int, channels: int, *, w_dim: int) -> None:
        super().__init__()
        self.affine = ScaledLinear(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.scale = inputs**-0.5

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Pictures (N, channels, H, W)."""
        style: Tensor = self.affine(w) * self.scale
        return F.conv2d(x * style[:, :, None, None], self.weight, self.bias)


class _Block(nn.Module):
    """The layers of one level; the first level has no enlarging layer."""

    def __init__(self, inputs: int, outputs: int, *, shape: StyleGan2Shape, size: int) -> None:
        super().__init__()
        self.conv0: nn.Module | None = None
        if inputs:
            self.conv0 = _Layer(inputs, outputs, w_dim=shape.w_dim, size=size, is_up=True)
        self.conv1 = _Layer(outputs, outputs, w_dim=shape.w_dim, size=size, is_up=False)
        self.torgb = _ToRgb(outputs, shape.channels, w_dim=shape.w_dim)


class StyleGan2Generator(StyledGenerator):
    """Latents (N, latent_dim), standard normal, to images (N, channels, size, size) in [0, 1].

    The picture of the last block lies in [-1, 1], and beyond it where colors are too strong; what is beyond
    is cut off after the resizing, where no gradient passes.

    Args:
        shape: of the net.
        framing: of the images; None gives the whole picture.
        noise: what "const", the default of a synthesis, means: the stored maps, or none at all.
    """

    def __init__(
        self, shape: StyleGan2Shape, *, framing: Framing | None = None, noise: Noise = "const"
    ) -> None:
        super().__init__()
        self.shape = shape
        self.framing = framing or Framing(size=shape.size, channels=shape.channels)
        self.stored: Noise = noise
        self.latent_dim, self.w_dim, self.channels = shape.latent_dim, shape.w_dim, shape.channels
        self.num_ws = 2 * len(shape.widths)
        sides = [_START << level for level in range(len(shape.widths))]
        self.map_shapes = tuple((width, side, side) for width, side in zip(shape.widths, sides))
        ends = (shape.latent_dim, *shape.hidden, shape.w_dim)
        self.fc = nn.ModuleList(ScaledLinear(one, two, lr=_MAPPING_LR) for one, two in pairwise(ends))
        self.register_buffer("w_avg", torch.zeros(shape.w_dim))
        self.const = nn.Parameter(torch.randn(shape.widths[0], _START, _START))
        self.levels = nn.ModuleList(
            _Block(one, two, shape=shape, size=side)
            for (one, two), side in zip(pairwise((0, *shape.widths)), sides)
        )

    def mapping(self, z: Tensor) -> Tensor:
        """See StyledGenerator.mapping."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + _EPS)
        for layer in self.fc:
            w = F.leaky_relu(layer(w), SLOPE) * _GAIN
        return w

    def stem(self, count: int) -> tuple[Tensor, Tensor]:
        """See StyledGenerator.stem; the picture starts at zero."""
        side = self.const.shape[-1]
        return self.const.expand(count, -1, -1, -1), self.const.new_zeros(count, self.channels, side, side)

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
        """See StyledGenerator.block."""
        parts, last = self.levels[level], 2 * level
        noise = self.stored if noise == "const" else noise
        if level > 0:
            x = parts.get_submodule("conv0")(x, ws[:, last - 1], noise=noise, generator=generator)
            rgb = enlarge(rgb)
        x = parts.get_submodule("conv1")(x, ws[:, last], noise=noise, generator=generator)
        return x, rgb + parts.get_submodule("torgb")(x, ws[:, last + 1])

    def finish(self, rgb: Tensor) -> Tensor:
        """See StyledGenerator.finish: cropped, resized, and cut off outside [0, 1]."""
        side = rgb.shape[-1]
        kept = max(1, round(side * self.framing.crop))
        first = (side - kept) // 2
        inner = rgb[..., first : first + kept, first : first + kept]
        image = ((resize(inner, self.framing.size) + 1) / 2).clamp(0, 1)
        if self.framing.channels == 1 and self.channels == 3:
            return (image * image.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
        return image.expand(-1, self.framing.channels, -1, -1)


def smooth(x: Tensor) -> Tensor:
    """Maps (N, C, 2H + 1, 2W + 1) of a transposed convolution, filtered to (N, C, 2H, 2W).

    The filter's sum of 4 makes up for the zeros between the pixels that were enlarged.
    """
    return F.conv2d(x, _kernels(x), padding=1, groups=x.shape[1])


def enlarge(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) at twice the height and width: zeros between pixels, then the filter."""
    return F.conv_transpose2d(x, _kernels(x), stride=2, padding=1, groups=x.shape[1])


def _kernels(like: Tensor) -> Tensor:
    """The filter [1, 3, 3, 1] of both directions with sum 4 for each channel, (C, 1, 4, 4).

    It is its own mirror image. One group a channel: on a CPU, channels as rows of a batch take ten times as
    long (measured).
    """
    taps = like.new_tensor(_TAPS) * (2 / sum(_TAPS))
    return torch.outer(taps, taps).expand(like.shape[1], 1, -1, -1)


def _drawn(like: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise ValueError("stylegan2: random noise needs a generator. Pass one, or take noise='const'.")
    shape = (like.shape[0], 1, like.shape[2], like.shape[3])
    return torch.randn(shape, generator=generator, device=generator.device).to(like.device)
