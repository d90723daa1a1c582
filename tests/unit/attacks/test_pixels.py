"""Known answers of image processing in pixel space: non-local means and stretching."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pixels: Any = importlib.import_module("mibench.attacks._pixels")


def noisy(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(x: Tensor, strength: float, patch: int, window: int) -> Tensor:
    """Non-local means of one image (C, H, W), pixel by pixel, with repeated borders."""
    channels, height, width = x.shape
    reach, rim = window // 2, patch // 2

    def at(row: int, col: int) -> Tensor:
        return x[:, min(max(row, 0), height - 1), min(max(col, 0), width - 1)]

    def gap(row: int, col: int, down: int, right: int) -> float:
        total = 0.0
        for i in range(-rim, rim + 1):
            for j in range(-rim, rim + 1):
                # differences are repeated beyond the border, as pixels are
                r, c = min(max(row + i, 0), height - 1), min(max(col + j, 0), width - 1)
                total += float((at(r, c) - at(r + down, c + right)).square().sum())
        return total / (channels * patch**2)

    out = torch.zeros_like(x)
    for row in range(height):
        for col in range(width):
            weights = 0.0
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    weight = math.exp(-gap(row, col, down, right) / strength**2)
                    out[:, row, col] += weight * at(row + down, col + right)
                    weights += weight
            out[:, row, col] /= weights
    return out


@pytest.mark.parametrize(("patch", "window"), [(1, 3), (3, 5)])
def test_non_local_means_are_those_computed_by_hand(patch: int, window: int) -> None:
    x = noisy(2, 3, 5, 6)
    got = pixels.NonLocalMeans(strength=0.4, patch=patch, window=window).of(x)
    for image, one in zip(x, got):
        torch.testing.assert_close(one, by_hand(image, 0.4, patch, window), atol=1e-5, rtol=0)


def test_non_local_means_leave_a_plain_image_and_take_noise_off_an_edge_without_moving_it() -> None:
    plain = torch.full((1, 3, 8, 8), 0.3)
    denoise = pixels.NonLocalMeans(strength=0.15)
    torch.testing.assert_close(denoise.of(plain), plain)
    edge = torch.zeros(1, 1, 12, 12)
    edge[..., 6:] = 1
    rough = edge + 0.05 * (noisy(1, 1, 12, 12) - 0.5)
    got = denoise.of(rough)
    assert (got - edge).square().mean() < 0.3 * (rough - edge).square().mean()
    blurred = pixels.blur(rough, 0.7)
    assert (got - edge).square().mean() < (blurred - edge).square().mean()


def test_a_strong_non_local_mean_is_the_mean_of_the_window_and_a_weak_one_does_nothing() -> None:
    x = noisy(2, 3, 7, 7)
    strong = pixels.NonLocalMeans(strength=1e6, window=3).of(x)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    torch.testing.assert_close(strong, F.avg_pool2d(padded, 3, stride=1))
    torch.testing.assert_close(pixels.NonLocalMeans(strength=1e-4).of(x), x)


def test_non_local_means_see_each_image_on_its_own() -> None:
    x, denoise = noisy(3, 3, 6, 6), pixels.NonLocalMeans()
    torch.testing.assert_close(denoise.of(x)[1:2], denoise.of(x[1:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.0}, "strength must be > 0, got 0.0"),
        ({"patch": 2}, "patch must be odd and >= 1, got 2"),
        ({"window": 0}, "window must be odd and >= 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"nlm: {message}"):
        pixels.NonLocalMeans(**options)


def test_stretching_reaches_both_ends_and_is_idempotent() -> None:
    x = 3 * noisy(2, 3, 4, 4) - 1
    got = pixels.rescale(x)
    assert got.amin((1, 2, 3)).tolist() == [0.0, 0.0]
    assert got.amax((1, 2, 3)).tolist() == [1.0, 1.0]
    torch.testing.assert_close(pixels.rescale(got), got)
    assert pixels.rescale(torch.full((1, 1, 2, 2), 1.5)).unique().tolist() == [1.0]


def test_an_unsharp_mask_of_amount_zero_is_the_identity() -> None:
    x = noisy(1, 3, 5, 5)
    assert torch.equal(pixels.unsharp(x, 0.0, 0.5), x)
