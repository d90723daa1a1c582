"""The control: random directions, a given norm, a kept label."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.noise import mix
from mibench.registry import get_defense


def random_noise(**params: Any) -> Any:
    return get_defense("random_noise").from_params(params)


def random_scores(rows: int, sharp: float, classes: int = 40) -> Tensor:
    return (sharp * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))).softmax(1)


def keys(rows: int) -> Tensor:
    return mix(torch.arange(rows))


@pytest.mark.parametrize(("norm", "order"), [("inf", torch.inf), ("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("sharp", [0.1, 2.0, 20.0])
def test_the_norm_is_the_budget_and_the_label_stays(norm: str, order: float, sharp: float) -> None:
    scores = random_scores(200, sharp)
    moved = random_noise(budget=0.1, norm=norm).disturb(scores, keys(200))
    size = torch.linalg.vector_norm(moved - scores, ord=order, dim=1)
    assert float(size.max()) <= 0.1 + 1e-5
    room = 1 if norm == "l1" or sharp > 1 else 0.5  # nearly even vectors have little room in one entry
    assert float((size > 0.099).float().mean()) >= room * 0.95
    assert torch.equal(moved.argmax(1), scores.argmax(1))
    assert float(moved.min()) >= 0
    assert torch.allclose(moved.sum(1), torch.ones(200), atol=1e-5)


def test_rows_move_in_directions_of_their_own() -> None:
    scores = random_scores(1, 1.0).repeat(50, 1)
    moved = random_noise(budget=0.1).disturb(scores, keys(50)) - scores
    directions = moved / moved.norm(dim=1, keepdim=True)
    cosines = (directions @ directions.T)[~torch.eye(50, dtype=torch.bool)]
    assert float(cosines.max()) < 0.95
    assert len({tuple(row.tolist()) for row in moved}) == 50


def test_a_budget_that_cannot_be_spent_is_spent_as_far_as_it_goes() -> None:
    scores = random_scores(50, 1.0, classes=3)
    moved = random_noise(budget=5.0).disturb(scores, keys(50))
    assert float(moved.min()) >= 0
    assert torch.allclose(moved.sum(1), torch.ones(50), atol=1e-5)
    assert torch.equal(moved.argmax(1), scores.argmax(1))


def test_a_wrong_budget_is_named() -> None:
    with pytest.raises(ValueError, match="random_noise: budget must be >= 0"):
        random_noise(budget=-1.0)
