"""Distances to the true image: known answers, and structural similarity against scikit-image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import one_hots

MakeCase = Callable[..., Case]
NAMES = ("mse", "psnr", "ssim")


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def pairs(make_case: MakeCase) -> Callable[..., Case]:
    def make(
        got: Tensor,
        truth: Tensor | None,
        targets: list[int] | None = None,
        protected: list[bool] | None = None,
    ) -> Case:
        """A cell of reconstructions and the images behind them, of any size; all are protected by default."""
        labels = [0] * len(got) if targets is None else targets
        shielded = [True] * len(got) if protected is None else protected
        case = make_case(one_hots([0]), [0])
        found = Reconstructions.collect(got, torch.tensor(labels))
        return dataclasses.replace(case, got=found, truth=truth, protected=torch.tensor(shielded))

    return make


def measure(name: str, case: Case, *, seed: int = 0) -> Estimate:
    got = get_metric(name)().measure(case, Context(seed=seed))
    assert got is not None
    return got


def test_squared_errors_by_hand(pairs: Callable[..., Case]) -> None:
    truth = torch.zeros(2, 1, 2, 2)
    got = torch.tensor([[1.0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1]]).view(2, 1, 2, 2)
    case = pairs(got, truth)
    assert measure("mse", case).value == pytest.approx((0.25 + 0.01) / 2)
    assert measure("mse", case).count == 2
    # 10 log10 of 1 / 0.25 and of 1 / 0.01: decibels are averaged, not errors
    assert measure("psnr", case).value == pytest.approx((10 * math.log10(4) + 20) / 2, abs=1e-5)


def test_equal_images_have_the_best_values(pairs: Callable[..., Case]) -> None:
    images = random_images(3, 3, 16, 16)
    case = pairs(images, images.clone())
    assert measure("mse", case).value == 0.0
    assert measure("psnr", case).value == pytest.approx(20 * math.log10(255) + 10 * math.log10(12))
    assert measure("ssim", case).value == pytest.approx(1.0, abs=1e-12)


def test_similarity_of_two_flat_images_by_hand(pairs: Callable[..., Case]) -> None:
    """Without any contrast the luminance term alone is left: (2 a b + C1) / (a^2 + b^2 + C1)."""
    got, truth = torch.full((1, 1, 12, 12), 0.25), torch.full((1, 1, 12, 12), 0.75)
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert measure("ssim", pairs(got, truth)).value == pytest.approx(expected, rel=1e-9)


def test_similarity_of_opposite_contrasts_is_negative(pairs: Callable[..., Case]) -> None:
    board = (torch.arange(16)[:, None] + torch.arange(16)).remainder(2).float()[None, None]
    assert measure("ssim", pairs(board, 1 - board)).value < -0.9


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [11, 32])
def test_similarity_agrees_with_scikit_image(size: int, channels: int, pairs: Callable[..., Case]) -> None:
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    truth = random_images(2, channels, size, size)
    got = (truth + 0.3 * random_images(2, channels, size, size, seed=1)).clamp(0, 1)
    expected = [
        structural_similarity(
            one.double().numpy(),
            other.double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for one, other in zip(got, truth)
    ]
    assert measure("ssim", pairs(got, truth)).value == pytest.approx(float(np.mean(expected)), rel=1e-9)


@pytest.mark.parametrize(("size", "window"), [(8, 7), (5, 5)])
def test_small_images_take_the_largest_odd_window(size: int, window: int, pairs: Callable[..., Case]) -> None:
    """Each window's statistics spelled out, with Gaussian weights cut off at the window."""
    got, truth = random_images(1, 1, size, size), random_images(1, 1, size, size, seed=1)
    line = np.exp(-((np.arange(window) - window // 2) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for top in range(size - window + 1):
        for left in range(size - window + 1):
            place = (0, 0, slice(top, top + window), slice(left, left + window))
            a, b = got[place].double().numpy(), truth[place].double().numpy()
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            spread = (weights * (a - mean_a) ** 2).sum() + (weights * (b - mean_b) ** 2).sum()
            shared = (weights * (a - mean_a) * (b - mean_b)).sum()
            light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            values.append(light * (2 * shared + 9e-4) / (spread + 9e-4))
    assert measure("ssim", pairs(got, truth)).value == pytest.approx(np.mean(values), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_class_goals_and_unprotected_rows_are_not_measured(name: str, pairs: Callable[..., Case]) -> None:
    images = random_images(2, 1, 8, 8)
    metric = get_metric(name)()
    assert metric.measure(pairs(images, None), Context()) is None
    assert metric.measure(pairs(images, images, protected=[False, False]), Context()) is None


@pytest.mark.parametrize("name", NAMES)
def test_bystanders_chunks_and_order_change_nothing(name: str, pairs: Callable[..., Case]) -> None:
    got, truth = random_images(5, 1, 8, 8), random_images(5, 1, 8, 8, seed=1)
    targets, protected = [0, 1, 0, 1, 2], [True] * 4 + [False]
    whole = measure(name, pairs(got, truth, targets, protected))
    alone = measure(name, pairs(got[:4], truth[:4], targets[:4]))
    order = torch.tensor([3, 4, 0, 2, 1])
    mixed = pairs(
        got[order], truth[order], [targets[i] for i in order.tolist()], [protected[i] for i in order.tolist()]
    )
    chunked = measure(name, dataclasses.replace(mixed, max_batch=1))
    assert whole == alone
    for field in ("value", "low", "high", "count"):
        assert getattr(chunked, field) == pytest.approx(getattr(whole, field), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_is_drawn_over_labels_by_the_seed(name: str, pairs: Callable[..., Case]) -> None:
    """Two labels, one copied and one not: a draw holds one of them twice in half of the cases."""
    truth = random_images(20, 1, 8, 8)
    got = torch.cat([truth[:10], random_images(10, 1, 8, 8, seed=1)])
    case = pairs(got, truth, [0] * 10 + [1] * 10)
    found = measure(name, case)
    perfect, wrong = (
        measure(name, pairs(got[rows], truth[rows])).value for rows in (slice(10), slice(10, 20))
    )
    assert min(found.low, found.high) <= min(perfect, wrong) + 0.1 * abs(perfect - wrong)
    assert max(found.low, found.high) >= max(perfect, wrong) - 0.1 * abs(perfect - wrong)
    assert found == measure(name, case)
    assert found.low < found.value < found.high
