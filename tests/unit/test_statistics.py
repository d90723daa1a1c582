"""Intervals cover what they promise; the Frechet distance is exact where it can be known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from mibench.frechet import frechet_distance
from mibench.statistics import LEVEL, holm, nested_bootstrap, sign_flip, t_quantile, wilson


def test_wilson_agrees_with_its_formula() -> None:
    """Centre and half width from the score equation, z = 1.959964 (Wilson, 1927)."""
    z, n, p = 1.959963984540054, 40, 0.3
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert wilson(12, 40) == pytest.approx((centre - half, centre + half))


@given(st.integers(1, 500), st.data())
@settings(max_examples=50, deadline=None)
def test_wilson_holds_the_rate_and_stays_within_0_and_1(count: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, count))
    low, high = wilson(successes, count)
    assert 0 <= low <= successes / count + 1e-12
    assert successes / count - 1e-12 <= high <= 1
    assert low < high


def test_images_of_a_group_are_not_taken_for_independent() -> None:
    """Groups of equal values: the interval must be as wide as that of the groups alone."""
    labels = np.arange(20).repeat(50)
    values = labels / 20
    low, high = nested_bootstrap(values, labels, seed=0)
    error = np.arange(20).std(ddof=1) / 20 / 20**0.5
    assert high - low == pytest.approx(2 * 2.093 * error, rel=0.05)  # t of 19 degrees of freedom


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-5, 5)), min_size=1, max_size=30), st.randoms())
@settings(max_examples=40, deadline=None)
def test_nested_bootstrap_does_not_depend_on_the_order(
    rows: list[tuple[int, float]], random: np.random.RandomState
) -> None:
    mixed = list(rows)
    random.shuffle(mixed)
    first, second = (
        nested_bootstrap(
            np.array([value for _, value in part]), np.array([group for group, _ in part]), seed=3, draws=50
        )
        for part in (rows, mixed)
    )
    assert first == second


def test_nested_bootstrap_takes_groups_of_unequal_size_and_repeats_itself() -> None:
    values, labels = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.5]), np.array([0, 0, 0, 1, 1, 2])
    first = nested_bootstrap(values, labels, seed=5)
    assert first == nested_bootstrap(values, labels, seed=5)
    assert 0 <= first[0] < values.mean() < first[1] <= 1


def test_frechet_distance_of_shifted_and_scaled_clouds() -> None:
    """N(0, S) against N(m, 4 S): |m|^2 + tr S (1 - 2)^2."""
    cloud = torch.randn(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cloud = cloud - cloud.mean(0)
    shift = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0])
    expected = 5.0 + float(cloud.var(0).sum())
    assert frechet_distance(cloud, 2 * cloud + shift) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(2 * cloud + shift, cloud) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_few_points_in_many_dimensions_is_exact() -> None:
    """Singular covariances, where a matrix square root would lose half of its digits."""
    points = torch.randn(6, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert frechet_distance(points, points) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(points, points + 0.1) == pytest.approx(3.0, rel=1e-10)


def test_frechet_distance_of_one_point_is_refused() -> None:
    with pytest.raises(ValueError, match="two points"):
        frechet_distance(torch.zeros(1, 2), torch.zeros(3, 2))


def test_sign_flip_tries_all_patterns_where_they_are_few() -> None:
    assert sign_flip(np.ones(5)) == pytest.approx(2 / 2**5)
    assert sign_flip(np.zeros(5)) == 1.0
    assert sign_flip(np.array([0.3])) == 1.0
    assert sign_flip(np.array([1.0, -1.0])) == 1.0


def test_sign_flip_raises_few_false_alarms() -> None:
    random = np.random.default_rng(0)
    p_values = [sign_flip(random.normal(size=12), draws=499) for _ in range(400)]
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_against_a_known_answer() -> None:
    # worked by hand: 0.01 * 4, 0.02 * 3, 0.03 * 2, and 0.04 is lifted to what stands before it
    adjusted = holm(np.array([0.03, 0.01, 0.04, 0.02]))
    assert adjusted.tolist() == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_the_order_and_lowers_nothing(p_values: list[float]) -> None:
    raw = np.array(p_values)
    adjusted = holm(raw)
    assert (adjusted >= raw - 1e-12).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-12).all()


def test_the_normal_quantile_is_that_of_scipy_to_the_bit() -> None:
    assert t_quantile() == float(ndtri((1 + LEVEL) / 2))
