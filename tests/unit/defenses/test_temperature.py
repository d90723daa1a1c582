"""Temperature: values by hand, the way back to the logits, and a label that stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import RECIPE, toy_world
from mibench.defense import DefenderView
from mibench.plugin import Context
from mibench.registry import get_defense


def temperature(value: float) -> Any:
    return get_defense("temperature").from_params({"temperature": value})


def some_logits(rows: int = 200, classes: int = 7) -> Tensor:
    return 4.0 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("value", "wanted"), [(1.0, [9 / 12, 1 / 12, 2 / 12]), (2.0, [3.0, 1.0, 2**0.5]), (0.5, [81.0, 1.0, 4.0])]
)
def test_by_hand(value: float, wanted: list[float]) -> None:
    """Logits log 9, log 1 and log 2: probabilities are in proportion to their powers of 1 / T."""
    got = temperature(value).soften(torch.tensor([[9.0, 1.0, 2.0]]).log())
    assert torch.allclose(got, torch.tensor([wanted]) / sum(wanted), atol=1e-6)


def test_a_hot_release_is_nearly_uniform_and_a_cold_one_is_the_label_alone() -> None:
    logits = some_logits()
    assert torch.allclose(temperature(1e6).soften(logits), torch.full_like(logits, 1 / 7), atol=1e-5)
    cold = temperature(1e-6).soften(logits)
    assert torch.equal(cold, torch.nn.functional.one_hot(logits.argmax(1), 7).float())


def test_who_knows_the_temperature_takes_it_back() -> None:
    logits = some_logits()
    released = temperature(5.0).soften(logits)
    assert torch.allclose((5.0 * released.log()).log_softmax(1), logits.log_softmax(1), atol=1e-3)


@pytest.mark.parametrize("value", [1e-3, 0.5, 5.0, 1e12])
def test_the_label_alone_is_the_largest_also_where_float32_ties(value: float) -> None:
    logits = some_logits(300, 240)
    released = temperature(value).soften(logits)
    assert torch.equal(released.argmax(1), logits.argmax(1))
    assert bool((released.topk(2).values.diff(dim=1) < 0).all())
    assert torch.allclose(released.sum(1), torch.ones(300), atol=1e-5)


def test_gradients_are_those_of_the_softened_release() -> None:
    logits = some_logits(5).requires_grad_(True)
    released = temperature(5.0).soften(logits)
    (slope,) = torch.autograd.grad(released[:, 0].sum(), logits)
    p = released.detach()
    unit = torch.nn.functional.one_hot(torch.zeros(5, dtype=torch.int64), 7)
    assert torch.allclose(slope, p[:, :1] * (unit - p) / 5.0, atol=1e-6)


def test_the_distortion_is_on_record_and_no_label_flips() -> None:
    world, ctx = toy_world(), Context()
    view = DefenderView(
        private_train=world.private,
        public=world.defender,
        targets=torch.arange(4),
        recipe=RECIPE,
    )
    assert temperature(5.0).learn_output(world.net, view, ctx) == {}
    assert ctx.notes["temperature_flipped"] == 0
    assert 0 < ctx.notes["temperature_linf"] <= ctx.notes["temperature_l1"]


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_wrong_temperatures_are_named(value: float) -> None:
    one = get_defense("temperature")
    with pytest.raises(ValueError, match="temperature: temperature must be finite and > 0"):
        one(temperature=value)  # type: ignore[call-arg]  # JSON has no such numbers
