"""Conditional GANs: generators that take a class, a projection discriminator and one with a class head.

The residual nets are those of SNGAN with projection (Miyato and Koyama, ICLR 2018, arXiv:1802.05637; Miyato
et al., ICLR 2018, arXiv:1802.05957), in the sizes that PLG-MI (Yuan et al., AAAI 2023, arXiv:2302.09814)
and LOKT (Nguyen et al., NeurIPS 2023, arXiv:2310.19342) train at 64 px; the doublings follow the image here.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mibench.nets.classifier import Classifier, NetSpec, center
from mibench.nets.dcgan import DcganGenerator
from mibench.nets.shapes import pyramid

_RESIDUAL_GAIN = math.sqrt(2)  # of Xavier's uniform start in residual branches; SNGAN's code


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose scale and shift belong to a class; all classes start at 1 and 0.

    Args:
        channels: channels of the maps.
        num_classes: number of classes K.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Embedding(num_classes, channels)
        self.shift = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    @torch.no_grad()
    def take_over(self, plain: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        """Give every class the scale, shift and statistics of an unconditional norm."""
        self.scale.weight.copy_(plain.weight.expand_as(self.scale.weight))
        self.shift.weight.copy_(plain.bias.expand_as(self.shift.weight))
        for own, other in zip(self.norm.buffers(), plain.buffers()):
            own.copy_(other)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Normalized maps of x (N, channels, H, W) for classes y (N,)."""
        scale, shift = self.scale(y)[:, :, None, None], self.shift(y)[:, :, None, None]
        return torch.addcmul(shift, scale, self.norm(x))


class _OfClasses(nn.Module):
    """A generator whose norms depend on the class."""

    def class_parameters(self) -> list[nn.Parameter]:
        """The scales and shifts of the classes."""
        norms = [module for module in self.modules() if isinstance(module, ConditionalBatchNorm)]
        return [weights for norm in norms for weights in norm.parameters()]


