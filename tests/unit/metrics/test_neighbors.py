"""Precision, recall, density and coverage: counted by hand, and against the package `prdc`."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.data.split import Labeled
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.rates import rate
from mibench.registry import get_metric

from .conftest import MakeCase, labeled

NAMES = ("precision", "recall", "density", "coverage")
# one person in a corner and another one along the first axis; all distances below are exact in binary
REAL = [(0.0, 0.0), (0.0, 0.25), (0.5, 0.0), (1.0, 0.0)]  # with one neighbor: balls of 0.25, 0.25, 0.5, 0.5
GOT = [(0.25, 0.0), (0.75, 0.0), (0.5, 1.0)]  # 0.5, 0.5, and over 1 of the third


def measure(name: str, case: Case, **fields: Any) -> Estimate:
    got = get_metric(name)(**fields).measure(case, Context())
    assert got is not None
    return got


@pytest.fixture
def by_hand(make_case: MakeCase) -> Case:
    return make_case(GOT, [0, 1, 1], train=labeled(REAL, [0, 0, 1, 1]))


def cloud_case(make_case: MakeCase, got: Tensor, real: Tensor) -> Case:
    train = Labeled(real[:, None, None, :], torch.zeros(len(real), dtype=torch.int64))
    return make_case(got.tolist(), [0] * len(got), train=train)


def test_precision_by_hand(by_hand: Case) -> None:
    """The first lies on the rim of the corner's ball, the second in two other ones, the third in none."""
    found = measure("precision", by_hand, neighbors=1)
    assert found.value == pytest.approx(2 / 3)
    assert found == rate(torch.tensor([True, True, False]), by_hand.got.targets)


def test_recall_by_hand(by_hand: Case) -> None:
    """Each real image is within 0.5 of the first or of the second reconstruction."""
    found = measure("recall", by_hand, neighbors=1)
    assert (found.value, found.low, found.high, found.count) == (1.0, 1.0, 1.0, 4)


def test_recall_leaves_out_what_is_far(make_case: MakeCase) -> None:
    """Balls of 0.125: they hold the corner, and (0, 0.25) on the rim of the last one."""
    case = make_case([(0.0, 0.0), (0.125, 0.0), (0.0, 0.125)], [0] * 3, train=labeled(REAL, [0] * 4))
    assert measure("recall", case, neighbors=1).value == 0.5


def test_density_by_hand(by_hand: Case) -> None:
    """The first lies in the balls of the corner and of (0.5, 0), the second in two as well."""
    found = measure("density", by_hand, neighbors=1)
    assert found.value == pytest.approx((2 + 2 + 0) / 3)
    assert found.low < found.value < found.high
    assert found.count == len(GOT)


def test_coverage_by_hand(by_hand: Case) -> None:
    """(0, 0.25) has its nearest reconstruction 0.35 away and a ball of 0.25."""
    found = measure("coverage", by_hand, neighbors=1)
    assert (found.value, found.low, found.high, found.count) == (0.75, 0.75, 0.75, 4)


@pytest.mark.parametrize("name", NAMES)
def test_they_agree_with_the_package_prdc(name: str, make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(0)
    got = 0.3 + 0.7 * torch.rand(50, 6, generator=generator)
    real = torch.rand(70, 6, generator=generator)
    case = cloud_case(make_case, got, real)
    for neighbors in (1, 2, 3):
        expected = reference(case.real_features[0], case.features, neighbors)[name]
        assert 0.1 < expected != 1
        assert measure(name, case, neighbors=neighbors).value == pytest.approx(expected, rel=1e-12)


def reference(real: Tensor, got: Tensor, neighbors: int) -> dict[str, float]:
    from prdc import compute_prdc

    found = compute_prdc(real.double().numpy(), got.double().numpy(), neighbors)
    return {name: float(value) for name, value in found.items()}


@settings(max_examples=15, deadline=None)
@given(
    num_got=st.integers(7, 40),
    num_real=st.integers(7, 40),
    neighbors=st.integers(1, 5),
    shift=st.floats(0, 0.5),
    seed=st.integers(0, 2**16),
)
def test_they_agree_with_prdc_for_clouds_of_any_size(
    num_got: int, num_real: int, neighbors: int, shift: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    got = torch.from_numpy(0.5 * random.random((num_got, 3)) + shift)
    real = torch.from_numpy(random.random((num_real, 3)))
    expected = reference(real, got, neighbors)
    case = stand_in(got, real)
    for name in NAMES:
        assert measure(name, case, neighbors=neighbors).value == pytest.approx(expected[name], rel=1e-12)


def stand_in(got: Tensor, real: Tensor) -> Any:
    """As much of a cell as these metrics look at, with features of full precision."""
    everything = torch.ones(len(got), dtype=torch.bool)
    targets = torch.zeros(len(got), dtype=torch.int64)
    words = {"features": got, "protected": everything, "real_features": (real, targets)}
    return type("Stand", (), {**words, "got": type("Got", (), {"targets": targets})})


@pytest.mark.parametrize("name", NAMES)
def test_the_real_images_themselves_are_as_good_as_it_gets(name: str, make_case: MakeCase) -> None:
    """Also where features repeat, so that balls have no extent: they hold what lies on their rim."""
    rows = torch.rand(12, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.cat([rows, rows[:1].expand(8, -1)])
    found = measure(name, cloud_case(make_case, rows, rows))
    assert found.value >= 1.0
    assert found.value == 1.0 or name == "density"


@pytest.mark.parametrize("name", NAMES)
def test_clouds_far_apart_have_nothing_in_common(name: str, make_case: MakeCase) -> None:
    rows = 0.1 * torch.rand(10, 4, generator=torch.Generator().manual_seed(2))
    assert measure(name, cloud_case(make_case, rows, rows + 0.8)).value == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_and_the_size_of_chunks_change_nothing(
    name: str, make_case: MakeCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(3)
    got, real = torch.rand(30, 4, generator=generator), torch.rand(25, 4, generator=generator)
    found = measure(name, cloud_case(make_case, got, real))
    order = torch.randperm(30, generator=generator)
    assert measure(name, cloud_case(make_case, got[order], real)).value == found.value
    split = functools.partial(Tensor.split)
    sizes: list[int] = []

    def single(tensor: Tensor, size: int, dim: int = 0) -> Any:
        sizes.append(size)
        return split(tensor, 1, dim)

    monkeypatch.setattr(Tensor, "split", single)
    assert measure(name, cloud_case(make_case, got, real)) == found
    assert sizes


@pytest.mark.parametrize(
    ("name", "num_got", "num_real"),
    [("precision", 9, 5), ("density", 9, 5), ("coverage", 9, 5), ("recall", 5, 9)],
)
def test_without_a_fifth_neighbor_nothing_is_measured(
    name: str, num_got: int, num_real: int, make_case: MakeCase
) -> None:
    generator = torch.Generator().manual_seed(4)
    got, real = torch.rand(num_got, 4, generator=generator), torch.rand(num_real, 4, generator=generator)
    case = cloud_case(make_case, got, real)
    assert get_metric(name)().measure(case, Context()) is None
    assert get_metric(name).from_params({"neighbors": 4}).measure(case, Context()) is not None


@pytest.mark.parametrize("name", NAMES)
def test_without_protected_rows_nothing_is_measured(name: str, make_case: MakeCase) -> None:
    assert get_metric(name)().measure(make_case(GOT, [0, 1, 1], protected=[5]), Context()) is None


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_zeroth_neighbor(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: neighbors must be >= 1, got 0"):
        get_metric(name).from_params({"neighbors": 0})
