"""Rounding to a grid: idempotent, by hand, and with a label that stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.registry import get_defense


def rounding(step: float) -> Any:
    return get_defense("rounding").from_params({"step": step})


def random_scores(rows: int, classes: int, sharp: float) -> Tensor:
    return (sharp * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))).softmax(1)


def test_by_hand() -> None:
    one = rounding(0.1)
    steps = one.steps_of(torch.tensor([[0.44, 0.33, 0.23]]))
    assert torch.equal(steps, torch.tensor([[4.0, 3.0, 2.0]]))
    assert torch.allclose(one.normalized(steps), torch.tensor([[4.0, 3.0, 2.0]]) / 9)


@pytest.mark.parametrize("step", [0.5, 0.1, 0.01, 0.001])
def test_rounding_again_changes_nothing(step: float) -> None:
    one = rounding(step)
    steps = one.steps_of(random_scores(200, 7, 2.0))
    assert torch.equal(one.steps_of(steps * step), steps)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("sharp", [0.01, 1.0, 8.0])
def test_the_label_leads_also_in_ties_and_where_all_rounds_to_zero(step: float, sharp: float) -> None:
    one, scores = rounding(step), random_scores(300, 240, sharp)
    released = one.normalized(one.steps_of(scores))
    assert torch.equal(released.argmax(1), scores.argmax(1))
    assert bool((released.topk(2).values.diff(dim=1) < 0).all())
    assert torch.allclose(released.sum(1), torch.ones(300), atol=1e-5)


def test_the_label_leads_in_ties_of_the_finest_step_too() -> None:
    scores = torch.tensor([[0.5, 0.5], [0.5 - 2**-24, 0.5 + 2**-24], [1.0, 0.0]])
    released = rounding(1e-6).normalized(rounding(1e-6).steps_of(scores))
    assert torch.equal(released.argmax(1), scores.argmax(1))
    assert bool((released.amax(1) > released.amin(1)).all())


def test_a_step_below_a_score_is_taken_from_it_by_half_a_step_at_most() -> None:
    scores = random_scores(200, 7, 2.0)
    steps = rounding(0.01).steps_of(scores)
    label = scores.argmax(1, keepdim=True)
    gap = (steps * 0.01 - scores).abs().scatter(1, label, 0.0)
    assert float(gap.max()) <= 0.005 + 1e-6


@pytest.mark.parametrize("step", [-0.1, 1e-9, 1.5])
def test_wrong_steps_are_named(step: float) -> None:
    with pytest.raises(ValueError, match="rounding: step must be 0 or lie in"):
        rounding(step)
