"""Gradient alignment: closed forms, a budget that holds, and a generator that learns it."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.contract.toy import RECIPE, toy_world
from mibench.defense import DefenderView
from mibench.nets.inversion_net import InversionNet
from mibench.noise import mix
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.victim import freeze

poison_of: Any = importlib.import_module("mibench.defenses._poison")
surrogates: Any = importlib.import_module("mibench.defenses._surrogate")
SURROGATE = {"width": 4, "epochs": 10, "batch": 16, "lr": 3e-3}
ALIGN = {"steps": 10, "queries": 48, "batch": 16}


def lpa(**params: Any) -> Any:
    return get_defense("lpa").from_params({"surrogate": SURROGATE, "align": ALIGN, **params})


def view() -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )


def linear(matrix: Tensor) -> Any:
    """The inversion model I(s) = A s, cut behind its only layer, whose weights (K, M) are A transposed."""
    return poison_of.Inversion(lambda scores: scores, matrix.T.contiguous(), lambda hidden: hidden)


def random_scores(rows: int, classes: int = 5, seed: int = 0) -> Tensor:
    return (2 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))).softmax(1)


def linear_poison(budget: float = 0.05, norm: str = "inf", **align: Any) -> tuple[Any, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    matrix, goal = torch.randn(7, 5, generator=generator), torch.randn(5, 7, generator=generator)
    how = poison_of.Alignment(**{"steps": 40, **align})
    terms = poison_of.Terms(how=how, surrogate=surrogates.Surrogate(), budget=budget, norm=norm)
    images = torch.randn(200, 7, generator=generator)
    return poison_of.Poison(linear(matrix), goal, terms), random_scores(200), images


@cache
def learned(mode: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    ctx = Context(seed=1)
    return lpa(mode=mode).learn_output(toy_world().net, view(), ctx), ctx.notes


def test_gradient_of_a_linear_inversion_is_the_closed_form() -> None:
    """The gradient of |A s - x|^2 in A is 2 (A s - x) s^T; it is held as its two factors."""
    generator = torch.Generator().manual_seed(0)
    matrix, scores = torch.randn(7, 5, generator=generator), random_scores(1)
    x, goal = torch.randn(1, 7, generator=generator), torch.randn(5, 7, generator=generator)
    seen, slopes = linear(matrix).slopes(scores, x)
    expected = 2 * (matrix @ scores[0] - x[0])[:, None] * scores
    assert torch.allclose(slopes.T @ seen, expected, atol=1e-5)
    loss = poison_of.misalignment(seen, slopes, goal)
    cosine = (expected * goal.T).sum() / (expected.norm() * goal.norm())
    assert float(loss.detach()) == pytest.approx(1 - float(cosine), abs=1e-5)


def test_misalignment_runs_from_zero_to_two() -> None:
    generator = torch.Generator().manual_seed(0)
    seen, slopes = torch.randn(1, 5, generator=generator), torch.randn(1, 7, generator=generator)
    goal = seen.T @ slopes
    for measure in (poison_of.misalignment, poison_of.joint_misalignment):
        assert float(measure(seen, slopes, 3 * goal)) == pytest.approx(0.0, abs=1e-6)
        assert float(measure(seen, slopes, -goal)) == pytest.approx(2.0, abs=1e-6)
    many = poison_of.misalignment(
        torch.randn(500, 5, generator=generator), torch.randn(500, 7, generator=generator), goal
    )
    assert float(many.min()) >= 0
    assert float(many.max()) <= 2
    assert float(poison_of.misalignment(torch.zeros(1, 5), slopes, goal)) == 1.0


def test_rows_and_company_agree_on_a_single_row() -> None:
    poison, scores, images = linear_poison()
    for i in range(5):
        one = poison.misaligned(scores[i : i + 1], images[i : i + 1])
        assert torch.allclose(one, poison.misaligned(scores[i : i + 1], images[i : i + 1], joint=True))


def test_the_cut_network_is_the_network_and_its_gradient_that_of_the_first_layer() -> None:
    how = surrogates.Surrogate(width=4)
    torch.manual_seed(0)
    decoder = InversionNet(num_classes=5, width=4, size=16, channels=3)
    scores, images = random_scores(3), torch.rand(3, 3, 16, 16)
    freeze(decoder)
    cut = poison_of.cut_behind_first(decoder, how)
    log_p = scores.log()
    assert torch.allclose(cut.draw(cut.prepare(scores) @ cut.first), decoder(how.prepare(log_p)), atol=1e-5)
    first = decoder.layers[0]
    assert isinstance(first, nn.ConvTranspose2d)
    first.weight.requires_grad_(True)
    error = (decoder(how.prepare(log_p)) - images).square().sum()
    (expected,) = torch.autograd.grad(error, first.weight)
    seen, slopes = cut.slopes(scores, images)
    assert torch.allclose(seen.T @ slopes, expected.flatten(1), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("norm", "order"), [("inf", torch.inf), ("l1", 1), ("l2", 2)])
def test_aligned_vectors_keep_simplex_budget_and_label(norm: str, order: float) -> None:
    poison, scores, images = linear_poison(0.2, norm)
    label = scores.argmax(1, keepdim=True)
    moved = poison.perturb(scores, images, mix(torch.arange(200)), label)
    assert float(moved.min()) >= 0
    assert torch.allclose(moved.sum(1), torch.ones(200), atol=1e-5)
    size = torch.linalg.vector_norm(moved - scores, ord=order, dim=1)
    assert float(size.max()) <= 0.2 + 1e-5
    assert float(size.max()) > 0.15
    assert torch.equal(moved.argmax(1), scores.argmax(1))


def test_alignment_improves_and_restarts_never_worsen_it() -> None:
    poison, scores, images = linear_poison(0.2)
    keys, label = mix(torch.arange(200)), scores.argmax(1, keepdim=True)
    before = poison.misaligned(scores, images).detach()
    after = poison.misaligned(poison.perturb(scores, images, keys, label), images).detach()
    assert bool((after <= before + 1e-6).all())
    assert float((before - after).mean()) > 0.02
    many, _, _ = linear_poison(0.2, restarts=4)
    best = many.misaligned(many.perturb(scores, images, keys, label), images).detach()
    assert bool((best <= after + 1e-5).all())
    assert float((after - best).max()) > 1e-3


def test_a_random_move_of_equal_norm_aligns_less() -> None:
    """The control that a paper on aimed moves owes."""
    poison, scores, images = linear_poison(0.2, "l1")
    keys, label = mix(torch.arange(200)), scores.argmax(1, keepdim=True)
    aimed = poison.perturb(scores, images, keys, label)
    control: Any = get_defense("random_noise").from_params({"budget": 0.2, "norm": "l1"})
    loss = [
        float(poison.misaligned(moved, images).detach().mean())
        for moved in (aimed, control.disturb(scores, keys))
    ]
    assert loss[0] < loss[1] - 0.02


def test_rows_do_not_meet_unless_they_are_aligned_together() -> None:
    poison, scores, images = linear_poison(0.2)
    keys, label = mix(torch.arange(200)), scores.argmax(1, keepdim=True)
    together = poison.perturb(scores[:20], images[:20], keys[:20], label[:20])
    alone = [
        poison.perturb(scores[i : i + 1], images[i : i + 1], keys[i : i + 1], label[i : i + 1])
        for i in range(20)
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)
    joint = poison.perturb(scores[:20], images[:20], keys[:20], label[:20], joint=True)
    losses = [
        float(poison.misaligned(moved, images[:20], joint=True).detach())
        for moved in (scores[:20], together, joint)
    ]
    assert losses[2] < losses[0]
    assert losses[2] <= losses[1] + 1e-3


def test_a_zero_budget_is_the_identity() -> None:
    poison, scores, images = linear_poison(0.0)
    moved = poison.perturb(scores, images, mix(torch.arange(200)), scores.argmax(1, keepdim=True))
    assert torch.equal(moved, scores)


def test_the_goal_is_the_negated_private_gradient() -> None:
    world, how = toy_world(), surrogates.Surrogate(width=4)
    torch.manual_seed(0)
    decoder = InversionNet(num_classes=4, width=4, size=16, channels=3)
    freeze(decoder)
    cut = poison_of.cut_behind_first(decoder, how)
    images = world.private.images
    goal = poison_of.private_goal(world.net, cut, images, Context(max_batch=7))
    with torch.no_grad():
        scores = world.net(images).softmax(1)
    seen, slopes = cut.slopes(scores, images)
    assert torch.allclose(goal, -(seen.T @ slopes) / len(images), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mode", ["alignment", "vae"])
def test_what_is_released_is_aligned_better_than_the_victims_vectors(mode: str) -> None:
    world = toy_world()
    state, notes = learned(mode)
    one, x = lpa(mode=mode), world.defender.images
    poison = poison_of.load_poison(world.net.spec, state, Context(seed=1), one.terms)
    with torch.no_grad():
        plain = world.net(x).softmax(1)
        released = one.protect(world.net, state, Context(seed=1))(x)
    before, after = (float(poison.misaligned(s, x, joint=True).detach()) for s in (plain, released))
    assert after < before
    assert notes["lpa_flipped"] == 0
    assert 0 < notes["lpa_linf"] <= one.budget + 1e-6


def test_the_code_hangs_on_the_image_unless_it_is_fresh() -> None:
    world, x = toy_world(), toy_world().public[:16]
    state, _ = learned("vae")
    for fresh in (False, True):
        module = lpa(mode="vae", fresh=fresh).protect(world.net, state, Context(seed=1))
        with torch.no_grad():
            assert torch.equal(module(x), module(x)) != fresh


def test_more_rounds_train_the_network_on_poisoned_answers() -> None:
    world = toy_world()
    twice = lpa(align={**ALIGN, "rounds": 2}).learn_output(world.net, view(), Context(seed=1))
    once, _ = learned("alignment")
    assert twice.keys() == once.keys()
    assert not torch.equal(twice["goal"], once["goal"])


def test_learning_repeats_itself_and_leaves_the_global_state() -> None:
    state = torch.get_rng_state()
    again = lpa(mode="vae").learn_output(toy_world().net, view(), Context(seed=1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(again[key], value) for key, value in learned("vae")[0].items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budget": -0.1}, "lpa: budget must be >= 0"),
        ({"align": {"restarts": 0}}, "alignment: restarts must be >= 1"),
        ({"align": {"step": -1.0}}, "alignment: step must be >= 0"),
        ({"surrogate": {"width": 0}}, "surrogate: width must be >= 1"),
        ({"surrogate": {"lr": 0.0}}, "surrogate: lr must be > 0"),
        ({"vae": {"latent": 0}}, "vae: latent must be >= 1"),
        ({"vae": {"kl_weight": -1.0}}, "vae: kl_weight must be >= 0"),
        ({"vae": {"lr": 0.0}}, "vae: lr must be > 0"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lpa(**wrong)
