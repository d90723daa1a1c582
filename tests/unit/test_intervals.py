"""Intervals hold the truth as often as they promise: simulations with people who differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mibench.statistics import (
    _nested_means,
    bootstrap_mean,
    crossed_wilson,
    grouped_wilson,
    nested_bootstrap,
    wilson,
)

Floats = NDArray[np.float64]
IMAGES = 8  # of each person, as in the suites
EQUAL = (1e6, 1e6)  # parameters of a beta distribution without width: all people are alike


def rates_of(people: int, shape: tuple[float, float], runs: int) -> NDArray[np.bool_]:
    """(runs, people, IMAGES) hits; each person's rate is drawn from a beta distribution."""
    random = np.random.default_rng(0)
    rates = random.beta(*shape, (runs, people, 1))
    return random.random((runs, people, IMAGES)) < rates


def share_held(truth: float, interval: Callable[[int], tuple[float, float]], runs: int) -> float:
    """Share of intervals, one for each run, that hold the truth."""
    ends = [interval(run) for run in range(runs)]
    return float(np.mean([low - 1e-9 <= truth <= high + 1e-9 for low, high in ends]))


def coverage_of_wilson(people: int, shape: tuple[float, float], runs: int = 2000) -> float:
    hits, groups = rates_of(people, shape, runs), np.arange(people).repeat(IMAGES)
    truth = shape[0] / sum(shape)
    return share_held(truth, lambda run: grouped_wilson(hits[run].ravel(), groups), runs)


@pytest.mark.parametrize("shape", [(2.0, 2.0), (0.5, 0.5), (0.2, 0.2), (1.0, 4.0), (0.2, 0.8), EQUAL])
@pytest.mark.parametrize("people", [20, 40])
def test_rates_cover_95_percent(people: int, shape: tuple[float, float]) -> None:
    """Whether people differ a little, completely, or not at all."""
    assert coverage_of_wilson(people, shape) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("shape", [(2.0, 2.0), (0.5, 0.5), (0.2, 0.2), EQUAL])
@pytest.mark.parametrize("people", [5, 10])
def test_rates_of_few_people_cover_no_less(people: int, shape: tuple[float, float]) -> None:
    """Steps of one person are coarse; the interval errs to the wide side."""
    assert 0.93 <= coverage_of_wilson(people, shape) <= 0.985


@pytest.mark.parametrize("people", [3, 5, 10, 20])
def test_rates_of_few_found_people_cover_more_than_a_bootstrap_does(people: int) -> None:
    """One person in ten is found, and then nearly always: the hardest case, and the one defenses make."""
    shape, runs = (0.1, 0.9), 1000
    hits, groups = rates_of(people, shape, runs), np.arange(people).repeat(IMAGES)
    plain = share_held(
        0.1,
        lambda run: nested_bootstrap(hits[run].ravel().astype(float), groups, seed=run, draws=300),
        runs,
    )
    held = coverage_of_wilson(people, shape, runs)
    assert held > plain
    assert held > 0.86


def coverage_of_percentiles(people: int, shape: tuple[float, float], runs: int = 500) -> float:
    """The same of the plain percentiles of a bootstrap over people, then images."""
    hits, groups = rates_of(people, shape, runs), np.arange(people).repeat(IMAGES)

    def interval(run: int) -> tuple[float, float]:
        means = _nested_means(hits[run].ravel().astype(float), groups, seed=run, draws=300)
        low, high = np.quantile(means, [0.025, 0.975])
        return float(low), float(high)

    return share_held(shape[0] / sum(shape), interval, runs)


def test_plain_percentiles_cover_too_little_or_too_much() -> None:
    """Why rates have Wilson's interval: from less than three in four to nearly always."""
    assert coverage_of_percentiles(5, (0.1, 0.9)) < 0.76
    assert coverage_of_percentiles(5, (0.2, 0.8)) < 0.89
    assert coverage_of_percentiles(10, EQUAL) > 0.98


def test_five_people_of_whom_none_is_found_may_be_two_in_five() -> None:
    """40 images of 5 people tell about 5 people: Wilson's interval of 0 of 5, not of 0 of 40."""
    groups = np.arange(5).repeat(IMAGES)
    assert grouped_wilson(np.zeros(40, dtype=bool), groups) == wilson(0, 5)
    assert grouped_wilson(np.ones(40, dtype=bool), groups) == wilson(5, 5)


