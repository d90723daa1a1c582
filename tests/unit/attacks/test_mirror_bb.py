"""Known answers of black-box Mirror: elitism, crossover, mutation, the stop and the box."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.data.split import quantize
from mibench.errors import PluginError, QueryBudgetError
from mibench.gan import StylePrior
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import ScoreVictim

mirror_bb: Any = importlib.import_module(get_attack("mirror_bb").__module__)
evolution: Any = importlib.import_module("mibench.attacks._evolution")

DIM = 6
ENGINES = pytest.mark.parametrize("engine", ["genetic", "cma_es"])
Evolve = Callable[..., tuple[Any, ScoreVictim, list[Tensor]]]


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("mirror_bb").from_params(
        {"population": 6, "presamples": 20, "mutation_rate": 0.5, "psi": 1.0, **options}
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


def trial_of(space: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A trial of one row for label 0 against a victim of cube images."""
    victim, _ = scores_of(function)
    label = torch.tensor([0])
    noise = Noise.of_targets(0, label)
    return evolution.Trial(
        victim, space, label, noise, Context(), fitness=evolution.own_score, stop=float("inf")
    )


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
    share = attack_of(crossover=crossover).share
    one, other = torch.tensor([first]), torch.tensor([second])
    assert 0 <= float(share(one, other)) <= 1
    assert float(share(one, other) + share(other, one)) == pytest.approx(1, abs=1e-5)
    if first > second:
        fitter = float(share(one, other))
        assert fitter >= 0.5 if crossover == "fixed" else fitter <= 0.5


def test_the_published_share_favors_the_less_fit_parent() -> None:
    p = torch.tensor([-0.1]).exp(), torch.tensor([-5.0]).exp()
    assert float(attack_of(crossover="paper").share(*p)) == pytest.approx(0.1 / 5.1, abs=1e-5)
    assert float(attack_of().share(*p)) == pytest.approx(float(p[0] / (p[0] + p[1])), abs=1e-6)
    for crossover in ("paper", "fixed"):
        for p_both in (0.0, 1.0):
            both = torch.tensor([p_both])
            assert float(attack_of(crossover=crossover).share(both, both)) == 0.5


def test_parents_are_drawn_by_their_scores(cube_prior: StylePrior) -> None:
    start = torch.eye(4, DIM)
    chances = torch.tensor([0.6, 0.3, 0.05, 0.05])
    space = cube_prior.load({}, (DIM, 1, 1), Context())
    trial = trial_of(space, lambda x: (x[:, :4] @ chances) * 0.5)
    people = mirror_bb._Genetic(attack_of(mutation_rate=0.0), space, trial, start[None])
    counts = torch.zeros(4)
    for generation in range(300):
        children = people.children(trial.all_rows, 1 + generation)[0]
        alike = (children[:, None] - start[None]).abs().amax(2) < 1e-6
        counts += alike.sum(0)
    # a child equals a parent surely where both parents are that one, or by crossover
    assert bool(counts[0] > counts[1] > counts[2:].max())


# allowance, effort and the other engine


def slopes(labels: int = 3) -> tuple[ScoreVictim, Tensor]:
    """A victim of cube images whose labels have hills at different places, and these places."""
    places = uniform(labels, DIM, seed=11)

    def released(x: Tensor) -> Tensor:
        return (-8 * (x.flatten(1)[:, None] - places).square().sum(2)).softmax(1)

    return ScoreVictim(released, shape=(DIM, 1, 1), num_classes=labels), places


def evolved(
    cube_prior: StylePrior,
    targets: list[int],
    *,
    ctx: Context | None = None,
    victim: Any = None,
    **options: Any,
) -> Any:
    """Reconstructions of labels of `slopes` from one start population for each label."""
    options = {"generations": 8, "stop_confidence": 1.1, **options}
    attack = dataclasses.replace(attack_of(**options), prior=cube_prior)
    starts = {"starts": uniform(3, 6, DIM, seed=12)}
    return attack.invert(victim or slopes()[0], starts, torch.tensor(targets), ctx or Context(seed=3))


@ENGINES
def test_generations_are_planned_with_the_allowance(engine: str, cube_prior: StylePrior) -> None:
    first, each = (6, 5) if engine == "genetic" else (1, 6)
    for allowance in (first, first + each, first + 3 * each + 2):
        victim, _ = slopes()
        victim.allowance, victim.max_queries = allowance, 3 * allowance
        got = evolved(cube_prior, [0, 1, 2], victim=victim, engine=engine)
        paid = (allowance - first) // each
        assert victim.queries.forward == 3 * (first + paid * each)
        assert int(got.effort.queries[-1]) == first + paid * each


