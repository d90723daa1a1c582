"""The simplex, kept labels, keyed noise, and what holds for every defense of the released vector."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.adaptive import Adaptive
from mibench.contract.toy import RECIPE, World, toy_world
from mibench.defense import DefenderView, Defense, Released
from mibench.plan import build_plan
from mibench.plugin import Context
from mibench.registry import get_defense, list_defenses
from mibench.suite import load_suite
from mibench.victim import ScoreVictim, fingerprint

simplex: Any = importlib.import_module("mibench.defenses._simplex")
OUTPUT = [name for name, plugin in list_defenses().items() if plugin.acts == "output"]
STEADY = ["rounding", "top_k", "label_only", "random_noise", "one_parameter", "lpa", "ad_mi"]  # labels stay
NOISY = ["random_noise", "ml_privacy_guard", "one_parameter", "ssd"]
SMALL: dict[str, dict[str, Any]] = {
    "lpa": {"budget": 0.3},
    "ml_privacy_guard": {"error_rate": None, "scale": 0.3},
    "ssd": {"epsilon": 1.0},
}


def defense(name: str, **params: Any) -> Defense:
    plugin = get_defense(name)
    return plugin.from_params({**plugin.toy, **SMALL.get(name, {}), **params})


def view() -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )


def deployed(one: Defense, world: World, seed: int = 0) -> Any:
    ctx = Context(seed=seed)
    return one.protect(world.net, one.learn_output(world.net, view(), ctx), ctx)


def random_scores(rows: int, classes: int = 6, *, sharp: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(rows, classes, generator=generator)).softmax(1)


@pytest.mark.parametrize("project", ["project_simplex", "project_far"])
def test_projection_by_hand(project: str) -> None:
    points = torch.tensor([[0.9, 0.3, -0.1], [2.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    expected = torch.tensor([[0.8, 0.2, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    assert torch.allclose(getattr(simplex, project)(points), expected, atol=1e-6)


def test_far_points_are_projected_as_precisely_as_near_ones() -> None:
    """A constant does not move a projection; at 1e7 float32 knows whole numbers only."""
    far = torch.tensor([[1e7, 1e7, -3e6], [2e7, 0.0, 1.0]])
    assert torch.allclose(simplex.project_far(far), torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]))
    near = 3 * torch.randn(200, 9, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(simplex.project_far(near), simplex.project_simplex(near), atol=1e-6)


def test_a_kept_label_leads_alone_and_others_are_left_alone() -> None:
    moved = torch.tensor([[0.3, 0.6, 0.1], [0.4, 0.4, 0.2], [0.7, 0.2, 0.1]])
    kept = simplex.keep_label(moved, torch.tensor([[0], [1], [0]]), margin=0.1)
    assert torch.allclose(kept[0], torch.tensor([0.7, 0.6, 0.1]) / 1.4)
    assert torch.allclose(kept[1], torch.tensor([0.4, 0.5, 0.2]) / 1.1)
    assert torch.equal(kept[2], moved[2])


@pytest.mark.parametrize("norm", ["inf", "l1", "l2"])
def test_within_keeps_budget_simplex_and_label(norm: str) -> None:
    start, moved = random_scores(300), random_scores(300, sharp=9.0, seed=1)
    label = start.argmax(1, keepdim=True)
    near = simplex.within(simplex.keep_label(moved, label), start, 0.1, norm)
    assert float(simplex.length(near - start, norm).max()) <= 0.1 + 1e-6
    assert float(near.min()) >= 0
    assert torch.allclose(near.sum(1), torch.ones(300), atol=1e-6)
    assert torch.equal(near.argmax(1), start.argmax(1))
    inside = start + 1e-4 * (moved - start)
    assert torch.equal(simplex.within(inside, start, 0.1, norm), inside)
    assert torch.equal(simplex.within(moved, start, 0.0, norm), start)


def test_norms_by_hand() -> None:
    noise = torch.tensor([[0.3, -0.4, 0.0]])
    for norm, expected in (("inf", 0.4), ("l1", 0.7), ("l2", 0.5)):
        assert float(simplex.length(noise, norm)) == pytest.approx(expected)


def test_hashes_tell_images_apart_and_forget_what_bytes_forget() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (500, 1, 3, 3), generator=generator) / 255
    keys = simplex.image_hash(images, 7)
    assert len(set(keys.tolist())) == len({tuple(x.flatten().tolist()) for x in images})
    assert torch.equal(
        simplex.image_hash(images + 0.0015, 7)[images.amax((1, 2, 3)) < 1], keys[images.amax((1, 2, 3)) < 1]
    )
    assert not bool((simplex.image_hash(images, 8) == keys).any())
    assert torch.equal(torch.cat([simplex.image_hash(x[None], 7) for x in images[:5]]), keys[:5])


def test_one_gray_level_and_the_order_of_pixels_change_the_hash() -> None:
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 2, 2) / 255
    other = x.clone()
    other[0, 0, 1, 1] += 1 / 255
    keys = [simplex.image_hash(one, 7).item() for one in (x, other, x.flip(3))]
    assert len(set(keys)) == 3


def test_streams_hang_on_the_image_or_on_the_rounded_vector() -> None:
    scores, images = random_scores(4), torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    ctx = Context(seed=3)
    by_image, by_vector = simplex.Streams(ctx), simplex.Streams(ctx, key="vector")
    assert torch.equal(by_image.of(scores, images), by_image.of(scores.flip(0), images))
    assert not bool((by_image.of(scores, images) == by_image.of(scores, images.flip(0))).any())
    assert torch.equal(
        by_vector.of(scores.round(decimals=3) + 1e-4, images),
        by_vector.of(scores.round(decimals=3), images.flip(0)),
    )
    other = simplex.Streams(Context(seed=4))
    assert not bool((other.of(scores, images) == by_image.of(scores, images)).any())


def test_fresh_streams_differ_within_a_batch_and_between_queries() -> None:
    scores, images = random_scores(1).repeat(3, 1), torch.zeros(3, 1, 2, 2)
    fresh = simplex.Streams(Context(), fresh=True)
    keys = torch.cat([fresh.of(scores, images), fresh.of(scores, images)])
    assert len(set(keys.tolist())) == 6
    again = simplex.Streams(Context(), fresh=True)
    assert torch.equal(torch.cat([again.of(scores, images), again.of(scores, images)]), keys)


def test_gradients_pass_through_any_change_and_values_are_exact() -> None:
    world = toy_world()
    x = world.test.images[:3].clone().requires_grad_(True)
    fixed = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(3, 1)
    released = simplex.Reshaped(world.net, lambda _, __: fixed)(x)
    assert torch.equal(released, fixed)
    (got,) = torch.autograd.grad(released[:, 1].sum(), x)
    (expected,) = torch.autograd.grad(world.net(x).softmax(1)[:, 1].sum(), x)
    assert torch.equal(got, expected)
    assert float(got.abs().max()) > 0


@pytest.mark.parametrize("name", OUTPUT)
def test_strength_and_neutral_name_fields(name: str) -> None:
    plugin = get_defense(name)
    fields = {field.name for field in dataclasses.fields(plugin)}
    assert plugin.strength in fields
    assert plugin.neutral is not None
    assert set(plugin.neutral) <= fields


@pytest.mark.parametrize("name", OUTPUT)
def test_the_white_box_view_is_the_undefended_net_itself(name: str) -> None:
    """With neither step of its own, a plan gives a defense the training of the undefended victim."""
    world, one = toy_world(), defense(name)
    before = fingerprint(world.net)
    assert type(one).train is Defense.train
    assert type(one).prepare is Defense.prepare
    deployed(one, world)(world.test.images)
    assert fingerprint(world.net) == before


@pytest.mark.parametrize("name", OUTPUT)
def test_what_is_released_differs_from_no_defense_and_the_change_is_on_record(name: str) -> None:
    world, one, ctx = toy_world(), defense(name), Context()
    module = one.protect(world.net, one.learn_output(world.net, view(), ctx), ctx)
    with torch.no_grad():
        plain, released = (m(world.defender.images) for m in (Released(world.net), module))
    assert not torch.equal(plain, released)
    if name != "ad_mi":  # its records of earlier releases stay as they are
        gap = (released - plain).abs()
        assert ctx.notes[f"{name}_l1"] == pytest.approx(float(gap.sum(1).mean()), rel=1e-3)
        assert ctx.notes[f"{name}_linf"] == pytest.approx(float(gap.amax(1).mean()), rel=1e-3)
        flipped = float((released.argmax(1) != plain.argmax(1)).float().mean())
        assert ctx.notes[f"{name}_flipped"] == pytest.approx(flipped)


@pytest.mark.parametrize("name", STEADY)
def test_labels_stay(name: str) -> None:
    world = toy_world()
    images = torch.cat([world.test.images, world.public, world.defender.images])
    module = deployed(defense(name), world)
    with torch.no_grad():
        released = module(images)
        assert torch.equal(released.argmax(1), world.net(images).argmax(1))
        assert torch.allclose(released.sum(1), torch.ones(len(images)), atol=1e-5)
        assert float(released.min()) >= 0


@pytest.mark.parametrize("name", NOISY)
def test_repeats_hear_the_same_unless_noise_is_fresh(name: str) -> None:
    world = toy_world()
    x = world.public[:16]
    keyed, fresh = deployed(defense(name), world), deployed(defense(name, fresh=True), world)
    with torch.no_grad():
        assert torch.equal(keyed(x), keyed(x))
        assert torch.equal(keyed(x), keyed(x.flip(0)).flip(0))
        assert not torch.equal(fresh(x), fresh(x))


@pytest.mark.parametrize("name", NOISY)
def test_the_secret_hangs_on_the_seed_and_the_global_state_is_left(name: str) -> None:
    world = toy_world()
    x = world.public[:16]
    state = torch.get_rng_state()
    with torch.no_grad():
        one, other = (deployed(defense(name), world, seed)(x) for seed in (0, 1))
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", [*NOISY, "lpa", "lfp"])
def test_fresh_noise_is_another_weakness(name: str) -> None:
    assert defense(name).weaknesses == {"keyed_noise"}
    assert defense(name, fresh=True).weaknesses == {"fresh_noise"}


def test_the_plan_meets_fresh_noise_with_repeats_and_keyed_noise_with_views(tmp_path: Path) -> None:
    lines = [
        'name = "toy"\nmetrics = ["aa"]',
        "[data]\nprivate = 3\nprivate_images = 4\ntest_images = 2",
        "public = 4\npublic_images = 2\ndefender = 2\ndefender_images = 2",
        "[targets]\nprotected = 1\nbystanders = 1\nattacked = 2\nimages = 2",
        '[victim]\nnet = "mlp"\nwidth = 8\n[judge]\nnet = "softmax_regression"',
        '[attacks.ami]\nadaptive = "auto"\n[defenses.random_noise]\n[defenses.new]\nplugin = "random_noise"\n'
        "fresh = true",
    ]
    file = tmp_path / "toy.toml"
    file.write_text("\n".join(lines))
    met = [cell.attack.plugin.adaptive for cell in build_plan(load_suite(file)).cells]
    keyed, fresh = met
    assert isinstance(keyed, Adaptive)
    assert isinstance(fresh, Adaptive)
    assert (keyed.repeats, keyed.views > 1) == (1, True)
    assert (fresh.repeats > 1, fresh.views) == (True, 1)


def test_repeats_average_fresh_noise_out_and_leave_keyed_noise() -> None:
    world = toy_world()
    x = world.public[:16]
    with torch.no_grad():
        clean = Released(world.net)(x)
    errors = {}
    for fresh in (False, True):
        module = deployed(defense("random_noise", fresh=fresh), world)
        victim = ScoreVictim(module, shape=(3, 16, 16), num_classes=4)
        answers = torch.stack([victim.scores(x) for _ in range(64)])
        errors[fresh] = [float((one - clean).abs().sum(1).mean()) for one in (answers[0], answers.mean(0))]
    assert errors[False][0] == pytest.approx(errors[False][1], rel=1e-4)
    assert errors[True][1] < 0.7 * errors[True][0]  # what is left is the pull of the simplex's border