class _GrowingBlock(nn.Module):
    """Residual block that doubles height and width."""

    def __init__(self, inputs: int, outputs: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(inputs, num_classes)
        self.conv1 = _conv(inputs, outputs, 3)
        self.norm2 = ConditionalBatchNorm(outputs, num_classes)
        self.conv2 = _conv(outputs, outputs, 3)
        self.skip = _conv(inputs, outputs, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        hidden = self.conv1(_double(self.norm1(x, y).relu()))
        hidden = self.conv2(self.norm2(hidden, y).relu())
        # a 1x1 conv commutes with nearest upsampling and is four times cheaper before it
        out: Tensor = hidden + _double(self.skip(x))
        return out


class ConditionalGenerator(_OfClasses):
    """Latents (N, latent_dim), standard normal, and classes (N,) to images in [0, 1].

    Args:
        num_classes: number of classes K.
        latent_dim: length of a latent, 128 in PLG-MI.
        width: channels of the last hidden map, 64 in PLG-MI; each earlier map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(
        self, *, num_classes: int, latent_dim: int = 128, width: int = 64, size: int = 64, channels: int = 3
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        start, doublings = pyramid(size)
        widths = [width * 2**power for power in reversed(range(doublings + 1))]
        self.start = (widths[0], start, start)
        self.project = nn.Linear(latent_dim, widths[0] * start**2)
        nn.init.xavier_uniform_(self.project.weight)
        self.blocks = nn.ModuleList(_GrowingBlock(a, b, num_classes) for a, b in pairwise(widths))
        self.norm = nn.BatchNorm2d(width)
        self.to_image = _conv(width, channels, 3, gain=1.0)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images (N, channels, size, size) of latents z in classes y."""
        hidden = self.project(z).unflatten(1, self.start)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            hidden = block(hidden, y)
        images: Tensor = (self.to_image(self.norm(hidden).relu()).tanh() + 1) / 2
        return images


class ConditionalDcgan(_OfClasses):
    """A trained deconvolution generator in which each class has its own scales and shifts.

    All classes give the plain generator's images at first, so that training a conditional GAN starts from
    a net that draws faces already. The other layers are shared with `plain`, not copied.

    Args:
        plain: the unconditional generator.
        num_classes: number of classes K.
    """

    def __init__(self, plain: DcganGenerator, num_classes: int) -> None:
        super().__init__()
        self.latent_dim, self.start = plain.latent_dim, plain.start
        stages = [plain.project, *plain.grow]
        self.layers = nn.ModuleList(stage[0] for stage in stages)
        self.norms = nn.ModuleList()
        for stage in stages:
            norm = ConditionalBatchNorm(stage[1].num_features, num_classes)
            norm.take_over(stage[1])
            self.norms.append(norm)
        self.to_image = plain.to_image

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Images (N, channels, size, size) of latents z (N, latent_dim) in classes y (N,)."""
        first = self.norms[0](self.layers[0](z)[:, :, None, None], y).relu()
        hidden = first.flatten(1).unflatten(1, self.start).contiguous(memory_format=torch.channels_last)
        for layer, norm in zip(self.layers[1:], self.norms[1:]):
            hidden = norm(layer(hidden), y).relu()
        images: Tensor = self.to_image(hidden)
        return images


class _ShrinkingBlock(nn.Module):
    """Residual block under spectral norm that halves height and width; the first one sees the image."""

    def __init__(self, inputs: int, outputs: int, *, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        inner = outputs if is_first else inputs
        self.conv1 = spectral_norm(_conv(inputs, inner, 3))
        self.conv2 = spectral_norm(_conv(inner, outputs, 3))
        self.skip = spectral_norm(_conv(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv2(self.conv1(x if self.is_first else x.relu()).relu())
        # pooling and a 1x1 conv commute, and the conv is four times cheaper behind it
        out: Tensor = F.avg_pool2d(hidden, 2) + self.skip(F.avg_pool2d(x, 2))
        return out


class SpectralBody(nn.Module):
    """Images (N, channels, size, size) in [0, 1] to features (N, feature_dim), each image by itself.

    Args:
        width: channels of the first map, 64 in PLG-MI; each later map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(self, *, width: int = 64, size: int = 64, channels: int = 3) -> None:
        super().__init__()
        _, doublings = pyramid(size)
        widths = [channels, *(width * 2**power for power in range(doublings + 1))]
        self.feature_dim = widths[-1]
        self.blocks = nn.Sequential(
            *(_ShrinkingBlock(a, b, is_first=i == 0) for i, (a, b) in enumerate(pairwise(widths)))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of x, summed over the last map."""
        maps = self.blocks(center(x).contiguous(memory_format=torch.channels_last))
        features: Tensor = maps.relu().sum((2, 3))
        return features


class ProjectionDiscriminator(nn.Module):
    """Images and classes to scores, unbounded; higher is more like a real image of the class.

    The score is psi(f) + <e_y, f> for features f and a learned vector e_y (Miyato and Koyama, equation 3).

    Args:
        num_classes: number of classes K.
        width: see SpectralBody.
        size: see SpectralBody.
        channels: image channels.
    """

    def __init__(self, *, num_classes: int, width: int = 64, size: int = 64, channels: int = 3) -> None:
        super().__init__()
        self.body = SpectralBody(width=width, size=size, channels=channels)
        self.psi = spectral_norm(_linear(self.body.feature_dim, 1))
        embedding = nn.Embedding(num_classes, self.body.feature_dim)
        nn.init.xavier_uniform_(embedding.weight)
        self.embedding = spectral_norm(embedding)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (N,) of x (N, channels, size, size) as images of classes y (N,)."""
        f = self.body(x)
        scores: Tensor = self.psi(f).squeeze(1) + (self.embedding(y) * f).sum(1)
        return scores

    def realness(self, x: Tensor) -> Tensor:
        """The part psi of the scores (N,), which knows no class."""
        scores: Tensor = self.psi(self.body(x)).squeeze(1)
        return scores


class AuxiliaryDiscriminator(Classifier):
    """Images to a logit of being real and to class logits; as a classifier it is its class head.

    Source: the discriminator of the target-model-assisted ACGAN of LOKT.

    Args:
        spec: image shape, number of classes and width, see SpectralBody; width 0 takes 64.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        self.body = SpectralBody(width=spec.width or 64, size=spec.size, channels=spec.channels)
        self.feature_dim = self.body.feature_dim
        self.real = spectral_norm(_linear(self.feature_dim, 1))
        self.head = spectral_norm(_linear(self.feature_dim, spec.num_classes))

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """See Classifier.blocks; the feature alone."""
        return (self.body(x),)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of being real (N,) and class logits (N, K) of x."""
        f = self.body(x)
        return self.real(f).squeeze(1), self.head(f)

    def realness(self, x: Tensor) -> Tensor:
        """Logits of being real (N,) of x."""
        return self.both(x)[0]


def _double(x: Tensor) -> Tensor:
    """Nearest upsampling by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _conv(inputs: int, outputs: int, kernel: int, *, gain: float | None = None) -> nn.Conv2d:
    """Conv that keeps height and width, with SNGAN's start; 1x1 convs are shortcuts and take gain 1."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight, gain or (_RESIDUAL_GAIN if kernel > 1 else 1.0))
    return conv


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Linear layer with SNGAN's start."""
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    return linear