def test_an_allowance_below_the_start_is_refused(cube_prior: StylePrior) -> None:
    victim, _ = slopes()
    victim.allowance = 5
    with pytest.raises(QueryBudgetError, match="budget of 5 queries"):
        evolved(cube_prior, [0], victim=victim)


@ENGINES
def test_the_effort_curve_ends_at_the_result_and_costs_nothing(engine: str, cube_prior: StylePrior) -> None:
    victim, _ = slopes()
    got = evolved(cube_prior, [0, 1, 2, 1], victim=victim, engine=engine)
    effort = got.effort
    assert victim.queries.forward == 4 * int(effort.queries[-1])
    assert torch.equal(effort.images[-1], quantize(got.images))
    torch.testing.assert_close(effort.loss[-1], -got.confidence.log())
    assert bool((effort.loss.diff(dim=0) <= 0).all())
    assert bool((effort.loss[-1] < effort.loss[0]).all())
    assert effort.queries.tolist() == sorted(set(effort.queries.tolist()))


@ENGINES
def test_rows_of_either_engine_do_not_meet(engine: str, cube_prior: StylePrior) -> None:
    together = evolved(cube_prior, [1, 2, 1], engine=engine)
    alone = evolved(cube_prior, [1], engine=engine)
    torch.testing.assert_close(alone.images, together.images[:1], atol=1e-5, rtol=0)
    chunked = evolved(cube_prior, [1, 2, 1], engine=engine, ctx=Context(seed=3, max_batch=1))
    torch.testing.assert_close(chunked.images, together.images, atol=1e-5, rtol=0)
    assert not torch.equal(together.images[0], together.images[2])


def test_a_row_that_is_done_asks_no_more_while_the_others_go_on(cube_prior: StylePrior) -> None:
    victim, places = slopes()
    starts = uniform(3, 6, DIM, seed=12)
    starts[1, 0] = places[1]
    starts[0] = places[2] + 0.02 * starts[0]  # far from the hill of label 0
    sure = float(victim.scores(places[1:2, :, None, None])[0, 1])
    attack = dataclasses.replace(attack_of(generations=5, stop_confidence=sure - 1e-4), prior=cube_prior)
    victim.queries.forward = 0
    got = attack.invert(victim, {"starts": starts}, torch.tensor([1, 0]), Context(seed=3))
    assert victim.queries.forward == 2 * 6 + 5 * 5
    assert got.confidence[0] >= sure - 1e-4 > got.confidence[1]


def test_cma_es_climbs_inside_the_box_without_numpys_global_state(cube_prior: StylePrior) -> None:
    state = np.random.get_state()[1].copy()  # type: ignore[index]  # the legacy state is a tuple
    victim, places = slopes()
    got = evolved(
        cube_prior, [0, 1, 2], victim=victim, engine="cma_es", generations=80, population=12, presamples=20
    )
    best = victim.scores(places[:, :, None, None]).diagonal()
    assert bool((got.confidence >= 0.98 * best).all())
    assert 0 <= float(got.images.min()) <= float(got.images.max()) <= 1
    assert np.array_equal(np.random.get_state()[1], state)  # type: ignore[index]
    again = evolved(cube_prior, [0, 1, 2], engine="cma_es", generations=5)
    assert torch.equal(evolved(cube_prior, [0, 1, 2], engine="cma_es", generations=5).images, again.images)


def test_cma_es_is_never_worse_than_the_best_presample(cube_prior: StylePrior) -> None:
    victim, _ = slopes()
    starts = uniform(3, 6, DIM, seed=12)
    for label in range(3):
        first = float(victim.scores(starts[label, :1, :, None, None])[0, label])
        assert float(evolved(cube_prior, [label], engine="cma_es", generations=1).confidence) >= first - 1e-6


def test_a_missing_package_is_named_before_the_victim_is_asked(
    cube_prior: StylePrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cma", None)
    victim, _ = slopes()
    attack = dataclasses.replace(attack_of(engine="cma_es"), prior=cube_prior)
    with pytest.raises(PluginError, match=r"needs the package 'cma'.*mibench\[cma\]"):
        attack.adapt_prior({}, victim, torch.rand(1, DIM, 1, 1), Context())
    assert victim.queries.forward == 0
