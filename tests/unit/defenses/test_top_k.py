"""The k largest probabilities, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mibench.registry import get_defense


def top_k(k: int) -> Any:
    return get_defense("top_k").from_params({"k": k})


def test_by_hand() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    assert torch.allclose(top_k(2).cut(scores), torch.tensor([[0.0, 4.0, 0.0, 3.0]]) / 7)
    assert torch.equal(top_k(1).cut(scores), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    assert top_k(4).cut(scores) is scores


def test_the_label_is_kept_where_others_tie_with_it() -> None:
    scores = torch.full((1, 50), 1 / 50)
    for k in (1, 3, 20):
        released = top_k(k).cut(scores)
        assert int((released > 0).sum()) == k
        assert torch.equal(released.argmax(1), scores.argmax(1))


def test_the_order_of_what_is_left_stays() -> None:
    scores = torch.randn(200, 30, generator=torch.Generator().manual_seed(0)).softmax(1)
    released = top_k(5).cut(scores)
    assert torch.equal(released.topk(5).indices, scores.topk(5).indices)
    assert torch.allclose(released.sum(1), torch.ones(200), atol=1e-6)
    assert int((released > 0).sum(1).max()) == 5


def test_a_wrong_k_is_named() -> None:
    with pytest.raises(ValueError, match="top_k: k must be >= 0, got -1"):
        top_k(-1)
