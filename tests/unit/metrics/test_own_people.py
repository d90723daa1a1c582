"""Distances to the target's own training images: by hand, and against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mibench.data.split import Labeled
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import MakeCase, labeled

NAMES = ("knn_distance", "feature_distance")


def measure(name: str, case: Case) -> Estimate:
    got = get_metric(name)().measure(case, Context())
    assert got is not None
    return got


def test_distances_by_hand(make_case: MakeCase) -> None:
    """The first is 0.1 and 0.2 off its label's one image; the second is one of two images.

    The nearest image of all to the first is another label's, which does not count.
    """
    train = labeled([(0.1, 0.2), (0.0, 0.05), (0.0, 0.6)], [0, 1, 1])
    case = make_case([(0.0, 0.0), (0.0, 0.6)], [0, 1], train=train)
    case.features = torch.tensor([(0.0, 0.0), (0.0, 0.6)])
    assert measure("knn_distance", case).value == pytest.approx((0.05 + 0) / 2)
    assert measure("feature_distance", case).value == pytest.approx((0.05 + 0.275**2) / 2)
    assert measure("knn_distance", case).count == 2


@settings(max_examples=15, deadline=None)
@given(num=st.integers(3, 25), people=st.integers(1, 3), seed=st.integers(0, 2**16))
def test_distances_agree_with_scikit_learn(num: int, people: int, seed: int) -> None:
    import numpy as np
    from sklearn.neighbors import NearestCentroid, NearestNeighbors

    generator = torch.Generator().manual_seed(seed)
    got, real = torch.rand(num, 5, generator=generator), torch.rand(4 * people, 5, generator=generator)
    targets, labels = torch.arange(num) % people, torch.arange(4 * people) % people
    nearest, middle = [], []
    for label in targets.unique():
        own, rows = real[labels == label].double().numpy(), got[targets == label].double().numpy()
        nearest.append(NearestNeighbors(n_neighbors=1).fit(own).kneighbors(rows)[0] ** 2)
        # two classes are the least that it takes; the second one is out of the way
        fitted = NearestCentroid().fit(np.vstack([own, own + 9]), [0] * len(own) + [1] * len(own))
        middle.append(((rows - fitted.centroids_[0]) ** 2).sum(1))
    words = {
        "features": got,
        "protected": torch.ones(num, dtype=torch.bool),
        "real_features": (real, labels),
        "max_batch": 4,
        "got": type("Got", (), {"targets": targets}),
    }
    case = type("Stand", (), words)
    for name, expected in zip(NAMES, (nearest, middle)):
        found = get_metric(name)().measure(case, Context())  # type: ignore[arg-type]  # no more is looked at
        assert found is not None
        assert found.value == pytest.approx(float(np.concatenate(expected).mean()), rel=1e-9)
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", NAMES)
def test_bystanders_and_the_order_of_rows_change_nothing(name: str, make_case: MakeCase) -> None:
    rows = torch.rand(14, 4, generator=torch.Generator().manual_seed(1))
    train = Labeled(rows[6:, None, None, :], torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]))
    alone = measure(name, make_case(rows[:4].tolist(), [0, 0, 1, 1], train=train))
    crowd = make_case(rows[[3, 5, 0, 2, 1]].tolist(), [1, 2, 0, 1, 0], protected=[0, 1], train=train)
    found = measure(name, crowd)
    assert found.count == 4
    for field in ("value", "low", "high"):
        assert getattr(found, field) == pytest.approx(getattr(alone, field), rel=1e-9)
    assert alone.low < alone.value < alone.high


def test_a_training_image_is_at_distance_zero_to_the_last_bit(make_case: MakeCase) -> None:
    rows = torch.rand(6, 8, generator=torch.Generator().manual_seed(2))
    train = Labeled(rows[:, None, None, :], torch.tensor([0, 0, 0, 1, 1, 1]))
    case = make_case(rows.tolist(), [0, 0, 0, 1, 1, 1], train=train)
    assert measure("knn_distance", case) == Estimate(0.0, 0.0, 0.0, 6)


@pytest.mark.parametrize("name", NAMES)
def test_intervals_of_two_people_end_at_zero(name: str, make_case: MakeCase) -> None:
    """Student's t with one degree of freedom reaches far below the least distance there is."""
    train = labeled([(0.0, 0.0), (0.0, 0.0)], [0, 1])
    found = measure(name, make_case([(0.1, 0.0), (0.9, 0.0)], [0, 1], train=train))
    assert found.low == 0.0
    assert found.value == pytest.approx((0.01 + 0.81) / 2)
    assert found.high > found.value


@pytest.mark.parametrize("name", NAMES)
def test_without_protected_rows_nothing_is_measured(name: str, make_case: MakeCase) -> None:
    case = make_case([(0.0, 0.0)], [0], protected=[1])
    assert get_metric(name)().measure(case, Context()) is None
