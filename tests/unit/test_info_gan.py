"""InfoGAN: the code that its images must show, its losses, and a search that draws the categorical part."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench import info_gan as module
from mibench.info_gan import CodeSpace, InfoGanPrior, one_hots
from mibench.latent import Search, search_latents
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import DrawnSpace, LabeledSpace

SHAPE = (3, 8, 8)


def info_gan(**options: Any) -> InfoGanPrior:
    tiny = {"latent_dim": 4, "variables": 2, "values": 3, "continuous": 2, "width": 4, "critic_width": 4}
    return InfoGanPrior(**{**tiny, "steps": 2, "batch": 8, **options})


def faces(shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(12, *shape, generator=torch.Generator().manual_seed(0))


def streams(count: int) -> Noise:
    return Noise.of_targets(0, torch.zeros(count, dtype=torch.int64))


def loaded(spec: InfoGanPrior, images: Tensor | None = None) -> CodeSpace:
    images = faces() if images is None else images
    _, channels, size, width = images.shape
    return spec.load(spec.fit(images, Context(seed=1)), (channels, size, width), Context())


def two_modes() -> Tensor:
    """Images that are red or blue, with a little noise."""
    colors = torch.tensor([[0.85, 0.15, 0.2], [0.15, 0.2, 0.85]])[torch.arange(32) % 2]
    noise = 0.05 * torch.randn(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    return (colors[:, :, None, None] + noise).clamp(0, 1)


def test_images_show_their_code_where_the_loss_asks_for_it_and_not_elsewhere() -> None:
    options = {"variables": 1, "values": 2, "steps": 100, "width": 8, "critic_width": 8, "batch": 16}
    rates = {"lr": 2e-3, "critic_lr": 2e-3, "ema": 0.9, "continuous_weight": 1.0}
    shown = []
    for weights in ({}, {"info_weight": 0.0, "continuous_weight": 0.0}):
        space = loaded(info_gan(**{**options, **rates, **weights}), two_modes())
        latents = space.start(streams(64))
        with torch.no_grad():
            images = space.decode(latents)
            _, guess = space.d.both(images)
        hits = guess[:, :2].argmax(1) == latents[:, -1].long()
        slope = torch.corrcoef(torch.stack([guess[:, 2], latents[:, 4]]))[0, 1]
        shown.append((float(hits.float().mean()), float(slope)))
    assert shown[0][0] > 0.95
    assert shown[1][0] < 0.8
    assert shown[0][1] > 0.8
    assert abs(shown[1][1]) < 0.6
    # a plain GAN on two colors draws one of them, and not the gray that it starts from
    gaps = (images.mean((0, 2, 3)) - two_modes().mean((2, 3))[:2]).abs().amax(1)
    assert float(gaps.min()) < 0.2


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16)])
@pytest.mark.parametrize("continuous", [2, 0])
def test_its_space_is_fit_to_be_searched(shape: tuple[int, int, int], continuous: int) -> None:
    space = loaded(info_gan(continuous=continuous, draws=3), faces(shape))
    assert isinstance(space, DrawnSpace)
    assert not isinstance(space, LabeledSpace)
    assert (space.draws, space.dim) == (3, 4 + continuous + 2)
    latents = space.start(streams(6)).requires_grad_(True)
    assert latents.shape == (6, space.dim)
    images = space.decode(latents)
    assert (images.shape, images.dtype) == ((6, *shape), torch.float32)
    assert 0 <= images.min() <= images.max() <= 1
    torch.testing.assert_close(space.decode(latents[2:3]), images[2:3], atol=1e-5, rtol=0)
    loss = space.realism(images)
    torch.testing.assert_close(space.realism(images[2:3]), loss[2:3], atol=1e-5, rtol=0)
    (slope,) = torch.autograd.grad(loss.sum(), latents)
    assert (slope[:, :-2].abs().sum(1) > 0).all()
    assert (slope[:, -2:] == 0).all()


def test_a_start_is_a_draw_of_the_prior() -> None:
    latents = loaded(info_gan(steps=0)).start(streams(900))
    torch.testing.assert_close(latents[:, :4].std(0), torch.ones(4), atol=0.1, rtol=0)
    moved, c = latents[:, 4:6], latents[:, 6:]
    assert -1 <= moved.min() < -0.95
    assert 0.95 < moved.max() <= 1
    counts = torch.stack([F.one_hot(c[:, i].long(), 3).float().mean(0) for i in range(2)])
    torch.testing.assert_close(counts, torch.full((2, 3), 1 / 3), atol=0.06, rtol=0)


def test_a_search_moves_noise_and_continuous_code_and_leaves_the_values() -> None:
    space = loaded(info_gan())
    start = space.project(space.start(streams(5)))

    def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
        loss = (space.decode(latents) - 0.9).square().mean((1, 2, 3))
        return loss, loss

    found, _ = search_latents(
        start, objective, Search(steps=5, lr=0.05, keep="last"), Context(), project=space.project
    )
    assert torch.equal(found[:, 6:], start[:, 6:])
    assert ((found[:, :4] - start[:, :4]).abs().sum(1) > 0).all()
    assert ((found[:, 4:6] - start[:, 4:6]).abs().sum(1) > 0).all()


def test_projection_bounds_noise_and_continuous_code() -> None:
    space = loaded(info_gan(clamp=0.5, steps=0))
    latents = torch.tensor([[2.0, -2.0, 0.1, 0.0, 3.0, -0.4, 2.0, 1.0]])
    assert torch.equal(space.project(latents), torch.tensor([[0.5, -0.5, 0.1, 0.0, 1.0, -0.4, 2.0, 1.0]]))


def test_values_become_one_hot_rows_side_by_side() -> None:
    got = one_hots(torch.tensor([[2, 0]]), 3)
    assert got.tolist() == [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]]


def test_the_information_loss_in_numbers() -> None:
    spec = info_gan(info_weight=2.0, continuous_weight=0.5)
    c, moved = torch.tensor([[1, 2]]), torch.tensor([[0.5, -1.0]])
    even = torch.zeros(1, 2 * 3 + 2 * 2)
    # even logits: log 3 for each variable; means 0 and variances 1: half the squares
    wanted = 2.0 * 2 * math.log(3) + 0.5 * (0.5**2 + 1.0**2) / 2
    assert float(spec.info_loss(even, c, moved)) == pytest.approx(wanted, rel=1e-5)
    sure = torch.cat([50 * one_hots(c, 3), moved, torch.full((1, 2), -50.0)], 1)
    # nothing missed: the least variance of 0.01 alone speaks
    assert float(spec.info_loss(sure, c, moved)) == pytest.approx(0.5 * math.log(0.01), rel=1e-4)
    plain = info_gan(info_weight=1.0, continuous=0)
    assert float(
        plain.info_loss(torch.zeros(4, 6), torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 0))
    ) == (pytest.approx(2 * math.log(3), rel=1e-5))


def test_realism_is_minus_the_log_of_being_real() -> None:
    space = loaded(info_gan(steps=10))
    torch.testing.assert_close(space.realism(faces()), -torch.log(torch.sigmoid(space.d(faces()))))


def test_the_seed_decides_and_nothing_else() -> None:
    before = torch.get_rng_state()
    one, two = (info_gan().fit(faces(), Context(seed=3)) for _ in range(2))
    other = info_gan().fit(faces(), Context(seed=4))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(before, torch.get_rng_state())


def test_what_only_a_search_reads_is_no_training_parameter() -> None:
    assert info_gan(clamp=3.0, draws=9).training_params() == info_gan().training_params()


@pytest.mark.parametrize(
    ("field", "value"),
    [("values", 0), ("draws", 0), ("continuous", -1), ("info_weight", -0.5), ("steps", -1)],
)
def test_a_field_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"prior infogan: {field} must .* got {value}"):
        info_gan(**{field: value})


def test_the_surprise_of_a_normal_distribution_is_torchs_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 2, generator=generator)
    found = []
    for loss in (module.normal_surprise, partial(F.gaussian_nll_loss, eps=module._LEAST_VARIANCE)):
        mean = torch.linspace(-1, 1, 12).view(6, 2).requires_grad_()
        log_variance = torch.linspace(-30, 2, 12).view(6, 2).requires_grad_()
        value = loss(mean, x, log_variance.exp())
        found.append((value, *torch.autograd.grad(value, (mean, log_variance))))
    assert all(torch.equal(own, torchs) for own, torchs in zip(*found))
