"""Scores drawn anew between their neighbors: the order stays, the budget says how near they stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.noise import mix
from mibench.registry import get_defense


def one_parameter(**params: Any) -> Any:
    return get_defense("one_parameter").from_params(params)


def keys(rows: int) -> Tensor:
    return mix(torch.arange(rows))


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("sharp", [0.1, 2.0, 15.0])
def test_ranks_stay_for_every_input(epsilon: float, sharp: float) -> None:
    scores = (sharp * torch.randn(300, 20, generator=torch.Generator().manual_seed(0))).softmax(1)
    moved = one_parameter(epsilon=epsilon).redraw(scores, keys(300))
    order = scores.argsort(dim=1, descending=True, stable=True)
    assert bool((moved.gather(1, order).diff(dim=1) <= 0).all())
    assert torch.equal(moved.argmax(1), scores.argmax(1))
    assert torch.allclose(moved.sum(1), torch.ones(300), atol=1e-5)
    assert not torch.allclose(moved, scores, atol=1e-3)


def test_values_come_from_their_own_intervals() -> None:
    """(0.6, 0.3, 0.1) splits [0, 1] at 0.45 and 0.2; one level takes the middles 0.725, 0.325, 0.1."""
    scores = torch.tensor([[0.3, 0.6, 0.1]])
    moved = one_parameter(levels=1).redraw(scores, keys(1))
    assert torch.allclose(moved, torch.tensor([[0.325, 0.725, 0.1]]) / 1.15)


def test_chances_are_those_of_the_exponential_mechanism() -> None:
    """Each pair of levels is drawn as often as the two chances multiply to."""
    scores = torch.tensor([[0.6, 0.4]]).repeat(20000, 1)
    epsilon = 10.0
    moved = one_parameter(epsilon=epsilon, levels=2).redraw(scores, keys(20000))
    ratio = moved[:, 0] / moved[:, 1]
    # upper interval [0.5, 1]: levels 0.625, 0.875; lower one [0, 0.5]: levels 0.125, 0.375
    chance = torch.tensor([-epsilon / 2 * 0.025, -epsilon / 2 * 0.275]).softmax(0)
    below = torch.tensor([-epsilon / 2 * 0.275, -epsilon / 2 * 0.025]).softmax(0)
    for i, upper in enumerate((0.625, 0.875)):
        for j, lower in enumerate((0.125, 0.375)):
            share = float(((ratio - upper / lower).abs() < 1e-3).float().mean())
            assert share == pytest.approx(float(chance[i] * below[j]), abs=0.015)


def test_a_larger_budget_stays_nearer() -> None:
    scores = (2 * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))).softmax(1)
    gaps = [
        float((one_parameter(epsilon=epsilon).redraw(scores, keys(500)) - scores).abs().sum(1).mean())
        for epsilon in (0.0, 10.0, 100.0)
    ]
    assert gaps[0] > gaps[1] > gaps[2]


def test_equal_scores_keep_the_first_label() -> None:
    scores = torch.full((1, 8), 1 / 8)
    assert torch.equal(one_parameter().redraw(scores, keys(1)).argmax(1), scores.argmax(1))


@pytest.mark.parametrize("wrong", [{"epsilon": -1.0}, {"levels": 0}])
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"one_parameter: {field} must be >="):
        one_parameter(**wrong)
