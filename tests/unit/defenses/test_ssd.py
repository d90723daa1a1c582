"""Water levels by hand and against a brute-force search; class means; the draw of the class."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import RECIPE, toy_world
from mibench.noise import mix
from mibench.plugin import Context
from mibench.registry import get_defense

module: Any = importlib.import_module(get_defense("ssd").__module__)


def ssd(**params: Any) -> Any:
    return get_defense("ssd").from_params(params)


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def divergence(p: Tensor, q: Tensor) -> Tensor:
    nats: Tensor = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)
    return nats


def test_water_filling_by_hand() -> None:
    moved = module.nearest_within(row(0.7, 0.2, 0.1), row(0.5, 0.25, 0.25), row(0.2))
    assert torch.allclose(moved, row(0.6, 0.2, 0.2))


def test_no_budget_moves_nothing_and_a_large_one_reaches_the_goal() -> None:
    f, q = row(0.7, 0.2, 0.1), row(0.5, 0.25, 0.25)
    assert torch.allclose(module.nearest_within(f, q, row(0.0)), f)
    assert torch.equal(module.nearest_within(f, q, row(0.4001)), q)


def test_nothing_nearer_lies_within_the_budget() -> None:
    """Against a fine grid over the simplex of three classes."""
    ticks = torch.linspace(0, 1, 201)
    grid = torch.cartesian_prod(ticks, ticks)
    grid = grid[grid.sum(1) <= 1]
    grid = torch.cat([grid, 1 - grid.sum(1, keepdim=True)], dim=1).clamp_min(0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        f, q = (2 * torch.randn(2, 1, 3, generator=generator)).softmax(2)
        moved = module.nearest_within(f, q, row(0.3))
        assert float((moved - f).abs().sum()) <= 0.3 + 1e-5
        near = grid[(grid - f).abs().sum(1) <= 0.3]
        assert float(divergence(moved, q)) <= float(divergence(near, q).min()) + 1e-6


def test_half_of_the_budget_moves_up_and_half_down() -> None:
    generator = torch.Generator().manual_seed(1)
    f, q = (3 * torch.randn(2, 100, 12, generator=generator)).softmax(2)
    budget = torch.full((100, 1), 0.2)
    moved = module.nearest_within(f, q, budget)
    far = (f - q).abs().sum(1) > 0.2
    change = (moved - f)[far]
    assert torch.allclose(change.clamp_min(0).sum(1), torch.full((int(far.sum()),), 0.1), atol=1e-5)
    assert float(moved.min()) >= 0
    assert torch.allclose(moved.sum(1), torch.ones(100), atol=1e-6)


def test_sure_vectors_stay_whatever_the_budget() -> None:
    """Their entropy is 0, and with it the budget."""
    scores, means = torch.eye(3), torch.full((3, 3), 1 / 3)
    assert torch.allclose(ssd(epsilon=5.0).shield(scores, means, mix(torch.arange(3))), scores)


def test_the_class_is_drawn_by_a_softmax_of_the_probabilities() -> None:
    scores = row(0.7, 0.3).repeat(20000, 1)
    means = torch.tensor([[0.99, 0.01], [0.01, 0.99]])
    moved = ssd(epsilon=0.2, temperature=0.5).shield(scores, means, mix(torch.arange(20000)))
    up = float((moved[:, 0] > 0.7).float().mean())
    assert up == pytest.approx(float((torch.tensor([0.7, 0.3]) / 0.5).softmax(0)[0]), abs=0.01)


def test_class_means_are_means_of_each_class_and_positive() -> None:
    world = toy_world()
    means = ssd(views=0).class_means(world.net, world.private, RECIPE, Context())
    with torch.no_grad():
        scores = world.net(world.private.images).softmax(1)
    for label in range(4):
        expected = scores[world.private.labels == label].mean(0)
        assert torch.allclose(means[label], expected, atol=1e-5)
    seen = ssd(views=3).class_means(world.net, world.private, RECIPE, Context())
    entropy = [torch.special.entr(one).sum(1).mean() for one in (means, seen)]
    assert float(entropy[1]) > float(entropy[0])  # views blunt what training made sharp
    few = ssd(views=0).class_means(world.net, world.private.of(1), RECIPE, Context())
    assert torch.allclose(few[0], torch.full((4,), 0.25))


@pytest.mark.parametrize("wrong", [{"epsilon": -1.0}, {"views": -1}, {"temperature": 0.0}])
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"ssd: {field} must be >"):
        ssd(**wrong)
