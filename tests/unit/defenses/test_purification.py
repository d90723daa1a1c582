"""Purification: its loss by hand, what each weight does, and labels that may change but are counted."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import RECIPE, toy_world
from mibench.defense import DefenderView, Released
from mibench.plugin import Context
from mibench.registry import get_defense

SURROGATE = {"width": 4, "epochs": 1, "batch": 16}


def purification(**params: Any) -> Any:
    small = {"epochs": 4, "batch": 16, "lr": 5e-3, "reference": "private"}
    return get_defense("purification").from_params({**small, "surrogate": SURROGATE, **params})


def view() -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )


def released(one: Any, images: Tensor, ctx: Context | None = None) -> Tensor:
    world, ctx = toy_world(), ctx or Context()
    state = one.learn_output(world.net, view(), ctx)
    with torch.no_grad():
        answer: Tensor = one.protect(world.net, state, ctx)(images)
    return answer


def plainly(images: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = Released(toy_world().net)(images)
    return answer


def test_the_defaults_are_those_of_the_re_implementation() -> None:
    one: Any = get_defense("purification")()
    assert (one.distance_weight, one.inversion_weight, one.label_weight) == (1, 1, 1)
    assert (one.hidden, one.epochs, one.lr) == (100, 20, 5e-4)
    layers = one._build(530, Context())
    shapes = [tuple(value.shape) for value in layers.parameters()]
    assert shapes == [(100, 530), (100,), (100,), (100,), (530, 100), (530,), (530,), (530,)]


@pytest.mark.parametrize(("space", "change"), [("logits", 2.0), ("probabilities", 0.25)])
def test_the_loss_by_hand(space: str, change: float) -> None:
    """Logits (log 3, 0) become (log 3 - 2, 0), or probabilities (3/4, 1/4) become (1/4, 3/4)."""
    logits = torch.tensor([[math.log(3), 0.0]])
    drawn = logits - torch.tensor([[2.0, 0.0]])
    if space == "probabilities":
        drawn = -logits
    one = purification(space=space, distance_weight=2.0, inversion_weight=3.0, label_weight=5.0)
    label = -float(drawn.log_softmax(1)[0, 0])
    wanted = 2 * change - 3 * 0.1 + 5 * label
    assert float(one.loss(drawn, logits, torch.tensor(0.1))) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("space", ["logits", "probabilities"])
def test_it_learns_to_stay_near_the_victim_and_counts_the_labels_that_change(space: str) -> None:
    images = toy_world().test.images
    short, long = Context(), Context()
    far = released(purification(space=space, epochs=1, lr=1e-5), images, short)
    near = released(purification(space=space, epochs=60), images, long)
    plain = plainly(images)
    assert float((near - plain).abs().mean()) < 0.5 * float((far - plain).abs().mean())
    assert float((near.argmax(1) == plain.argmax(1)).float().mean()) > 0.9
    assert torch.allclose(near.sum(1), torch.ones(len(near)), atol=1e-5)
    assert long.notes["purification_flipped_private"] < 0.05
    assert short.notes["purification_flipped_private"] > 0.2  # untrained, and not repaired
    assert short.notes["purification_flipped"] > 0


def test_the_error_of_the_inversion_network_is_driven_up() -> None:
    world, errors = toy_world(), []
    images = world.defender.images
    surrogate = {"width": 4, "epochs": 20, "batch": 16, "lr": 3e-3}
    for weight in (0.0, 1e4):
        one = purification(inversion_weight=weight, surrogate=surrogate, reference="public", epochs=20)
        answers = released(one, images)
        draw = one._drawer(
            world.net, images, Context()
        )  # the network that it was trained against, made again
        with torch.no_grad():
            errors.append(float((draw(answers.clamp_min(1e-12).log()) - images).square().mean()))
    assert errors[1] > 1.2 * errors[0]


def test_no_inversion_network_is_trained_without_weight() -> None:
    ctx = Context()
    released(purification(inversion_weight=0.0), toy_world().test.images, ctx)
    assert "purification_error" not in ctx.notes
    assert {"purification_loss", "purification_flipped", "purification_l1"} <= ctx.notes.keys()


def test_a_share_mixes_the_victims_vector_in() -> None:
    images = toy_world().test.images
    whole, half = released(purification(), images), released(purification(share=0.5), images)
    assert torch.allclose(half, (plainly(images) + whole) / 2, atol=1e-5)


def test_gradients_pass_through_the_autoencoder() -> None:
    world, one = toy_world(), purification(epochs=10)
    module = one.protect(world.net, one.learn_output(world.net, view(), Context()), Context())
    images = world.test.images[:3].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(module(images)[:, 0].sum(), images)
    (straight,) = torch.autograd.grad(Released(world.net)(images)[:, 0].sum(), images)
    assert float(slope.abs().max()) > 0
    assert not torch.allclose(slope, straight, rtol=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 1},
        {"hidden": 0},
        {"share": 1.5},
        {"label_weight": -1.0},
        {"inversion_weight": -0.1},
        {"lr": 0.0},
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"purification: {field} must"):
        purification(**wrong)
