"""The kernel distance: by hand, and against torchmetrics and torch-fidelity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.data.split import Labeled
from mibench.metric import Case
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import MakeCase, labeled


def kid(case: Case, ctx: Context | None = None, **fields: Any) -> float:
    found = get_metric("kid")(**fields).measure(case, ctx or Context())
    assert found is not None
    assert found.low == found.value == found.high
    return found.value


def cloud_case(make_case: MakeCase, got: Tensor, real: Tensor) -> Case:
    train = Labeled(real[:, None, None, :], torch.zeros(len(real), dtype=torch.int64))
    return make_case(got.tolist(), [0] * len(got), train=train)


def test_kernel_distance_by_hand(make_case: MakeCase) -> None:
    """Two pixels, D = 2: k(a, a') = (0 / 2 + 1)^3 = 1, k(b, b') = 8, and k(a, b) is 1 or (1 / 2 + 1)^3."""
    case = make_case([(0.0, 0.0), (1.0, 0.0)], [0, 0], train=labeled([(1.0, 1.0), (1.0, 1.0)], [0, 0]))
    assert kid(case) == 1 + 8 - 2 * (2 * 1 + 2 * 1.5**3) / 4


def test_a_cloud_and_itself_lie_below_zero(make_case: MakeCase) -> None:
    """The unbiased estimate leaves each point's kernel with itself out within, and not between."""
    rows = torch.rand(9, 4, generator=torch.Generator().manual_seed(0))
    assert kid(cloud_case(make_case, rows, rows)) < 0


def test_all_images_agree_with_torch_fidelity(make_case: MakeCase) -> None:
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    generator = torch.Generator().manual_seed(1)
    got, real = torch.rand(50, 16, generator=generator), 0.8 * torch.rand(50, 16, generator=generator)
    case = cloud_case(make_case, got, real)
    expected = kid_features_to_metric(
        case.features.double(),
        case.real_features[0].double(),
        kid_subsets=1,
        kid_subset_size=50,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=0,
        verbose=False,
    )[KEY_METRIC_KID_MEAN]
    assert kid(case) == pytest.approx(expected, rel=1e-9)


def test_the_same_subsets_agree_with_torchmetrics(make_case: MakeCase) -> None:
    """Subsets are drawn of sorted rows, reconstructions first."""
    from torchmetrics.image.kid import poly_mmd

    generator = torch.Generator().manual_seed(2)
    got, real = torch.rand(40, 8, generator=generator), 0.7 * torch.rand(30, 8, generator=generator)
    case, ctx = cloud_case(make_case, got, real), Context(seed=5)
    clouds = [_in_order(case.features), _in_order(case.real_features[0])]
    draws, values = ctx.generator("subsets"), []
    for _ in range(6):
        one, other = (rows[torch.randperm(len(rows), generator=draws)[:20]] for rows in clouds)
        values.append(float(poly_mmd(one, other)))
    assert np.std(values) > 0
    assert kid(case, ctx, subset_size=20, subsets=6) == pytest.approx(float(np.mean(values)), rel=1e-9)


def _in_order(points: Tensor) -> Tensor:
    """Rows sorted by their last value, ties by the one before."""
    return torch.tensor(sorted(points.double().tolist(), key=lambda row: row[::-1]), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(
    num_got=st.integers(2, 30), num_real=st.integers(2, 30), dim=st.integers(1, 9), seed=st.integers(0, 99)
)
def test_clouds_of_unequal_size_agree_with_the_sums_spelled_out(
    num_got: int, num_real: int, dim: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    got, real = random.random((num_got, dim)), 2 * random.random((num_real, dim))

    def mean(a: Any, b: Any, *, distinct: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (distinct and i == j)]
        return float(np.mean([(a[i] @ b[j] / dim + 1) ** 3 for i, j in pairs]))

    expected = mean(got, got, distinct=True) + mean(real, real, distinct=True)
    expected -= 2 * mean(got, real, distinct=False)
    words = {
        "features": torch.from_numpy(got),
        "protected": torch.ones(num_got, dtype=torch.bool),
        "real_features": (torch.from_numpy(real), None),
    }
    case: Any = type("Stand", (), words)
    assert kid(case) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_subsets_follow_the_seed_and_not_the_order(make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(3)
    got, real = torch.rand(40, 4, generator=generator), torch.rand(40, 4, generator=generator)
    order = torch.randperm(40, generator=generator)
    one, mixed = cloud_case(make_case, got, real), cloud_case(make_case, got[order], real)
    fields = {"subset_size": 10, "subsets": 3}
    state = torch.get_rng_state()
    assert kid(one, Context(seed=1), **fields) == kid(mixed, Context(seed=1), **fields)
    assert kid(one, Context(seed=1), **fields) != kid(one, Context(seed=2), **fields)
    assert torch.equal(state, torch.get_rng_state())


def test_few_images_are_all_taken(make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(4)
    case = cloud_case(
        make_case, torch.rand(12, 4, generator=generator), torch.rand(9, 4, generator=generator)
    )
    assert kid(case, subset_size=12, subsets=7) == kid(case, subset_size=1000, subsets=1)


def test_many_subsets_come_near_to_all_images(make_case: MakeCase) -> None:
    """Unbiased: the mean over subsets estimates what all images give."""
    generator = torch.Generator().manual_seed(5)
    got, real = torch.rand(60, 4, generator=generator), 0.5 * torch.rand(60, 4, generator=generator)
    case = cloud_case(make_case, got, real)
    assert kid(case, subset_size=20, subsets=400) == pytest.approx(kid(case), rel=0.02)


def test_one_image_is_not_measured(make_case: MakeCase) -> None:
    train = labeled([(0.0, 0.0), (1.0, 0.0)], [0, 0])
    assert get_metric("kid")().measure(make_case([(0.5, 0.5)], [0], train=train), Context()) is None
    case = make_case([(0.5, 0.5)], [0], protected=[1], train=train)
    assert get_metric("kid")().measure(case, Context()) is None


@pytest.mark.parametrize("fields", [{"subset_size": 1}, {"subsets": 0}])
def test_impossible_subsets_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="kid: subset_size must be >= 2 and subsets >= 1"):
        get_metric("kid").from_params(fields)
