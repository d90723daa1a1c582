"""Nets that are told a label or a code: mixtures, joint layers, heads, and each image by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.nets.labeled import CodeDiscriminator, LabeledDiscriminator, LabeledGenerator
from mibench.nets.seeding import seeded
from mibench.victim import freeze


def drawn(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def generator(size: int = 8) -> LabeledGenerator:
    with seeded(torch.Generator().manual_seed(1)):
        g = LabeledGenerator(num_classes=3, latent_dim=4, label_dim=5, width=4, size=size, channels=3)
    g(torch.cat([drawn(16, 4), F.one_hot(torch.arange(16) % 3)], 1))
    freeze(g)
    return g


def discriminator(size: int = 8) -> LabeledDiscriminator:
    with seeded(torch.Generator().manual_seed(1)):
        d = LabeledDiscriminator(num_classes=3, label_dim=5, width=4, size=size, channels=3)
    freeze(d)
    return d


@pytest.mark.parametrize("size", [8, 24, 32])
def test_shapes(size: int) -> None:
    y = F.one_hot(torch.arange(6) % 3).float()
    images = generator(size)(torch.cat([drawn(6, 4), y], 1))
    assert images.shape == (6, 3, size, size)
    assert discriminator(size)(images, y).shape == (6,)
    code = CodeDiscriminator(code_dim=7, width=4, size=size, channels=3)
    freeze(code)
    logits, guess = code.both(images)
    assert (logits.shape, guess.shape) == ((6,), (6, 7))
    assert torch.equal(code(images), logits)


def test_what_labels_stand_for_is_standard_normal_and_mixes_linearly() -> None:
    with seeded(torch.Generator().manual_seed(1)):
        embed = LabeledGenerator(
            num_classes=200, latent_dim=4, label_dim=50, width=4, size=8, channels=3
        ).embed
    assert float(embed.weight.detach().std()) == pytest.approx(1, abs=0.03)
    mixture = torch.zeros(1, 200)
    mixture[0, 3], mixture[0, 7] = 0.25, 0.75
    torch.testing.assert_close(embed(mixture)[0], 0.25 * embed.weight[:, 3] + 0.75 * embed.weight[:, 7])


def test_a_label_changes_the_image_and_what_the_discriminator_looks_for_in_it() -> None:
    z, eye = drawn(2, 4), torch.eye(3)
    images = [generator()(torch.cat([z, eye[[label] * 2]], 1)) for label in range(2)]
    assert (images[0] - images[1]).abs().max() > 1e-3
    d, x = discriminator(), drawn(5, 3, 8, 8)
    first, second = (d(x, eye[[label] * 5]) for label in range(2))
    # a sum of what image and label say would shift all logits alike
    assert float((first - second).std()) > 1e-4


def test_each_image_is_judged_by_itself() -> None:
    d, x, y = discriminator(), drawn(5, 3, 8, 8), torch.eye(3)[torch.tensor([0, 1, 2, 0, 1])]
    alone = torch.cat([d(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(d(x, y), alone, atol=1e-5, rtol=1e-5)


def test_spectral_norm_bounds_what_a_discriminator_can_tell_apart() -> None:
    with seeded(torch.Generator().manual_seed(1)):
        d = CodeDiscriminator(code_dim=2, width=4, size=8, channels=3)
    first: Any = d.body[0]
    with torch.no_grad():
        first.parametrizations.weight.original.mul_(1000)
    for _ in range(30):
        d(drawn(2, 3, 8, 8))
    norm = torch.linalg.matrix_norm(first.weight.detach().flatten(1), ord=2)
    assert float(norm) == pytest.approx(1, abs=0.02)
