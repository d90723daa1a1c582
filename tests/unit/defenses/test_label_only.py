"""One vector for each label."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mibench.registry import get_defense


def label_only(**params: Any) -> Any:
    return get_defense("label_only").from_params(params)


def test_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.3, 0.1]])
    assert torch.equal(label_only().blunt(scores), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    fixed = label_only(confidence=0.8).blunt(scores)
    assert torch.allclose(fixed, torch.tensor([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]]))
    half = label_only(weight=0.5).blunt(scores)
    assert torch.allclose(half, torch.tensor([[0.05, 0.75, 0.2], [0.8, 0.15, 0.05]]))


def test_all_images_of_a_label_are_answered_alike() -> None:
    scores = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)).softmax(1)
    released = label_only(confidence=0.9).blunt(scores)
    assert len({tuple(row.tolist()) for row in released}) == 5
    assert torch.equal(released.argmax(1), scores.argmax(1))


def test_a_label_leads_also_with_a_confidence_below_chance() -> None:
    scores = torch.randn(50, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    released = label_only(confidence=0.01).blunt(scores)
    assert torch.equal(released.argmax(1), scores.argmax(1))


@pytest.mark.parametrize("wrong", [{"confidence": 0.0}, {"confidence": 1.1}, {"weight": -0.1}])
def test_wrong_fields_are_named(wrong: dict[str, float]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"label_only: {field} must lie in"):
        label_only(**wrong)
