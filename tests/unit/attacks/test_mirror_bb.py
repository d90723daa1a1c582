"""Known answers of black-box Mirror: elitism, crossover, mutation, the stop and the box."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.gan import StylePrior
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import ScoreVictim

DIM = 6
Evolve = Callable[..., tuple[Any, ScoreVictim, list[Tensor]]]


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("mirror_bb").from_params(
        {"population": 6, "presamples": 20, "mutation_rate": 0.5, **options}
    )


def scores_of(function: Callable[[Tensor], Tensor]) -> tuple[ScoreVictim, list[Tensor]]:
    """A victim of cube images that answers function(x) for label 0, and all that it is asked about."""
    seen: list[Tensor] = []

    def released(x: Tensor) -> Tensor:
        seen.append(x.flatten(1).clone())
        p = function(x.flatten(1))
        return torch.stack([p, 1 - p], 1)

    return ScoreVictim(released, shape=(DIM, 1, 1), num_classes=2), seen


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def evolve(cube_prior: StylePrior) -> Evolve:
    """Evolve a population of cube latents against a victim; also the victim, and all it was asked about."""

    def run(start: Tensor, function: Callable[[Tensor], Tensor], **options: Any) -> Any:
        victim, seen = scores_of(function)
        attack = attack_of(**{"population": len(start), "presamples": len(start), **options})
        attack = dataclasses.replace(attack, prior=cube_prior)
        got = attack.invert(victim, {"starts": start[None]}, torch.tensor([0]), Context(seed=3))
        return got, victim, seen

    return run


def hill(x: Tensor) -> Tensor:
    return torch.exp(-4 * (x - 0.6).square().sum(1))


@pytest.mark.parametrize("crossover", ["fixed", "paper"])
def test_the_best_score_never_falls(crossover: str, evolve: Evolve) -> None:
    start = uniform(8, DIM)
    curve = [
        float(evolve(start, hill, generations=g, crossover=crossover)[0].confidence) for g in range(0, 20, 2)
    ]
    assert curve[0] == pytest.approx(float(hill(start).max()))
    assert curve == sorted(curve)
    assert curve[-1] > curve[0]


def test_a_separable_hill_is_climbed_to_the_stop(evolve: Evolve) -> None:
    got, victim, _ = evolve(uniform(50, DIM), hill, generations=100)
    assert float(got.confidence) >= 0.95
    assert float((got.images.flatten() - 0.6).abs().max()) < (-torch.tensor(0.95).log() / 4).sqrt()
    assert victim.queries.forward < 50 + 100 * 49


def test_a_start_that_is_sure_enough_is_not_evolved(evolve: Evolve) -> None:
    start = uniform(8, DIM)
    start[5] = 0.6
    got, victim, _ = evolve(start, hill, generations=9)
    assert victim.queries.forward == 8
    torch.testing.assert_close(got.images.flatten(), start[5])


def test_children_of_equal_parents_without_mutation_are_their_parents(evolve: Evolve) -> None:
    parent = uniform(DIM)
    _, _, seen = evolve(parent.expand(7, DIM).clone(), hill, generations=5, mutation_rate=0.0)
    torch.testing.assert_close(torch.cat(seen), parent.expand(7 + 5 * 6, DIM))


def test_without_mutation_each_coordinate_comes_from_the_population(evolve: Evolve) -> None:
    start = uniform(8, DIM)
    _, _, seen = evolve(start, hill, generations=3, mutation_rate=0.0)
    children = torch.cat(seen[1:])
    inherited = (children[:, None] - start[None]).abs() < 1e-6
    assert bool(inherited.any(1).all())
    assert len(children.unique(dim=0)) > 8


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), rate=st.floats(0, 1), size=st.floats(0, 5))
def test_everybody_lies_in_the_box(seed: int, rate: float, size: float, evolve: Evolve) -> None:
    start = 4 * uniform(5, DIM, seed=seed) - 2
    _, _, seen = evolve(start, hill, generations=3, mutation_rate=rate, mutation_size=size)
    assert all(x.min() >= 0 and x.max() <= 1 for x in seen)


def test_a_mutation_moves_a_tenth_of_the_deviation_at_most(evolve: Evolve) -> None:
    parent = torch.full((DIM,), 0.5)
    _, _, seen = evolve(
        parent.expand(200, DIM).clone(), lambda x: x[:, 0] * 0, generations=1, mutation_rate=0.1
    )
    moves = (seen[1] - parent).abs()
    assert 0.045 < float(moves.max()) <= 0.1 * 0.5 + 1e-6
    assert 0.05 < float((moves > 0).float().mean()) < 0.15


@settings(deadline=None, max_examples=60)
@given(
    first=st.floats(0, 1, width=32),
    second=st.floats(0, 1, width=32),
    crossover=st.sampled_from(["fixed", "paper"]),
)
def test_the_share_of_a_parent_lies_between_none_and_all(first: float, second: float, crossover: str) -> None:
    share = attack_of(crossover=crossover)._share
    one, other = torch.tensor([first]), torch.tensor([second])
    assert 0 <= float(share(one, other)) <= 1
    assert float(share(one, other) + share(other, one)) == pytest.approx(1, abs=1e-5)
    if first > second:
        fitter = float(share(one, other))
        assert fitter >= 0.5 if crossover == "fixed" else fitter <= 0.5


def test_the_published_share_favors_the_less_fit_parent() -> None:
    p = torch.tensor([-0.1]).exp(), torch.tensor([-5.0]).exp()
    assert float(attack_of(crossover="paper")._share(*p)) == pytest.approx(0.1 / 5.1, abs=1e-5)
    assert float(attack_of()._share(*p)) == pytest.approx(float(p[0] / (p[0] + p[1])), abs=1e-6)
    for crossover in ("paper", "fixed"):
        for p_both in (0.0, 1.0):
            both = torch.tensor([p_both])
            assert float(attack_of(crossover=crossover)._share(both, both)) == 0.5


def test_parents_are_drawn_by_their_scores(cube_prior: StylePrior) -> None:
    start = torch.eye(4, DIM)
    chances = torch.tensor([0.6, 0.3, 0.05, 0.05])

    def scores(x: Tensor) -> Tensor:
        return (x[:, :4] @ chances) * 0.5

    attack = attack_of(mutation_rate=0.0)
    space = cube_prior.load({}, (DIM, 1, 1), Context())
    counts = torch.zeros(4)
    for generation in range(300):
        children = attack._children(
            start, scores(start), space, Noise.of_targets(0, torch.tensor([0])), generation
        )
        alike = (children[:, None] - start[None]).abs().amax(2) < 1e-6
        counts += alike.sum(0)
    # a child equals a parent surely where both parents are that one, or by crossover
    assert bool(counts[0] > counts[1] > counts[2:].max())
