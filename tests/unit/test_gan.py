"""The priors of attacks: penalties, bounds, storage in half precision, spaces to search in, determinism."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.errors import TrainingError
from mibench.gan import (
    StylePrior,
    WganClipPrior,
    WganPrior,
    clip_weights,
    gradient_penalty,
    pack,
    score_gap,
    unpack,
)
from mibench.nets.styled import from_p, to_p
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import LatentSpace, Prior, PriorSpec

SHAPE = (3, 8, 8)


def wgan(**options: Any) -> WganPrior:
    tiny = {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 2, "n_critic": 2, "batch": 4}
    return WganPrior(**{**tiny, **options})


def clipped(**options: Any) -> WganClipPrior:
    tiny = {"latent_dim": 6, "width": 4, "critic_width": 4, "steps": 2, "n_critic": 2, "batch": 4}
    return WganClipPrior(**{**tiny, **options})


def style(**options: Any) -> StylePrior:
    tiny = {"latent_dim": 6, "w_dim": 5, "width": 8, "critic_width": 8, "steps": 2, "batch": 4}
    return StylePrior(**{**tiny, "p_samples": 200, **options})


SPECS: list[PriorSpec] = [wgan(), style(), clipped()]
NAMES = ["wgan", "style", "clip"]


def faces(count: int = 12, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def loaded(spec: PriorSpec, shape: tuple[int, int, int] = SHAPE) -> tuple[Prior, LatentSpace]:
    prior = spec.fit(faces(shape=shape), Context(seed=1))
    return prior, spec.load(prior, shape, Context())


def streams(count: int, seed: int = 0) -> Noise:
    return Noise.of_targets(seed, torch.zeros(count, dtype=torch.int64))


class Plane(nn.Module):
    """D(x) = a . x with |a| given."""

    def __init__(self, norm: float) -> None:
        super().__init__()
        self.a = nn.Parameter(nn.functional.normalize(torch.arange(1.0, 13.0), dim=0) * norm)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.a


@pytest.mark.parametrize(("norm", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_the_gradient_penalty_of_a_plane(norm: float, penalty: float) -> None:
    x = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    assert float(gradient_penalty(Plane(norm), x).detach()) == pytest.approx(penalty, abs=1e-5)


def test_the_gradient_penalty_pulls_the_slope_to_one() -> None:
    plane = Plane(3.0)
    x = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    (slope,) = torch.autograd.grad(gradient_penalty(plane, x), plane.a)
    torch.testing.assert_close(slope, 2 * (3 - 1) * plane.a.detach() / 3)


def test_the_critic_descends_the_wasserstein_loss_with_ten_times_the_penalty() -> None:
    plane: Any = Plane(3.0)
    real, rng = faces(4, (3, 2, 2)), torch.Generator().manual_seed(0)
    fake = real * 0.25
    loss = WganPrior()._critic_loss(plane, real, fake, rng)
    gap = float((plane(fake).mean() - plane(real).mean()).detach())
    assert float(loss.detach()) == pytest.approx(gap + 40, abs=1e-4)
    assert gap < -0.1


def test_clipping_moves_weights_to_the_bound_and_no_others() -> None:
    net = nn.Linear(3, 1, bias=False)
    net.weight.data = torch.tensor([[-0.5, 0.004, 0.02]])
    clip_weights(net, 0.01)
    assert torch.equal(net.weight, torch.tensor([[-0.01, 0.004, 0.01]]))


@pytest.mark.parametrize("steps", [0, 12])
def test_the_weights_of_a_clipped_critic_lie_within_the_bound(steps: int) -> None:
    # steps of RMSprop that leave the bound at once
    prior = clipped(steps=steps, lr=0.1, clip=0.03).fit(faces(), Context())
    weights = [value.float().abs().max() for name, value in prior.items() if name.startswith("d.")]
    # half precision rounds 0.03 up by less than a thousandth
    assert max(weights) <= 0.03 * 1.001
    assert max(weights) > 0.029
    free = wgan(steps=steps).fit(faces(), Context())
    assert max(float(v.abs().max()) for name, v in free.items() if name.startswith("d.")) > 0.1


def test_a_critic_sees_the_gap_between_the_mean_scores() -> None:
    plane: Any = Plane(2.0)
    real = faces(4, (3, 2, 2))
    assert float(score_gap(plane, real, real).detach()) == 0
    gap = float((plane(real * 0.5).mean() - plane(real).mean()).detach())
    assert float(score_gap(plane, real, real * 0.5).detach()) == pytest.approx(gap, abs=1e-6)
    assert gap < -0.1


def test_weights_are_stored_in_half_precision_and_come_back() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    net(faces(8, (3, 1, 1)).flatten(1))
    stored = pack(net=net)
    floats = [value for value in stored.values() if value.is_floating_point()]
    assert floats
    assert all(value.dtype == torch.float16 for value in floats)
    assert stored["net.1.num_batches_tracked"] == 1
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    unpack(stored, net=other)
    for key, value in other.state_dict().items():
        assert value.dtype == net.state_dict()[key].dtype
        torch.testing.assert_close(value, net.state_dict()[key], rtol=2**-11, atol=2**-24)
    again = pack(net=other)
    assert all(torch.equal(again[key], stored[key]) for key in stored)


def test_nets_are_kept_apart_by_name_and_other_entries_are_left_alone() -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    stored = {**pack(g=one, gg=two), "starts": torch.zeros(1)}
    got = nn.Linear(2, 2)
    unpack(stored, g=got)
    assert torch.equal(got.weight, one.weight.half().float())
    with pytest.raises(RuntimeError, match="Missing key"):
        unpack(stored, d=nn.Linear(2, 2))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 16, 16)])
@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_a_prior_is_fit_to_be_searched(spec: PriorSpec, shape: tuple[int, int, int]) -> None:
    _, space = loaded(spec, shape)
    latents = space.start(streams(6)).requires_grad_(True)
    assert latents.shape == (6, space.dim)
    images = space.decode(latents)
    assert images.shape == (6, *shape)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, space.decode(latents))
    realism = space.realism(images)
    assert realism.shape == (6,)
    for row in range(6):
        torch.testing.assert_close(
            space.decode(latents[row : row + 1]), images[row : row + 1], atol=1e-5, rtol=0
        )
        alone = space.realism(images[row : row + 1])
        torch.testing.assert_close(alone, realism[row : row + 1], atol=1e-4, rtol=1e-4)
    (slope,) = torch.autograd.grad(images.square().sum(), latents)
    assert bool((slope.abs().amax(1) > 0).all())
    (slope,) = torch.autograd.grad(space.realism(space.decode(latents)).sum(), latents)
    assert bool((slope.abs().amax(1) > 0).all())


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_latents_come_from_each_rows_own_noise(spec: PriorSpec) -> None:
    _, space = loaded(spec)
    start = space.start(streams(5))
    torch.testing.assert_close(space.start(streams(5)[slice(3, 5)]), start[3:], atol=1e-6, rtol=0)
    assert not torch.equal(space.start(streams(5, seed=9)), start)
    assert len(start.unique(dim=0)) == 5


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_projection_is_idempotent_and_leaves_what_is_inside(spec: PriorSpec) -> None:
    _, space = loaded(spec)
    far = 10 * torch.randn(20, space.dim, generator=torch.Generator().manual_seed(0))
    inside = space.project(far)
    assert not torch.equal(inside, far)
    assert torch.equal(space.project(inside), inside)


def test_the_space_of_z_is_standard_normal_and_clamped() -> None:
    spec = wgan(clamp=0.5)
    _, space = loaded(spec)
    z = space.start(streams(3000))
    torch.testing.assert_close(z.mean(0), torch.zeros(6), atol=0.08, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(6), atol=0.08, rtol=0)
    assert torch.equal(space.project(z), z.clamp(-0.5, 0.5))


def test_the_box_of_w_is_mean_and_deviation_of_p_space() -> None:
    space: Any = loaded(style(p_samples=4000))[1]
    p = to_p(space.start(streams(4000)))
    low, high = to_p(space.low), to_p(space.high)
    std = p.std(0, correction=0)
    torch.testing.assert_close((low + high) / 2, p.mean(0), atol=0.1 * float(std.max()), rtol=0)
    torch.testing.assert_close(space.spread, std, atol=0, rtol=0.1)
    torch.testing.assert_close(space.spread, (high - low) / 2)
    wide: Any = loaded(style(p_samples=4000, kappa=2.0))[1]
    torch.testing.assert_close(wide.spread, 2 * space.spread)


def test_clamping_w_is_clamping_in_p_space() -> None:
    space: Any = loaded(style())[1]
    w = 5 * torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(from_p(to_p(w)), w, atol=1e-6, rtol=0)
    clamped = from_p(torch.clamp(to_p(w), to_p(space.low), to_p(space.high)))
    torch.testing.assert_close(space.project(w), clamped, atol=1e-6, rtol=0)


def test_the_p_clamp_of_mirror_in_numbers() -> None:
    space: Any = loaded(style())[1]
    # mean 0, deviation 1/2, kappa 1
    space.low, space.high = from_p(torch.tensor(-0.5)), from_p(torch.tensor(0.5))
    got = space.project(torch.tensor([10.0, -10.0, 0.1, -0.05]))
    torch.testing.assert_close(got, torch.tensor([0.5, -0.1, 0.1, -0.05]))


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_the_seed_decides_and_nothing_else(spec: PriorSpec) -> None:
    before, public = torch.get_rng_state(), faces()
    one, two = (spec.fit(public, Context(seed=3)) for _ in range(2))
    other = spec.fit(public, Context(seed=4))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(public, faces())


@pytest.mark.parametrize(
    ("spec", "searched"), [(wgan(), {"clamp": 9.0}), (style(), {"kappa": 3.0}), (clipped(), {"clamp": 9.0})]
)
def test_what_only_a_search_reads_is_no_training_parameter(
    spec: PriorSpec, searched: dict[str, float]
) -> None:
    other = type(spec)(**{**spec.__dict__, **searched})
    assert other != spec
    assert other.training_params() == spec.training_params()
    one, two = spec.fit(faces(), Context()), other.fit(faces(), Context())
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_no_step_gives_the_start_weights_with_the_batch_statistics_of_z() -> None:
    spec = wgan(steps=0)
    prior, space = loaded(spec)
    start, _ = spec.nets(SHAPE, Context(seed=1).generator("init"))
    for name, parameter in start.named_parameters():
        assert torch.equal(prior[f"g.{name}"], parameter.detach().half()), name
    assert space.decode(space.start(streams(64))).std() > 1e-3
    assert not torch.equal(
        prior["g.project.1.running_var"], torch.ones_like(prior["g.project.1.running_var"])
    )


@pytest.mark.parametrize(
    ("spec", "tolerance"),
    [
        (wgan(steps=80, n_critic=3, batch=8, lr=2e-3, ema=0.9), 0.1),
        (style(steps=150, batch=8, lr=1e-2, ema_images=80), 0.1),
        (clipped(steps=150, n_critic=3, batch=8, lr=5e-3, clip=0.05, ema=0.9), 0.15),
    ],
    ids=NAMES,
)
def test_a_world_of_one_gray_image_is_learned(spec: PriorSpec, tolerance: float) -> None:
    gray = torch.full((8, *SHAPE), 0.85)
    untrained = type(spec)(**{**spec.__dict__, "steps": 0}).fit(gray, Context())
    errors = []
    for prior in (untrained, spec.fit(gray, Context())):
        space = spec.load(prior, SHAPE, Context())
        errors.append(float((space.decode(space.start(streams(64))) - 0.85).abs().mean()))
    assert errors[1] < tolerance < 0.2 < errors[0]


@pytest.mark.parametrize("spec", [wgan(lr=1e38), style(lr=1e38)], ids=["wgan", "style"])
def test_a_training_that_diverges_is_an_error(spec: PriorSpec) -> None:
    with pytest.raises(TrainingError, match="GAN"):
        spec.fit(faces(), Context())


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [
        (wgan, "batch", 0),
        (wgan, "steps", -1),
        (wgan, "decay", 1.5),
        (wgan, "clamp", 0.0),
        (clipped, "clip", 0.0),
        (clipped, "n_critic", 0),
        (style, "r1_every", 0),
        (style, "kappa", -1.0),
    ],
)
def test_a_field_out_of_range_is_named(make: Callable[..., PriorSpec], field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must .* got {value}"):
        make(**{field: value})
