"""A classifier with a Gaussian bottleneck before its head."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.noise import derive_seed, hash_normal, mix

Inference = Literal["sampled", "fresh", "mean"]
_SHIFT = 5.0  # the deviation starts at softplus(-5) = 0.0067 (the authors' code)
_TINY = 1e-7  # inside the logarithm (the authors' code)


class Bottleneck(Classifier):
    """A net whose feature becomes a code t = mu + sigma * noise, from which one linear layer reads logits.

    Its last block is the code, (N, width); the blocks before the net's own feature stay as they are.

    Args:
        net: the classifier to narrow; copied, its head is dropped.
        width: numbers in the code, >= 1.
        inference: the noise of `blocks`, `features` and `forward`. "sampled" draws it from the image, rounded
            to bytes, so that an image keeps its answer; "fresh" draws it anew each time, so that answers
            hang on how often the net was asked before; "mean" leaves it out.
        generator: draws the new layers.
    """

    def __init__(
        self, net: Classifier, *, width: int, inference: Inference, generator: torch.Generator
    ) -> None:
        super().__init__(net.spec)
        self.feature_dim = width
        self.inference = inference
        self.body = copy.deepcopy(net)
        self.body.head = nn.Identity()
        with seeded(generator):
            self.encoder = nn.Linear(net.feature_dim, 2 * width)
            self.head = nn.Linear(width, net.spec.num_classes)
        self.key: Tensor
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self._asked = 0

    def renew(self, generator: torch.Generator) -> None:
        """Draw the new layers and the key of the noise again; every other weight stays."""
        with seeded(generator):
            self.encoder.reset_parameters()
            self.head.reset_parameters()  # type: ignore[operator]  # a linear layer
            self.key.fill_(int(torch.randint(2**62, ())))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the code of x (N, C, H, W): (N, width) each, float32, deviations > 0."""
        return self._split(self.body.features(x))

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """The net's blocks before its feature, and the code."""
        *hidden, feature = self.body.blocks(x)
        mean, deviation = self._split(feature)
        return (*hidden, mean if self.inference == "mean" else mean + deviation * self._noise(x))

    def _split(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(feature).float().chunk(2, dim=1)
        return mean, F.softplus(raw - _SHIFT)

    def _noise(self, x: Tensor) -> Tensor:
        """Standard normal noise (N, width), float32."""
        if self.inference == "sampled":
            return hash_normal(mix(image_keys(x) ^ self.key), self.feature_dim)
        asked = torch.arange(self._asked, self._asked + len(x), device=x.device)
        self._asked += len(x)
        return hash_normal(mix(mix(asked) ^ self.key), self.feature_dim)


def image_keys(x: Tensor) -> Tensor:
    """A hash of each image of x (N, C, H, W) in [0, 1], rounded to bytes: (N,), int64."""
    # a service is sent bytes, and roundings of an image in other company then rarely change its key
    levels = (x.detach().float() * 255).round().to(torch.int64).flatten(1)
    places = mix(torch.arange(levels.shape[1], device=x.device) ^ derive_seed("pixel"))
    return mix(levels ^ places).sum(1)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL divergence (N,), nats, of normal codes from the standard normal one.

    Args:
        mean: (N, width).
        deviation: (N, width), > 0.
    """
    return -0.5 * (1 + 2 * (deviation + _TINY).log() - mean.square() - deviation.square()).sum(1)