def test_one_person_has_the_interval_of_her_images() -> None:
    hits = np.arange(40) < 12
    assert grouped_wilson(hits, np.zeros(40, dtype=np.int64)) == wilson(12, 40)


def test_groups_of_one_hit_each_are_independent_trials() -> None:
    """As many trials as groups, but for the t quantile and the unbiased variance."""
    hits = np.arange(400) < 120
    low, high = grouped_wilson(hits, np.arange(400))
    assert (low, high) == pytest.approx(wilson(120, 400), abs=0.002)


def test_equal_shares_within_all_groups_are_no_certainty() -> None:
    """No variance between groups may be luck: the images then count by themselves."""
    hits = np.tile(np.arange(8) < 4, 5)
    assert grouped_wilson(hits, np.arange(5).repeat(8)) == pytest.approx((0.29, 0.71), abs=0.01)


@pytest.mark.parametrize("per_group", [3, 6, 10, 960])
def test_equal_shares_that_binary_fractions_round_have_a_width_too(per_group: int) -> None:
    hits = np.tile(np.arange(per_group) > 0, 5)
    low, high = grouped_wilson(hits, np.arange(5).repeat(per_group))
    assert low < hits.mean() < high
    thirds = nested_bootstrap(hits.astype(float), np.arange(5).repeat(per_group), seed=0)
    assert thirds[0] < hits.mean() < thirds[1]


@pytest.mark.parametrize("models", [5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_models_asked_about_the_same_images_cover_95_percent(models: int, spread: float) -> None:
    """Images are easy or hard for all models, and models differ by themselves."""
    random = np.random.default_rng(0)

    def hits() -> NDArray[np.bool_]:
        easy, own = 1.5 * random.normal(size=300), 10 * spread * random.normal(size=(models, 1))
        return random.random((models, 300)) < 1 / (1 + np.exp(-1.5 - easy - own))

    truth = float(np.mean([hits().mean() for _ in range(4000)]))
    assert 0.92 <= share_held(truth, lambda _run: crossed_wilson(hits()), 400) <= 0.99


def test_one_model_or_equal_hits_have_wilsons_interval_over_images() -> None:
    hits = np.arange(40)[None] < 12
    assert crossed_wilson(hits) == wilson(12, 40)
    assert crossed_wilson(np.ones((5, 40), dtype=bool)) == wilson(40, 40)
    assert crossed_wilson(hits.repeat(5, 0)) == pytest.approx(wilson(12, 40), abs=0.01)


def test_bounds_stay_within_0_and_1_and_hold_the_share() -> None:
    random = np.random.default_rng(1)
    for _ in range(200):
        groups = random.integers(random.integers(1, 6), size=12)
        hits = random.random(12) < random.random()
        low, high = grouped_wilson(hits, groups)
        assert 0 <= low <= hits.mean() + 1e-12
        assert hits.mean() - 1e-12 <= high <= 1


def distances(people: int, spread: float, noise: float, runs: int) -> Floats:
    """(runs, people, IMAGES) distances around 10, of people whose own means differ by `spread`."""
    random = np.random.default_rng(0)
    means = 10 + spread * random.normal(size=(runs, people, 1))
    return means + noise * random.normal(size=(runs, people, IMAGES))


@pytest.mark.parametrize(("spread", "noise"), [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize("people", [5, 10, 20])
def test_means_cover_95_percent(people: int, spread: float, noise: float) -> None:
    runs, groups = 1500, np.arange(people).repeat(IMAGES)
    values = distances(people, spread, noise, runs)
    held = share_held(
        10.0, lambda run: nested_bootstrap(values[run].ravel(), groups, seed=run, draws=300), runs
    )
    assert held == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("people", [5, 10, 20])
def test_means_over_people_cover_95_percent(people: int) -> None:
    """Paired differences in steps of one eighth, as reports have them."""
    runs = 1500
    random = np.random.default_rng(0)
    first, second = (random.binomial(IMAGES, random.beta(2, 2, (runs, people))) for _ in range(2))
    values = (first - second) / IMAGES
    held = share_held(0.0, lambda run: bootstrap_mean(values[run], draws=500), runs)
    assert held == pytest.approx(0.95, abs=0.02)


def test_equal_values_have_no_width() -> None:
    assert bootstrap_mean(np.full(4, 0.25)) == (0.25, 0.25)
    assert nested_bootstrap(np.full(6, 2.0), np.arange(6) // 2, seed=0) == (2.0, 2.0)
    assert nested_bootstrap(np.array([3.0]), np.array([7]), seed=0) == (3.0, 3.0)
