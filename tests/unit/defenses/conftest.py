"""A world for defenses that invert: people who are flat colors with noise, and a generator of colors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.vgg import SmallVgg
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import LatentSpace, Prior, PriorSpec, Shape
from mibench.training import Recipe, fit
from mibench.victim import fingerprint


class Colors:
    """Latents (B, 3) are flat colors; dark images are the most natural. Counts what it decodes."""

    dim = 3

    def __init__(self) -> None:
        self.largest = 0

    def start(self, noise: Noise) -> Tensor:
        return noise.normal("start", 3)

    def decode(self, latents: Tensor) -> Tensor:
        self.largest = max(self.largest, len(latents))
        return latents.sigmoid()[:, :, None, None].expand(-1, -1, 16, 16)

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(-3, 3)

    def realism(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorPrior(PriorSpec):
    """The prior of `Colors`."""

    kind: ClassVar[str] = "colors"

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        return {}

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> LatentSpace:
        return Colors()


class Gauge(Classifier):
    """Logits (N, 3): ten times the mean of each channel."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="gauge", size=16, num_classes=3))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.head = nn.Identity()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.scale * x.mean((2, 3)),)


def people(generator: torch.Generator, count: int) -> Labeled:
    colors = torch.rand(count, 3, 1, 1, generator=generator)
    images = colors.repeat_interleave(12, 0) + 0.02 * torch.randn(count * 12, 3, 16, 16, generator=generator)
    return Labeled(images.clamp(0, 1), torch.arange(count).repeat_interleave(12))


def classifier(data: Labeled, classes: int, seed: int) -> SmallVgg:
    torch.manual_seed(seed)
    net = SmallVgg(NetSpec(name="small_vgg", width=4, size=16, num_classes=classes))
    fit(net, data, Context(seed=seed), recipe=Recipe(epochs=20, batch=24, shift=0))
    return net


@pytest.fixture(scope="module")
def color_world() -> Iterator[DefenderView]:
    generator = torch.Generator().manual_seed(5)
    private, public = people(generator, 4), people(generator, 5)
    net = classifier(public, 5, seed=2)
    before = fingerprint(net)
    yield DefenderView(private, public, torch.tensor([2]), Recipe(), ColorPrior(), {}, net)
    assert fingerprint(net) == before


@pytest.fixture(scope="module")
def color_victim(color_world: DefenderView) -> SmallVgg:
    return classifier(color_world.private_train, 4, seed=1)
