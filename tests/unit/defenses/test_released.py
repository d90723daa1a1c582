"""What every defense of the released vector owes for any vector: the simplex, and the label where claimed."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mibench.contract.toy import PEOPLE, RECIPE, toy_world
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.registry import get_defense, list_defenses
from mibench.victim import freeze

OUTPUT = [name for name, plugin in list_defenses().items() if plugin.acts == "output"]
ROWS = 12
# options beside the toy ones under which the release takes another way
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "ad_mi": ({"space": "simplex"}, {"budget": 0.3, "step_size": 5.0}),
    "label_only": ({"confidence": 0.1}, {"weight": 0.5}),
    "lfp": ({"rate": 1.0}, {"rate": 1.0, "flip": "free"}),
    "lpa": ({"mode": "vae", "budget": 1.0}, {"budget": 1.0, "norm": "l1"}),
    "ml_privacy_guard": ({"error_rate": None, "scale": 50.0}, {"noise": "laplace"}),
    "one_parameter": ({"epsilon": 0.0, "levels": 2}, {"key": "vector"}),
    "purification": ({"space": "probabilities"}, {"share": 0.5}),
    "purifier": ({"mode": "autoencoder"}, {"weight": 0.5}),
    "random_noise": ({"budget": 2.0}, {"norm": "inf", "budget": 0.01, "key": "vector"}),
    "rounding": ({"step": 1.0}, {"step": 0.001}),
    "ssd": ({"epsilon": 50.0}, {"temperature": 10.0}),
    "temperature": ({"temperature": 0.01}, {"temperature": 1e4}),
    "top_k": ({"k": 1}, {"k": 2}),
}
CASES = [(name, way) for name in OUTPUT for way in ({}, *WAYS.get(name, ()))]


@cache
def learned(name: str, way: str) -> tuple[Defense, State]:
    """The defense with its toy settings and what it learns in the toy world, once for all examples."""
    plugin, world = get_defense(name), toy_world()
    defense = plugin.from_params({**plugin.toy, **json.loads(way)})
    view = DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(PEOPLE), recipe=RECIPE
    )
    return defense, defense.learn_output(world.net, view, Context())


def sharpened(factor: float) -> Classifier:
    """The toy victim with logits of any size: equal scores at 0, one-hot ones where float32 ends."""
    net = copy.deepcopy(toy_world().net)
    head = net.head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.mul_(factor)
        head.bias.mul_(factor)
    freeze(net)
    return net


def images_of(seed: int) -> Tensor:
    """Faces and noise in turn."""
    generator = torch.Generator().manual_seed(seed)
    faces = toy_world().public
    rows = torch.randint(len(faces), (ROWS // 2,), generator=generator)
    return torch.cat([faces[rows], torch.rand(faces[rows].shape, generator=generator)])


@pytest.mark.parametrize(("name", "way"), CASES, ids=lambda one: one if isinstance(one, str) else str(one))
@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 2**32), factor=st.floats(0.0, 1e3, width=32))
@example(seed=0, factor=0.0)
@example(seed=1, factor=1.0)
@example(seed=2, factor=1e5)
def test_any_vector_is_released_on_the_simplex_and_its_label_kept_where_claimed(
    name: str, way: dict[str, Any], seed: int, factor: float
) -> None:
    defense, state = learned(name, json.dumps(way))
    net, x = sharpened(factor), images_of(seed)
    module = defense.protect(net, state, Context())
    with torch.no_grad():
        released, alone = module(x), module(x[:1])
        # two logits may be equal probabilities in float32, and then either label leads
        leaders = torch.stack([net(x).argmax(1), Released(net)(x).argmax(1)])
    assert released.shape == (ROWS, PEOPLE)
    assert released.dtype == torch.float32
    assert bool(torch.isfinite(released).all())
    assert float(released.min()) >= 0
    assert torch.allclose(released.sum(1), torch.ones(ROWS), atol=1e-5)
    if defense.keeps_label:
        assert bool((released.argmax(1) == leaders).any(0).all())
        assert bool((alone.argmax(1) == leaders[:, :1]).any())


def test_the_claim_is_made_by_some_and_not_by_all() -> None:
    """Both branches above are met; who lets the label change says so by claiming nothing."""
    claims = {name for name in OUTPUT if get_defense(name).keeps_label}
    assert {
        "ad_mi",
        "label_only",
        "lpa",
        "one_parameter",
        "random_noise",
        "rounding",
        "temperature",
    } <= claims
    assert claims.isdisjoint({"lfp", "ml_privacy_guard", "purification", "purifier", "ssd"})
