"""A small style-based generator with W and P spaces, and its discriminator.

Written from the description of StyleGAN2 (Karras et al., CVPR 2020, arXiv:1912.04958) for the
attacks that search its spaces (Mirror, PPA). Three choices differ: the mapping ends in a leaky
ReLU without gain, so that P space (An et al., NDSS 2022) is its plain inverse; the first
convolution of a level runs before the bilinear upsampling, at a quarter of the cost; and a
sigmoid keeps images in [0, 1].
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import center
from mibench.nets.shapes import pyramid
from mibench.nets.styled import SLOPE, Noise, StyledGenerator

_GAIN = 2.0**0.5  # StyleGAN2's gain of an activation; here the conv before it carries it, for speed
_W_AVG_DECAY = 0.995  # StyleGAN's running mean of w
_MAPPING_LR = 0.01  # StyleGAN's learning rate of the mapping, relative to the rest
_EPS = 1e-8


class ScaledLinear(nn.Module):
    """A linear layer (N, inputs) -> (N, outputs) with an equalized learning rate.

    Args:
        inputs: length of an input.
        outputs: length of an output.
        gain: standard deviation of an output per that of an input, at the start.
        bias: start value of every bias.
        lr: learning rate relative to other layers.
        equalized: keep weights of unit scale and shrink them when used (Karras et al., ICLR
            2018, arXiv:1710.10196); False folds the scale into the start values.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        gain: float = 1.0,
        bias: float = 0.0,
        lr: float = 1.0,
        equalized: bool = True,
    ) -> None:
        super().__init__()
        std = gain * inputs**-0.5
        self.scale: float = std * lr if equalized else 1.0
        self.lr: float = lr if equalized else 1.0
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * (std / self.scale))
        self.bias = nn.Parameter(torch.full((outputs,), bias / self.lr))

    def forward(self, x: Tensor) -> Tensor:
        """The affine image of x."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style: maps (N, inputs, H, W), w (N, w_dim).

    Scaling maps before and after one shared convolution equals scaling the weights of each image
    and is several times faster on a CPU than a grouped convolution.

    Args:
        inputs: channels of a map that comes in.
        outputs: channels of a map that goes out.
        w_dim: length of one w.
        kernel: height and width of the kernel, odd.
        demodulate: divide each output channel by its expected scale (and apply the gain sqrt(2)).
        equalized: as in `ScaledLinear`.
    """

    def __init__(
        self, inputs: int, outputs: int, *, w_dim: int, kernel: int, demodulate: bool, equalized: bool
    ) -> None:
        super().__init__()
        std = (inputs * kernel**2) ** -0.5
        self.scale = std if equalized else 1.0
        self.demodulate = demodulate
        self.style = ScaledLinear(w_dim, inputs, bias=1.0, equalized=equalized)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel) * (std / self.scale))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps (N, outputs, H, W)."""
        style: Tensor = self.style(w)
        weight = self.weight * self.scale
        out = F.conv2d(x * style[:, :, None, None], weight, padding=self.weight.shape[-1] // 2)
        if not self.demodulate:
            return out
        power = F.linear(style.square(), weight.square().sum((2, 3)))
        return out * (torch.rsqrt(power + _EPS) * _GAIN)[:, :, None, None]


class StyleLayer(nn.Module):
    """Modulated conv 3x3, upsampling on demand, noise, bias, leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, *, w_dim: int, size: int, is_up: bool, equalized: bool
    ) -> None:
        super().__init__()
        self.is_up = is_up
        self.conv = ModulatedConv(
            inputs, outputs, w_dim=w_dim, kernel=3, demodulate=True, equalized=equalized
        )
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor, *, noise: Noise, generator: torch.Generator | None) -> Tensor:
        """Maps (N, outputs, size, size) of maps x in the style w."""
        out: Tensor = self.conv(x, w)
        if self.is_up:
            out = upsample(out)
        if noise == "const":
            out = out + self.noise_const * self.strength
        elif noise == "random":
            out = out + self._draw(out, generator) * self.strength
        return F.leaky_relu(out + self.bias, SLOPE)

    @staticmethod
    def _draw(like: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None:
            raise ValueError("style: random noise needs a generator. Pass one, or take noise='const'.")
        shape = (like.shape[0], 1, like.shape[2], like.shape[3])
        return torch.randn(shape, generator=generator, device=generator.device).to(like.device)


def upsample(x: Tensor) -> Tensor:
    """Maps (N, C, H, W) at twice the height and width, bilinear."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class StyleGenerator(StyledGenerator):
    """Latents (N, latent_dim), standard normal, to images (N, channels, size, size) in [0, 1].

    The default costs 2.7 million multiply-adds per 32 px image.

    Args:
        latent_dim: length of z.
        w_dim: length of one w.
        mapping_layers: linear layers from z to w, >= 1; 2 is the choice for small images.
        width: channels of the two coarsest levels; each finer level has half as many, at least 4.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.
        equalized: learning rates equalized over layers, with the mapping at a hundredth.

    Raises:
        ValueError: `size` is no such multiple, or mapping_layers < 1.
    """

    def __init__(
        self,
        *,
        latent_dim: int = 128,
        w_dim: int = 128,
        mapping_layers: int = 2,
        width: int = 32,
        size: int = 32,
        channels: int = 3,
        equalized: bool = True,
    ) -> None:
        super().__init__()
        if mapping_layers < 1:
            raise ValueError(f"style: mapping_layers must be at least 1, got {mapping_layers}.")
        start, doublings = pyramid(size)
        self.latent_dim, self.w_dim, self.num_ws = latent_dim, w_dim, 2 * doublings + 2
        self.channels = channels
        widths = level_widths(width, doublings)
        self.map_shapes = tuple(
            (outputs, start << level, start << level) for level, outputs in enumerate(widths)
        )
        gain = (2.0 / (1.0 + SLOPE**2)) ** 0.5  # He's gain: keeps the variance without an activation gain
        self.layers = nn.ModuleList(
            ScaledLinear(inputs, w_dim, gain=gain, lr=_MAPPING_LR, equalized=equalized)
            for inputs in (latent_dim, *[w_dim] * (mapping_layers - 1))
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.const = nn.Parameter(torch.randn(1, widths[0], start, start))
        convs: list[nn.Module] = []
        for level, outputs in enumerate(widths):
            side = start * 2**level
            if level > 0:
                convs.append(
                    StyleLayer(
                        widths[level - 1], outputs, w_dim=w_dim, size=side, is_up=True, equalized=equalized
                    )
                )
            convs.append(
                StyleLayer(outputs, outputs, w_dim=w_dim, size=side, is_up=False, equalized=equalized)
            )
        self.convs = nn.ModuleList(convs)
        self.to_rgb = nn.ModuleList(
            ModulatedConv(inputs, channels, w_dim=w_dim, kernel=1, demodulate=False, equalized=equalized)
            for inputs in widths
        )
        self.rgb_bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def mapping(self, z: Tensor) -> Tensor:
        """The w of latents z, (N, w_dim); in training mode it also moves the mean `w_avg`."""
        w = z * torch.rsqrt(z.square().mean(1, keepdim=True) + _EPS)
        for layer in self.layers:
            w = F.leaky_relu(layer(w), SLOPE)
        if self.training:
            self.w_avg = torch.lerp(w.detach().mean(0), self.w_avg, _W_AVG_DECAY)
        return w

    def stem(self, count: int) -> tuple[Tensor, Tensor]:
        """What enters the first block: the constant map (count, C, H, W), and the bias of the picture."""
        x = self.const.expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        return x, self.rgb_bias

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
        """See StyledGenerator.block; the picture is that before the sigmoid."""
        last = 2 * level  # of the level's convolutions; its toRGB takes the next style
        for index in range(max(0, last - 1), last + 1):
            x = self.convs[index](x, ws[:, index], noise=noise, generator=generator)
        picture = self.to_rgb[level](x, ws[:, last + 1])
        return x, (rgb if level == 0 else upsample(rgb)) + picture

    def finish(self, rgb: Tensor) -> Tensor:
        """See StyledGenerator.finish: a sigmoid."""
        return torch.sigmoid(rgb)


def level_widths(width: int, doublings: int) -> list[int]:
    """Channels of each level, coarse to fine.

    >>> level_widths(32, 3)
    [32, 32, 16, 8]
    """
    return [width, *(max(width >> level, 4) for level in range(doublings))]


class _Down(nn.Module):
    """A residual block of two convs 3x3 that halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.short = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling before the second convolution costs a quarter of pooling after it.
        out = F.avg_pool2d(F.leaky_relu(self.conv1(x), SLOPE), 2)
        out = F.leaky_relu(self.conv2(out), SLOPE)
        short: Tensor = self.short(F.avg_pool2d(x, 2))
        return (out + short) * _GAIN**-1


class StyleDiscriminator(nn.Module):
    """Images (N, channels, size, size) in [0, 1] to logits (N,) of being real.

    Mirrors the generator's widths; one extra map tells the spread inside groups of up to four
    images, so outputs depend on the batch (group size of StyleGAN2).

    Args:
        width: as in `StyleGenerator`.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.
        group: images whose spread is measured together; 1 makes outputs batch-independent.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(self, *, width: int = 32, size: int = 32, channels: int = 3, group: int = 4) -> None:
        super().__init__()
        start, doublings = pyramid(size)
        widths = level_widths(width, doublings)[::-1]
        self.group = group
        self.from_rgb = nn.Conv2d(channels, widths[0], 1)
        self.down = nn.Sequential(*(_Down(inputs, outputs) for inputs, outputs in pairwise(widths)))
        self.mix = nn.Conv2d(width + 1, width, 3, 1, 1)
        self.score = nn.Sequential(
            nn.Linear(width * start**2, width), nn.LeakyReLU(SLOPE), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x, (N,)."""
        hidden = self.down(F.leaky_relu(self.from_rgb(center(x)), SLOPE))
        hidden = F.leaky_relu(self.mix(with_spread(hidden, self.group)), SLOPE)
        logits: Tensor = self.score(hidden.flatten(1))
        return logits.squeeze(1)


def with_spread(x: Tensor, group: int) -> Tensor:
    """Maps (N, C, H, W) and one more that holds the mean standard deviation within groups.

    Groups have the largest size up to `group` that divides N.
    Source: Karras et al., ICLR 2018 (arXiv:1710.10196), minibatch standard deviation.
    """
    num = x.shape[0]
    members = next(size for size in range(min(group, num), 0, -1) if num % size == 0)
    grouped = x.unflatten(0, (members, num // members))
    spread = (grouped.var(0, correction=0) + _EPS).sqrt().mean((1, 2, 3))
    extra = spread.repeat(members)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, extra], 1)
