"""Distances of features: known answers, and the Frechet distance against an independent computation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from mibench.data.split import Labeled
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import labeled

MakeCase = Callable[..., Case]


def measure(name: str, case: Case) -> Estimate:
    got = get_metric(name)().measure(case, Context())
    assert got is not None
    return got


def test_equal_means_fool_the_mean_distance_and_not_the_frechet_distance(make_case: MakeCase) -> None:
    """Two points on a line against two across it: means agree, spreads do not.

    By hand, with covariances diag(c, 0) and diag(0, c): trace c + c, and the root of their product is 0.
    c is 2 with divisor N - 1, which gives 4; with divisor N it would be 1, which gives 2.
    """
    train = labeled([(1.0, 1.0), (1.0, -1.0)], [0, 0])
    images = [(0.0, 0.0), (2.0, 0.0)]
    case = make_case(images, [0, 0], train=train)
    case.features = torch.tensor(images)  # reconstructions are clamped to [0, 1], these features are not
    assert measure("mean_feature_distance", case).value == 0.0
    assert measure("fid", case).value == pytest.approx(4.0, abs=1e-12)


def test_frechet_distance_agrees_with_a_matrix_square_root(make_case: MakeCase) -> None:
    random = np.random.default_rng(0)
    mix = random.normal(size=(12, 12))
    got = (random.random((60, 12)) @ mix / 20 + 0.5).astype(np.float32).clip(0, 1)
    real = random.random((50, 12)).astype(np.float32)
    train = Labeled(torch.from_numpy(real)[:, None, None, :], torch.zeros(50, dtype=torch.int64))
    value = measure("fid", make_case(got.tolist(), [0] * 60, train=train)).value
    a, b = np.cov(got.astype(float).T), np.cov(real.astype(float).T)
    apart = np.square(got.astype(float).mean(0) - real.astype(float).mean(0)).sum()
    expected = apart + np.trace(a) + np.trace(b) - 2 * np.trace(np.real(sqrtm(a @ b)))
    assert value == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["fid", "mean_feature_distance"])
def test_the_real_images_have_distance_zero(name: str, make_case: MakeCase) -> None:
    rows = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    train = Labeled(rows[:, None, None, :], torch.zeros(8, dtype=torch.int64))
    assert measure(name, make_case(rows.tolist(), [0] * 8, train=train)).value == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["fid", "mean_feature_distance"])
def test_distances_compare_protected_labels_with_their_own_images(name: str, make_case: MakeCase) -> None:
    """Bystanders and other people's images, however far, change nothing."""
    rows = torch.rand(10, 4, generator=torch.Generator().manual_seed(3))
    images = rows[:4].tolist()
    train = labeled(rows[4:8].tolist(), [0, 0, 0, 0])
    more = labeled([*rows[4:8].tolist(), (9.0, 9.0, 9.0, 9.0)], [0, 0, 0, 0, 1])
    alone = measure(name, make_case(images, [0] * 4, train=train))
    crowd = measure(name, make_case([*images, (1.0,) * 4], [0, 0, 0, 0, 2], protected=[0], train=more))
    assert alone == crowd
    assert alone.count == 4
    assert alone.low == alone.value == alone.high


@pytest.mark.parametrize("name", ["fid", "mean_feature_distance"])
def test_distances_do_not_depend_on_the_order_and_grow_with_noise(name: str, make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(4)
    real = 0.4 * torch.rand(30, 4, generator=generator)
    train = Labeled(real[:, None, None, :], torch.zeros(30, dtype=torch.int64))
    near = real + 0.05 * torch.rand(30, 4, generator=generator)
    far = real + 0.6 * torch.rand(30, 4, generator=generator)
    order = torch.randperm(30, generator=generator)
    values = [measure(name, make_case(x.tolist(), [0] * 30, train=train)).value for x in (near, far)]
    mixed = measure(name, make_case(near[order].tolist(), [0] * 30, train=train)).value
    assert mixed == pytest.approx(values[0], rel=1e-9)
    assert values[0] < values[1]


def test_frechet_distance_of_one_image_is_not_measured(make_case: MakeCase) -> None:
    train = labeled([(0.0, 0.0), (1.0, 0.0)], [0, 0])
    case = make_case([(0.5, 0.5)], [0], train=train)
    assert get_metric("fid")().measure(case, Context()) is None
    assert measure("mean_feature_distance", case).value == pytest.approx(0.25)


@pytest.mark.parametrize("name", ["fid", "mean_feature_distance"])
def test_without_protected_rows_no_distance_is_measured(name: str, make_case: MakeCase) -> None:
    case = make_case([(0.0, 0.0)], [0], protected=[1])
    assert get_metric(name)().measure(case, Context()) is None
