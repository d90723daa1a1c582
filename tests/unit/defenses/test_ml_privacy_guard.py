"""Laplace, Student and Cauchy noise: their laws, what averages do to them, and the calibrated scale."""

from __future__ import annotations

import math
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

ROWS = 4000


def guard(**params: Any) -> Any:
    return get_defense("ml_privacy_guard").from_params(params)


def keys(rows: int = ROWS) -> Tensor:
    return mix(torch.arange(rows))


def test_the_variance_of_a_mean_of_laplace_noise_is_two_squares_over_the_number() -> None:
    """2 tau^2 for each entry; so a mean over n answers has 2 tau^2 / n."""
    noise = guard(noise="laplace", cut=0.0).draw(keys(), 50)
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise.var()) == pytest.approx(2.0, rel=0.05)
    means = noise.view(ROWS // 20, 20, 50).mean(1)
    assert float(means.var()) == pytest.approx(2.0 / 20, rel=0.05)


def test_means_of_cauchy_noise_do_not_settle_but_medians_do() -> None:
    noise = guard(noise="cauchy", cut=0.0).draw(keys(), 50).view(ROWS // 400, 400, 50)
    quartile = float(noise.abs().median())
    assert quartile == pytest.approx(1.0, rel=0.05)  # half of a standard Cauchy variable lies in [-1, 1]
    # a mean of 400 is as wide as one draw; a median of 400 has the deviation pi / (2 sqrt(400))
    assert float(noise.mean(1).abs().median()) == pytest.approx(1.0, rel=0.25)
    medians = noise.sort(1).values[:, 200]
    assert float(medians.square().mean().sqrt()) == pytest.approx(math.pi / 40, rel=0.15)


@pytest.mark.parametrize(("freedom", "quartile"), [(1, 1.0), (2, 0.8165), (3, 0.7649)])
def test_quartiles_of_students_t(freedom: int, quartile: float) -> None:
    """The upper quartiles of tables of the distribution; one degree of freedom is Cauchy's."""
    noise = guard(noise="student_t", freedom=freedom, cut=0.0).draw(keys(), 50)
    assert float(noise.abs().median()) == pytest.approx(quartile, rel=0.02)


def test_the_median_of_many_fresh_answers_is_the_victims() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2]]).repeat(ROWS, 1)
    answers = guard().disturb(scores, keys(), 0.02)
    assert torch.allclose(answers.median(0).values, scores[0], atol=0.01)
    assert float((answers - scores).abs().max()) > 0.3  # long tails: some answers are far off


def test_what_comes_out_lies_on_the_simplex_however_large_the_noise() -> None:
    scores = torch.randn(ROWS, 30, generator=torch.Generator().manual_seed(0)).softmax(1)
    for noise in ("laplace", "student_t", "cauchy"):
        moved = guard(noise=noise, cut=0.0).disturb(scores, keys(), 100.0)
        assert float(moved.min()) >= 0
        assert torch.allclose(moved.sum(1), torch.ones(ROWS), atol=1e-5)


def test_the_cut_bounds_the_noise_and_the_label_can_be_kept() -> None:
    assert float(guard(cut=3.0).draw(keys(), 9).abs().max()) == 3.0
    scores = torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(0)).softmax(1)
    moved = guard(keep_label=True, error_rate=None).disturb(scores, keys(), 0.5)
    assert torch.equal(moved.argmax(1), scores.argmax(1))
    free = guard().disturb(scores, keys(), 0.5)
    assert float((free.argmax(1) != scores.argmax(1)).float().mean()) > 0.2


def test_the_scale_is_chosen_for_a_rate_of_errors() -> None:
    scores = (3 * torch.randn(ROWS, 9, generator=torch.Generator().manual_seed(0))).softmax(1)
    one = guard(error_rate=0.1)
    scale = one.calibrated(scores, keys())
    moved = one.disturb(scores, keys(), scale)
    assert float((moved.argmax(1) != scores.argmax(1)).float().mean()) == pytest.approx(0.1, abs=0.005)


def test_the_chosen_scale_is_stored_and_used() -> None:
    world = toy_world()
    view = DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )
    one, ctx = guard(error_rate=0.25), Context(seed=2)
    state = one.learn_output(world.net, view, ctx)
    assert float(state["scale"]) == ctx.notes["ml_privacy_guard_scale"]
    lost = accuracy(world.net, world.private) - accuracy(one.protect(world.net, state, ctx), world.private)
    assert 0.1 < lost <= 0.26


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": -1.0}, "scale must be >= 0"),
        ({"cut": -1.0}, "cut must be >= 0"),
        ({"freedom": 0}, "freedom must be >= 1"),
        ({"error_rate": 1.0}, "error_rate must lie in"),
        ({"error_rate": 0.1, "keep_label": True}, "error_rate = 0.1 with keep_label"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"ml_privacy_guard: {message}"):
        guard(**wrong)
