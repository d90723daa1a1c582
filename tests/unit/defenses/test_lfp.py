"""Poison for a share of the queries: how many, which, and what becomes of their labels."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import RECIPE, toy_world
from mibench.defense import DefenderView
from mibench.noise import mix
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import accuracy

poison_of: Any = importlib.import_module("mibench.defenses._poison")
SURROGATE = {"width": 4, "epochs": 5, "batch": 16, "lr": 3e-3}
ALIGN = {"steps": 5, "queries": 48, "batch": 16}
SELECT = ["hash", "gradient", "gain"]


def lfp(**params: Any) -> Any:
    return get_defense("lfp").from_params({"surrogate": SURROGATE, "align": ALIGN, **params})


def view() -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )


@cache
def state_of(select: str, rate: float) -> dict[str, Tensor]:
    learned: dict[str, Tensor] = lfp(select=select, rate=rate).learn_output(
        toy_world().net, view(), Context(seed=1)
    )
    return learned


def poison(one: Any, state: dict[str, Tensor]) -> Any:
    return poison_of.load_poison(toy_world().net.spec, state, Context(seed=1), one.terms)


@pytest.mark.parametrize("select", ["gradient", "gain"])
@pytest.mark.parametrize("rate", [0.05, 0.25])
def test_at_most_the_rate_of_the_defenders_images_change(select: str, rate: float) -> None:
    world = toy_world()
    images = world.defender.images
    one = lfp(select=select, rate=rate)
    module = one.protect(world.net, state_of(select, rate), Context(seed=1))
    with torch.no_grad():
        changed = (module(images) != world.net(images).softmax(1)).any(1)
    assert 0 < int(changed.sum()) <= rate * len(images)


def test_the_hash_chooses_the_rate_of_all_images() -> None:
    one, rows = lfp(rate=0.1), 20000
    worth = one.worth(None, torch.zeros(rows, 4), torch.zeros(rows, 1), mix(torch.arange(rows)))
    share = float((worth > -0.1).float().mean())
    assert share == pytest.approx(0.1, abs=4 * (0.09 / rows) ** 0.5)


def test_the_largest_gradients_are_chosen() -> None:
    """The norm of an outer product is that of its factors."""
    world, one = toy_world(), lfp(select="gradient")
    made = poison(one, state_of("gradient", 0.05))
    images = world.defender.images[:5]
    with torch.no_grad():
        scores = world.net(images).softmax(1)
        worth = one.worth(made, scores, images, torch.zeros(5, dtype=torch.int64))
    seen, slopes = made.inversion.slopes(scores, images)
    for i in range(5):
        gradient = seen[i][:, None] * slopes[i][None, :]
        assert float(worth[i]) == pytest.approx(float(gradient.detach().norm()), rel=1e-4)


def test_runner_up_leads_where_it_is_exchanged() -> None:
    world, one = toy_world(), lfp(rate=1.0)
    images = world.public
    module = one.protect(world.net, state_of("hash", 1.0), Context(seed=1))
    with torch.no_grad():
        plain, released = world.net(images).softmax(1), module(images)
    assert torch.equal(released.argmax(1), plain.topk(2).indices[:, 1])
    assert torch.allclose(released.sum(1), torch.ones(len(images)), atol=1e-5)
    assert float(released.min()) >= 0


def test_free_labels_are_moved_within_the_budget_and_may_change() -> None:
    world, one = toy_world(), lfp(rate=1.0, flip="free", budget=0.4)
    images = torch.cat([world.public, world.defender.images])
    made = poison(one, state_of("hash", 1.0))
    with torch.no_grad():
        plain = world.net(images).softmax(1)
        moved = one.turned(made, plain, images, mix(torch.arange(len(images))))
    assert float((moved - plain).abs().max()) <= 0.4 + 1e-5
    after, before = (float(made.misaligned(s, images).detach().mean()) for s in (moved, plain))
    assert after < before
    assert bool((moved.argmax(1) != plain.argmax(1)).any())


@pytest.mark.parametrize("select", SELECT)
def test_accuracy_falls_by_about_the_rate_at_most(select: str) -> None:
    world, rate = toy_world(), 0.25
    module = lfp(select=select, rate=rate).protect(world.net, state_of(select, rate), Context(seed=1))
    lost = accuracy(world.net, world.defender) - accuracy(module, world.defender)
    # the hash chooses each image by itself; the thresholds are those of these very images
    slack = 3 * (rate * (1 - rate) / len(world.defender)) ** 0.5 if select == "hash" else 0.0
    assert lost <= rate + slack + 1e-6


def test_the_choice_repeats_itself() -> None:
    world, x = toy_world(), toy_world().public
    module = lfp(rate=0.25).protect(world.net, state_of("hash", 0.25), Context(seed=1))
    with torch.no_grad():
        first, again, turned = module(x), module(x), module(x.flip(0)).flip(0)
        changed = (first != world.net(x).softmax(1)).any(1)
    assert torch.equal(first, again)
    assert torch.allclose(first, turned, atol=1e-5)
    assert 0 < int(changed.sum()) < len(x)


@pytest.mark.parametrize(("field", "value"), [("rate", 1.5), ("budget", -0.1)])
def test_wrong_fields_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"lfp: {field} must"):
        lfp(**{field: value})
