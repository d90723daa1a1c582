"""The conditional GAN: what labels teach it, mixtures of labels, the space of one label."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.errors import PluginError
from mibench.labeled_gan import CganPrior, LabelSpace, MixtureSpace
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import DrawnSpace, LabeledSpace, Prior

SHAPE = (3, 8, 8)
COLORS = torch.tensor([[0.85, 0.15, 0.2], [0.15, 0.2, 0.85], [0.5, 0.8, 0.5]])


def cgan(**options: Any) -> CganPrior:
    tiny = {"latent_dim": 4, "label_dim": 3, "width": 4, "critic_width": 4, "steps": 2, "batch": 8}
    return CganPrior(**{**tiny, **options})


def people(count: int = 3, shape: tuple[int, int, int] = SHAPE) -> Labeled:
    """Flat colors with a little noise, one color for each label."""
    labels = torch.arange(10 * count) % count
    noise = 0.05 * torch.randn(len(labels), *shape, generator=torch.Generator().manual_seed(0))
    return Labeled((COLORS[labels][:, : shape[0], None, None] + noise).clamp(0, 1), labels)


def streams(count: int) -> Noise:
    return Noise.of_targets(0, torch.zeros(count, dtype=torch.int64))


def loaded(spec: CganPrior, data: Labeled | None = None) -> tuple[Prior, MixtureSpace]:
    data = data or people()
    prior = spec.fit_labeled(data, Context(seed=1))
    return prior, spec.load(prior, data.shape, Context())


def mean_colors(space: MixtureSpace, labels: int) -> Tensor:
    """Mean color (labels, C) of the images of each label."""
    spaces = [space.of_label(label) for label in range(labels)]
    return torch.stack([one.decode(one.start(streams(32))).mean((0, 2, 3)) for one in spaces])


def test_each_label_gets_its_own_color() -> None:
    learned = cgan(steps=200, width=8, critic_width=8, batch=16, lr=2e-3, ema=0.9)
    (_, blind), (_, space) = (loaded(spec, people(2)) for spec in (cgan(steps=0), learned))
    assert (mean_colors(blind, 2)[0] - mean_colors(blind, 2)[1]).abs().max() < 0.15
    torch.testing.assert_close(mean_colors(space, 2), COLORS[:2], atol=0.15, rtol=0)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16)])
def test_both_spaces_are_fit_to_be_searched(shape: tuple[int, int, int]) -> None:
    _, space = loaded(cgan(), people(3, shape))
    assert isinstance(space, LabeledSpace)
    assert not isinstance(space, DrawnSpace)
    one = space.of_label(1)
    assert not isinstance(one, LabeledSpace)
    assert (space.dim, one.dim) == (4 + 3, 4)
    for part in (space, one):
        latents = part.start(streams(5)).requires_grad_(True)
        images = part.decode(latents)
        assert (images.shape, images.dtype) == ((5, *shape), torch.float32)
        assert 0 <= images.min() <= images.max() <= 1
        torch.testing.assert_close(part.decode(latents[2:3]), images[2:3], atol=1e-5, rtol=0)
        loss = part.realism(images)
        torch.testing.assert_close(part.realism(images[2:3]), loss[2:3], atol=1e-5, rtol=0)
        (slope,) = torch.autograd.grad(loss.sum(), latents)
        assert (slope.abs().sum(1) > 0).all()


def test_a_search_starts_with_half_of_the_weight_on_a_random_label() -> None:
    data = people()
    _, space = loaded(cgan(), Labeled(data.images, torch.arange(30) % 6))
    mixtures = space._split(space.start(streams(200)))[1]
    torch.testing.assert_close(mixtures.max(1).values, torch.full((200,), 0.5))
    torch.testing.assert_close(mixtures.min(1).values, torch.full((200,), 0.1))
    assert len(mixtures.argmax(1).unique()) == 6
    _, pair = loaded(cgan(), Labeled(data.images, torch.arange(30) % 2))
    assert pair.steepness == 1
    alone = CganPrior(latent_dim=4, width=4, critic_width=4, steps=0)
    _, single = loaded(alone, Labeled(people().images, torch.zeros(30, dtype=torch.int64)))
    assert single.start(streams(4)).isfinite().all()


def test_a_mixture_that_is_all_one_label_is_that_label() -> None:
    _, space = loaded(cgan(steps=20))
    one = space.of_label(2)
    z = one.start(streams(4))
    sure = 1e4 * F.one_hot(torch.full((4,), 2), 3)
    latents = torch.cat([z, sure], 1)
    images = space.decode(latents)
    torch.testing.assert_close(images, one.decode(z))
    torch.testing.assert_close(space.realism_of(latents, images), one.realism(images))
    even = torch.cat([z, torch.full((4, 3), 0.7)], 1)
    torch.testing.assert_close(space.realism_of(even, images), space.realism(images))
    assert not torch.allclose(one.realism(images), space.realism(images), atol=1e-4)


def test_realism_is_minus_the_log_of_being_real() -> None:
    _, space = loaded(cgan(steps=20))
    images = people().images[:6]
    one: LabelSpace = space.of_label(1)
    told = torch.eye(3)[[1]].expand(6, -1)
    torch.testing.assert_close(one.realism(images), -torch.log(torch.sigmoid(space.d(images, told))))


def test_a_label_moves_a_mixture_through_its_gradient() -> None:
    _, space = loaded(cgan(steps=20))
    latents = space.start(streams(4)).requires_grad_(True)
    (slope,) = torch.autograd.grad(space.decode(latents).sum(), latents)
    assert (slope[:, 4:].abs().sum(1) > 0).all()


def test_projection_bounds_z_and_leaves_the_mixture() -> None:
    _, space = loaded(cgan(clamp=0.5))
    latents = 3 * torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    got = space.project(latents)
    torch.testing.assert_close(got, torch.cat([latents[:, :4].clamp(-0.5, 0.5), latents[:, 4:]], 1))
    assert torch.equal(space.of_label(0).project(latents[:, :4]), got[:, :4])


@pytest.mark.parametrize("label", [-1, 3])
def test_an_unknown_label_is_refused(label: int) -> None:
    _, space = loaded(cgan(steps=0))
    with pytest.raises(ValueError, match=f"knows labels 0 to 2, got {label}"):
        space.of_label(label)


def test_it_refuses_images_without_labels() -> None:
    with pytest.raises(PluginError, match="the attacker's public images have none"):
        cgan().fit(people().images, Context())


def test_the_seed_decides_and_nothing_else() -> None:
    before, data = torch.get_rng_state(), people()
    one, two = (cgan().fit_labeled(data, Context(seed=3)) for _ in range(2))
    other = cgan().fit_labeled(data, Context(seed=4))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(data.images, people().images)


def test_what_only_a_search_reads_is_no_training_parameter() -> None:
    assert "clamp" not in cgan(clamp=3.0).training_params()
    assert cgan(clamp=3.0).training_params() == cgan().training_params()


@pytest.mark.parametrize(
    ("field", "value"), [("label_dim", 0), ("steps", -1), ("lr", 0.0), ("ema", 1.5), ("clamp", math.nan)]
)
def test_a_field_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"prior cgan: {field} must"):
        cgan(**{field: value})
