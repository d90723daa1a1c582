"""Gram matrices, HSIC and COCO against values that can be computed by hand."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

# private helpers of a family have no name in the registry
dependence: Any = importlib.import_module("mibench.defenses._dependence")
RIDGE = 1e-5


def one_hot(*labels: int) -> Tensor:
    return F.one_hot(torch.tensor(labels)).float()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(rows: Tensor) -> Tensor:
    found: Tensor = dependence.gram(rows, "linear", 5.0)
    return found


def gaussian(rows: Tensor, sigma: object = 5.0) -> Tensor:
    found: Tensor = dependence.gram(rows, "gaussian", sigma)
    return found


def hsic(one: Tensor, other: Tensor, ridge: float = RIDGE) -> float:
    return float(dependence.normalized_hsic(one, other, ridge=ridge))


def coco(one: Tensor, other: Tensor, norm: str = "frobenius") -> float:
    return float(dependence.coco(one, other, norm=norm))


def test_kernels_are_their_formulas() -> None:
    rows = noise(5, 2, 3)
    flat = rows.flatten(1).double()
    squares = (flat[:, None] - flat).square().sum(2)
    assert torch.allclose(gaussian(rows, 0.7), (-squares / (2 * 0.7**2 * 6)).exp(), atol=1e-5)
    assert torch.allclose(linear(rows), flat @ flat.T)
    assert torch.allclose(dependence.gram(rows, "imq", 5.0), (squares + 1).rsqrt(), atol=1e-5)


def test_the_median_bandwidth_is_that_of_the_pairs_and_no_constant_kernel() -> None:
    rows = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4, 9
    got = gaussian(rows, "median")
    assert float(got[0, 1]) == pytest.approx(math.exp(-1 / 8))
    assert float(got[1, 2]) == pytest.approx(math.exp(-4 / 8))
    assert torch.allclose(gaussian(1000 * rows, "median"), got)


@pytest.mark.parametrize(
    ("labels", "wanted_hsic", "frobenius", "spectral"),
    [((0, 0, 1, 1), 0.99996, 0.5, 0.5), ((0, 1, 2, 3), 2.99976, 0.32902, 0.25)],
)
def test_labels_with_themselves(
    labels: tuple[int, ...], wanted_hsic: float, frobenius: float, spectral: float
) -> None:
    y = linear(one_hot(*labels))
    assert hsic(y, y) == pytest.approx(wanted_hsic, abs=2e-5)
    assert coco(y, y) == pytest.approx(frobenius, abs=1e-5)
    assert coco(y, y, "spectral") == pytest.approx(spectral, abs=1e-5)


def test_plain_hsic_of_balanced_labels() -> None:
    """H K H has entries of 1/2 for two balanced classes of four: 16 / 4 over 3 squared."""
    y = linear(one_hot(0, 0, 1, 1))
    assert float(dependence.plain_hsic(y, y)) == pytest.approx(4 / 9)


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "imq"])
def test_constant_features_depend_on_nothing(kernel: str) -> None:
    flat, other = dependence.gram(torch.full((6, 3), 0.3), kernel, 5.0), gaussian(noise(6, 4))
    assert hsic(flat, other) == pytest.approx(0, abs=1e-3)
    assert coco(flat, other) == pytest.approx(0, abs=1e-6)
    assert float(dependence.plain_hsic(flat, other)) == pytest.approx(0, abs=1e-7)
    assert float(dependence.alignment(flat, other)) == pytest.approx(0, abs=1e-3)


def test_normalized_hsic_with_labels_is_bounded_by_the_classes_less_one() -> None:
    y = linear(one_hot(*[label for label in range(4) for _ in range(4)]))
    for seed in range(3):
        assert 0 < hsic(gaussian(noise(16, 20, seed=seed)), y) <= 3 + 1e-3


def test_the_order_of_the_batch_does_not_matter() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    x, z = noise(12, 5), noise(12, 3, seed=1)
    pairs = (gaussian(x), gaussian(z)), (gaussian(x[order]), gaussian(z[order]))
    for measure in (hsic, coco):
        first, second = (measure(*pair) for pair in pairs)
        assert first == pytest.approx(second, rel=1e-4)


def test_the_authors_setting_saturates_and_a_fitting_bandwidth_with_plain_hsic_does_not() -> None:
    """Independent noise counts for more than the images themselves: the trap that the docs describe."""
    x = torch.rand(64, 300, generator=torch.Generator().manual_seed(0))
    z = noise(64, 300, seed=1)
    assert hsic(gaussian(x), gaussian(z)) > hsic(gaussian(x), gaussian(x)) > 40
    same, other = (
        float(dependence.plain_hsic(gaussian(x, "median"), gaussian(rows, "median"))) for rows in (x, z)
    )
    assert same > other > 0
    by_chance = dependence.excess_alignment(
        gaussian(x, "median"), gaussian(z, "median"), torch.Generator().manual_seed(0)
    )
    assert abs(by_chance) < 0.02
    assert (
        dependence.excess_alignment(
            gaussian(x, "median"), gaussian(x, "median"), torch.Generator().manual_seed(0)
        )
        > 0.02
    )


@pytest.mark.parametrize("kernel", ["gaussian", "linear", "imq"])
@pytest.mark.parametrize("sigma", [5.0, "median"])
@pytest.mark.parametrize("rows", ["repeated", "constant"])
def test_gradients_stay_finite_where_rows_repeat(kernel: str, sigma: object, rows: str) -> None:
    start = noise(4, 6).repeat(2, 1) if rows == "repeated" else torch.full((8, 6), 0.5)
    y = linear(one_hot(0, 0, 1, 1, 2, 2, 3, 3))
    measures: list[Callable[[Tensor], Tensor]] = [
        lambda k: dependence.normalized_hsic(k, y, ridge=RIDGE),
        lambda k: dependence.coco(k, y, norm="frobenius"),
        lambda k: dependence.coco(k, y, norm="spectral"),
        lambda k: dependence.plain_hsic(k, y),
    ]
    for measure in measures:
        z = start.clone().requires_grad_(True)
        value = measure(dependence.gram(z, kernel, sigma))
        (slope,) = torch.autograd.grad(value, z)
        assert math.isfinite(float(value.detach()))
        assert bool(torch.isfinite(slope).all())
