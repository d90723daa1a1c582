"""Random views: neutral ones change nothing, each row draws its own, crops keep to their ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.augment import Views
from mibench.building import build_dataclass
from mibench.noise import Noise

EVERY = Views(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5, turn=20.0, jitter=0.3, jitter_rate=0.7)


def streams(count: int, seed: int = 0) -> Noise:
    return Noise.of_targets(seed, torch.zeros(count, dtype=torch.int64))


def photos(count: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def ramps(count: int, size: int = 16) -> Tensor:
    """Images of two channels that hold the coordinates of their pixels, in [-1, 1]."""
    at = (2 * torch.arange(size) + 1) / size - 1
    return torch.stack([at.expand(size, size), at[:, None].expand(size, size)]).expand(count, -1, -1, -1)


def maps(views: Views, count: int) -> tuple[Tensor, Tensor]:
    """Matrices (count, 2, 2) and shifts (count, 2) from a view's coordinates to the image's.

    Read off the middle of views of coordinates: bilinear sampling of a linear picture is exact there.
    """
    seen = views.of(ramps(count, 64), streams(count))
    step = 2 / 64
    across = (seen[:, :, 32, 33] - seen[:, :, 32, 32]) / step
    along = (seen[:, :, 33, 32] - seen[:, :, 32, 32]) / step
    return torch.stack([across, along], dim=2), seen[:, :, 31:33, 31:33].mean((2, 3))


def test_neutral_views_are_the_images_to_the_bit() -> None:
    x = photos(5)
    assert torch.equal(Views().of(x, streams(5)), x)
    assert torch.equal(Views(jitter=0.5, jitter_rate=0.0).of(x, streams(5)), x)


def test_a_whole_crop_is_the_image() -> None:
    x = photos(4)
    almost = Views(turn=1e-9)
    assert almost.is_warped
    torch.testing.assert_close(almost.of(x, streams(4)), x, atol=1e-5, rtol=0)


def test_mirroring_is_exact_and_its_own_inverse() -> None:
    x, always = photos(6), Views(flip=1.0)
    once = always.of(x, streams(6))
    assert torch.equal(once, x.flip(3))
    assert not torch.equal(once, x)
    assert torch.equal(always.of(once, streams(6)), x)


def test_each_row_is_mirrored_or_not_at_the_rate_asked_for() -> None:
    x = photos(1).expand(2_000, -1, -1, -1)
    seen = Views(flip=0.3).of(x, streams(2_000))
    mirrored = (seen == x.flip(3)).flatten(1).all(1)
    plain = (seen == x).flatten(1).all(1)
    assert bool((mirrored ^ plain).all())
    assert 0.26 < float(mirrored.float().mean()) < 0.34


def test_crops_cover_the_range_of_areas_and_lie_inside() -> None:
    matrix, shift = maps(Views(scale=(0.25, 0.64)), 1_000)
    width, height = matrix[:, 0, 0], matrix[:, 1, 1]
    area = width * height
    torch.testing.assert_close(width, height, atol=1e-4, rtol=0)
    assert 0.25 - 1e-3 <= float(area.min()) < 0.26
    assert 0.63 < float(area.max()) <= 0.64 + 1e-3
    assert abs(float(area.mean()) - (0.25 + 0.64) / 2) < 0.02  # even in area, not in width
    room = 1 - torch.stack([width, height], dim=1)
    assert bool((shift.abs() <= room + 1e-3).all())
    assert bool(((shift / room).amax(0) > 0.97).all())
    assert bool(((shift / room).amin(0) < -0.97).all())


def test_crops_are_stretched_within_their_range() -> None:
    matrix, _ = maps(Views(scale=(0.5, 0.5), ratio=(0.8, 1.25)), 1_000)
    ratio = matrix[:, 0, 0] / matrix[:, 1, 1]
    torch.testing.assert_close(
        matrix[:, 0, 0] * matrix[:, 1, 1], torch.full((1_000,), 0.5), atol=1e-3, rtol=0
    )
    assert 0.8 - 1e-3 <= float(ratio.min()) < 0.81
    assert 1.23 < float(ratio.max()) <= 1.25 + 1e-3
    assert abs(float(ratio.log().mean())) < 0.02  # as often wide as tall


def test_turns_keep_lengths_and_their_range() -> None:
    matrix, shift = maps(Views(turn=30.0), 500)
    torch.testing.assert_close(
        matrix @ matrix.transpose(1, 2), torch.eye(2).expand(500, 2, 2), atol=1e-3, rtol=0
    )
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]) * 180 / math.pi
    assert 29 < float(angle.abs().max()) <= 30.01
    assert float(angle.min()) < -28 < 28 < float(angle.max())
    assert float(shift.abs().max()) < 1e-4


def test_a_tint_of_a_plain_image_is_its_brightness() -> None:
    x = torch.full((800, 3, 4, 4), 0.5)
    seen = Views(jitter=0.2, jitter_rate=0.75).of(x, streams(800))
    level = seen.amax((1, 2, 3))
    torch.testing.assert_close(level, seen.amin((1, 2, 3)))
    assert 0.4 - 1e-6 <= float(level.min()) < 0.41
    assert 0.59 < float(level.max()) <= 0.6 + 1e-6
    assert 0.2 < float((level == 0.5).float().mean()) < 0.3


def test_a_tint_scales_the_contrast_around_the_mean() -> None:
    x = photos(300) * 0.2 + 0.4
    seen = Views(jitter=0.2).of(x, streams(300))
    factor = seen.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.8 - 1e-4 <= float(factor.min()) < 0.82
    assert 1.18 < float(factor.max()) <= 1.2 + 1e-4


@settings(deadline=None, max_examples=20)
@given(rows=st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True))
def test_rows_do_not_meet(rows: list[int]) -> None:
    x, noise = photos(8), streams(8)
    alone = EVERY.of(x[rows], noise[torch.tensor(rows)])
    torch.testing.assert_close(alone, EVERY.of(x, noise)[rows], atol=1e-6, rtol=0)


def test_rows_steps_and_purposes_have_views_of_their_own() -> None:
    x = photos(1).expand(5, -1, -1, -1)
    seen = EVERY.of(x, streams(5))
    assert len(seen.flatten(1).unique(dim=0)) == 5
    for other in (
        EVERY.of(x, streams(5), step=1),
        EVERY.of(x, streams(5), purpose="choice"),
        EVERY.of(x, streams(5, seed=1)),
    ):
        assert bool((other != seen).flatten(1).any(1).all())
    assert torch.equal(EVERY.of(x, streams(5)), seen)


def test_views_leave_the_global_state_and_the_range_of_pixels() -> None:
    before = torch.get_rng_state()
    seen = EVERY.of(photos(50), streams(50))
    assert torch.equal(torch.get_rng_state(), before)
    assert seen.shape == (50, 3, 8, 8)
    assert seen.dtype == torch.float32
    assert 0 <= seen.min() <= seen.max() <= 1


def test_gradients_flow_to_the_row_that_is_seen_alone() -> None:
    x = photos(4).requires_grad_(True)
    (slope,) = torch.autograd.grad(EVERY.of(x, streams(4))[2].sum(), x)
    assert float(slope[2].abs().sum()) > 0
    assert not slope[[0, 1, 3]].any()
    # what is cropped away has no say: a corner crop of a quarter leaves most pixels without a slope
    tight = Views(scale=(0.25, 0.25))
    (slope,) = torch.autograd.grad(tight.of(x, streams(4)).sum(), x)
    share = (slope != 0).float().mean((1, 2, 3))
    assert bool((share < 0.6).all())
    torch.testing.assert_close(slope.sum((2, 3)), torch.full((4, 3), 64.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.0, 1.0)}, r"scale must be two rising numbers > 0, got \[0.0, 1.0\]"),
        ({"scale": (0.9, 0.5)}, "scale must be two rising"),
        ({"scale": (0.5, 1.1)}, "scale must be two rising"),
        ({"ratio": (1.2, 0.8)}, "ratio must be two rising"),
        ({"flip": 1.5}, r"flip must lie in \[0, 1\], got 1.5"),
        ({"jitter_rate": -0.1}, r"jitter_rate must lie in \[0, 1\]"),
        ({"turn": -1.0}, "turn must be >= 0 and jitter"),
        ({"jitter": 1.0}, "got 0.0 and 1.0"),
    ],
)
def test_impossible_ranges_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(**options)


def test_views_come_from_a_table_and_an_unknown_range_is_named() -> None:
    assert build_dataclass(Views, {"scale": [0.9, 1], "flip": 0.5}, where="views") == Views(
        scale=(0.9, 1.0), flip=0.5
    )
    with pytest.raises(ValueError, match=r"no field 'scales'\. Did you mean 'scale'"):
        build_dataclass(Views, {"scales": [0.9, 1]}, where="views")
