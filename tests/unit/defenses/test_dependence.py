"""Gram matrices, HSIC and COCO against values that can be computed by hand."""

from __future__ import annotations

import importlib
import itertools
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
    assert float(dependence.corrected_alignment(flat, other)) == pytest.approx(0, abs=1e-3)


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


def high_dimensional() -> tuple[Tensor, Tensor, Tensor]:
    """64 images of uniform noise, independent normal noise, and a random layer of the images."""
    x = torch.rand(64, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))
    layer = noise(x.shape[1], 2000, seed=2) / x.shape[1] ** 0.5
    return x, noise(*x.shape, seed=1), (x - 0.5) @ layer


def test_the_authors_setting_counts_directions_whether_or_not_they_depend() -> None:
    """The trap that the docstring of BiDO describes, with its figures."""
    x, z, _ = high_dimensional()
    apart = gaussian(x)[~torch.eye(64).bool()]
    assert float(apart.min()) > 0.996
    assert float(apart.max()) < 0.998
    assert hsic(gaussian(x), gaussian(x)) == pytest.approx(44, abs=1)
    assert hsic(gaussian(x), gaussian(z)) == pytest.approx(52, abs=1)
    assert hsic(gaussian(x), gaussian(torch.full_like(x, 0.3))) == pytest.approx(0, abs=1e-3)
    people = linear(one_hot(*[label for label in range(16) for _ in range(4)]))
    assert hsic(gaussian(z), people) == pytest.approx(14.8, abs=0.1)


def test_a_fitting_bandwidth_alone_does_not_tell_dependence_from_none() -> None:
    x, z, _ = (gaussian(rows, "median") for rows in high_dimensional())
    assert hsic(x, x) == pytest.approx(62.8, abs=0.1)
    assert hsic(x, z) == pytest.approx(62.8, abs=0.1)
    assert hsic(x, x, 1e-2) == pytest.approx(9.1, abs=0.1)
    assert hsic(x, z, 1e-2) == pytest.approx(9.1, abs=0.1)
    plain = [float(dependence.plain_hsic(x, other)) for other in (x, z)]
    assert plain == pytest.approx([0.0025, 0.0025], abs=1e-4)


def test_the_corrected_alignment_tells_dependence_from_none_in_high_dimension() -> None:
    rows = high_dimensional()
    for factor in (1.0, 1000.0):
        x, z, hidden = (gaussian(factor * part, "median") for part in rows)
        assert float(dependence.corrected_alignment(x, x)) == pytest.approx(1)
        assert abs(float(dependence.corrected_alignment(x, z))) < 0.05
        assert float(dependence.corrected_alignment(x, hidden)) > 0.5
    constant = gaussian(torch.full_like(rows[0], 0.3), "median")
    assert float(dependence.corrected_alignment(gaussian(rows[0], "median"), constant)) == 0


def test_the_correction_is_the_mean_over_all_orders_of_the_batch() -> None:
    """Five rows have 120 orders; the corrected alignment of two matrices has a mean of zero over them."""
    a, b = gaussian(noise(5, 2), 1.0), gaussian(noise(5, 3, seed=1), 1.0)
    found = []
    for order in itertools.permutations(range(5)):
        rows = torch.tensor(order)
        found.append(float(dependence.corrected_alignment(a, b[rows][:, rows])))
    assert sum(found) / len(found) == pytest.approx(0, abs=1e-9)
    assert max(found) > 0.1
    assert all(-1 <= value <= 1 for value in found)


def test_the_excess_above_shuffled_views_is_calibrated_for_the_record() -> None:
    x, z, _ = (gaussian(rows, "median") for rows in high_dimensional())
    excess = [dependence.excess_alignment(x, other, torch.Generator().manual_seed(0)) for other in (x, z)]
    assert excess[0] > 0.005
    assert abs(excess[1]) < 0.002


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
        lambda k: dependence.corrected_alignment(k, y),
    ]
    for measure in measures:
        z = start.clone().requires_grad_(True)
        value = measure(dependence.gram(z, kernel, sigma))
        (slope,) = torch.autograd.grad(value, z)
        assert math.isfinite(float(value.detach()))
        assert bool(torch.isfinite(slope).all())
