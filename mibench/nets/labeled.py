"""GANs that are told something beside the noise: the label of a face, or a code that they must show.

Both are DCGANs (Radford et al., ICLR 2016, arXiv:1511.06434) in the shapes of `mibench.nets.dcgan`: what is
told joins the generator's input, as in the conditional GAN (Mirza and Osindero, 2014, arXiv:1411.1784) and in
InfoGAN (Chen et al., NeurIPS 2016, arXiv:1606.03657). Their discriminators have spectral norm (Miyato et al.,
ICLR 2018, arXiv:1802.05957) where DCGAN has batch norm, so that each image is judged by itself.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mibench.nets.classifier import center
from mibench.nets.dcgan import DcganGenerator
from mibench.nets.shapes import pyramid

_SLOPE = 0.2  # of every leaky ReLU; DCGAN
_Q_UNITS = 128  # of the layer before the code; the paper's code for MNIST and CelebA


class LabeledGenerator(nn.Module):
    """Latents and label vectors, side by side (N, latent_dim + num_classes), to images in [0, 1].

    A label vector lies on the simplex: a one-hot row is a label, any other row mixes what labels stand for.

    Args:
        num_classes: number of labels K.
        latent_dim: length of z.
        label_dim: length of what a label stands for; standard normal at first, so that labels differ.
        width: see DcganGenerator.
        size: see DcganGenerator.
        channels: image channels.
    """

    def __init__(
        self, *, num_classes: int, latent_dim: int, label_dim: int, width: int, size: int, channels: int
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.embed = _embedding(num_classes, label_dim)
        self.net = DcganGenerator(
            latent_dim=latent_dim + label_dim, width=width, size=size, channels=channels
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Images (N, channels, size, size)."""
        z, y = latents[:, : self.latent_dim], latents[:, self.latent_dim :]
        images: Tensor = self.net(torch.cat([z, self.embed(y)], 1))
        return images


class LabeledDiscriminator(nn.Module):
    """Images (N, channels, size, size) in [0, 1] and label vectors (N, K) to logits (N,) of being real.

    The label joins the last map and both pass a hidden layer together: without one the logit would be a sum
    of what the image and the label say, each by itself.

    Args:
        num_classes: number of labels K.
        label_dim: length of what a label stands for.
        width: channels of the first map; each later map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.
    """

    def __init__(self, *, num_classes: int, label_dim: int, width: int, size: int, channels: int) -> None:
        super().__init__()
        self.body, maps, side = _shrinking(width, size, channels)
        self.embed = _embedding(num_classes, label_dim)
        self.joint = nn.Sequential(spectral_norm(nn.Conv2d(maps + label_dim, maps, 1)), nn.LeakyReLU(_SLOPE))
        self.score = spectral_norm(nn.Conv2d(maps, 1, side))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Logits of x being real images of y."""
        maps = self.body(center(x))
        told = self.embed(y)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        logits: Tensor = self.score(self.joint(torch.cat([maps, told], 1)))
        return logits.flatten()


class CodeDiscriminator(nn.Module):
    """Images (N, channels, size, size) in [0, 1] to logits of being real and to a guess of their code.

    The head Q shares all convolutions with the discriminator.

    Args:
        code_dim: numbers that the guess consists of.
        width: channels of the first map; each later map has twice as many.
        size: image height and width, 4 to 7 times a power of two.
        channels: image channels.
    """

    def __init__(self, *, code_dim: int, width: int, size: int, channels: int) -> None:
        super().__init__()
        self.body, maps, side = _shrinking(width, size, channels)
        self.score = spectral_norm(nn.Conv2d(maps, 1, side))
        self.guess = nn.Sequential(
            nn.Conv2d(maps, _Q_UNITS, side),
            nn.LeakyReLU(_SLOPE),
            nn.Flatten(),
            nn.Linear(_Q_UNITS, code_dim),
        )

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N,) of x being real, and the guess (N, code_dim) of what it shows."""
        maps = self.body(center(x))
        return self.score(maps).flatten(), self.guess(maps)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N,) of x being real."""
        return self.both(x)[0]


def _shrinking(width: int, size: int, channels: int) -> tuple[nn.Sequential, int, int]:
    """Strided convs 5x5 from images to the last map; and its channels and its side in pixels."""
    side, doublings = pyramid(size)
    widths = [channels, *(width * 2**power for power in range(doublings))]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [spectral_norm(nn.Conv2d(inputs, outputs, 5, 2, 2)), nn.LeakyReLU(_SLOPE)]
    return nn.Sequential(*layers), widths[-1], side


def _embedding(num_classes: int, dim: int) -> nn.Linear:
    """Label vectors (N, K) to vectors (N, dim), linear, so that it also takes mixtures."""
    embed = nn.Linear(num_classes, dim, bias=False)
    nn.init.normal_(embed.weight)
    return embed
