from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.transform import SimilarityTransform

from mibench.data.align import TEMPLATE, FaceFinder, aligned, similarity, template
from mibench.data.layouts.layout import Points
from mibench.data.split import quantize
from mibench.data.synthfaces import SynthFaces
from mibench.errors import DataError


def of_skimage(points: NDArray[np.float64], onto: NDArray[np.float64]) -> NDArray[np.float64]:
    found = SimilarityTransform.from_estimate(points, onto)
    assert found
    return np.asarray(found.params)[:2]


def moved(degrees: float, scale: float, x: float, y: float) -> Points:
    """The template's points at 112 pixels, turned about the origin, scaled, then moved."""
    angle = math.radians(degrees)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return tuple((float(a), float(b)) for a, b in np.array(TEMPLATE) @ turn.T + [x, y])


def waves_at(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth picture at any place: (*shape of x, 3), in [7, 248]."""
    sheets = [np.sin(x / 9) * np.cos(y / 11), np.sin((x + y) / 13), np.cos((x - 2 * y) / 17)]
    return np.asarray(127.5 + 120 * np.stack(sheets, axis=-1))


def waves(width: int, height: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.round(waves_at(x, y)).astype(np.uint8)


def drawn_face(size: int = 160, number: int = 0) -> Image.Image:
    ones = torch.tensor([number])
    picture = quantize(SynthFaces(size=size, nuisance=0.3).render(ones, torch.zeros_like(ones)))[0]
    return Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())


@pytest.mark.parametrize("seed", range(20))
def test_similarity_is_that_of_scikit_image(seed: int) -> None:
    draw = np.random.default_rng(seed)
    points, onto = draw.normal(0, 40, (5, 2)) + 90, template(64)
    found = similarity(points, onto)
    assert found.shape == (2, 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, of_skimage(points, onto), atol=1e-9)


def test_similarity_never_reflects_even_mirrored_points() -> None:
    mirrored = np.array(TEMPLATE) * [-1, 1] + [112, 0]
    found = similarity(mirrored, template(112))
    assert np.linalg.det(found[:, :2]) > 0
    np.testing.assert_allclose(found, of_skimage(mirrored, template(112)), atol=1e-9)


def test_similarity_undoes_what_moved_the_points() -> None:
    points = np.array(moved(30, 2.5, 40, -7))
    found = similarity(points, template(112))
    np.testing.assert_allclose(points @ found[:, :2].T + found[:, 2], template(112), atol=1e-9)


def test_template_scales_with_the_size() -> None:
    np.testing.assert_allclose(template(56) * 2, np.array(TEMPLATE))


@pytest.mark.parametrize(
    "bad", [[[3.0, 4.0]] * 5, [[math.nan, 0.0]] * 5, [[math.inf, 1.0], *[[2.0, 3.0]] * 4]]
)
def test_points_that_make_no_face_are_refused(bad: list[list[float]]) -> None:
    with pytest.raises(DataError, match="landmarks"):
        similarity(np.array(bad), template(64))


def test_aligned_leaves_a_face_that_is_in_position() -> None:
    pixels = waves(112, 112)
    found = aligned(Image.fromarray(pixels), TEMPLATE, size=112)
    assert np.array_equal(np.asarray(found), pixels)


@pytest.mark.parametrize("degrees", [0, 17, -90])
def test_aligned_shows_what_lies_under_the_template(degrees: float) -> None:
    """Against the picture's own formula at the places that scikit-image's transform says."""
    points = moved(degrees, 0.9, 100, 110)
    found = np.asarray(aligned(Image.fromarray(waves(300, 280)), points, size=112), dtype=np.float64)
    (a, b, c), (d, e, f) = of_skimage(template(112), np.array(points))
    y, x = np.mgrid[:112, :112]
    away = found - waves_at(a * x + b * y + c, d * x + e * y + f)
    assert np.abs(away).max() < 1.5  # both pictures are rounded to whole levels
    assert abs(away.mean()) < 0.05  # no half level is lost by cutting fractions off


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.7, 9.0])
def test_aligned_averages_what_it_shrinks(scale: float) -> None:
    """A pattern finer than the result's pixels must come out as its mean, not as moire."""
    side = round(112 * scale)
    board = (np.indices((side, side)).sum(axis=0) % 2 * 255).astype(np.uint8)
    points = moved(0, scale, scale * 0.5 - 0.5, scale * 0.5 - 0.5)
    found = np.asarray(aligned(Image.fromarray(board), points, size=112), dtype=np.float64)
    assert np.abs(found[4:-4, 4:-4] - 127.5).max() < 16


@pytest.mark.parametrize("scale", [2.0, 5.0])
def test_aligned_shrinks_without_moving(scale: float) -> None:
    smooth = Image.fromarray(waves(140, 140))
    large = smooth.resize((round(140 * scale), round(140 * scale)), Image.Resampling.BICUBIC)
    middle = scale * 0.5 - 0.5
    small = aligned(large, moved(0, scale, 10 * scale + middle, 10 * scale + middle), size=112)
    wanted = np.asarray(smooth, dtype=np.float64)[10:122, 10:122]
    assert np.abs(np.asarray(small, dtype=np.float64) - wanted).mean() < 1


def test_edge_pixels_are_repeated_outside_the_photo() -> None:
    pixels = waves(60, 60)
    points = moved(0, 1.0, -30, 0)  # the result begins 30 pixels left of the photo
    found = np.asarray(aligned(Image.fromarray(pixels), points, size=112))
    assert np.array_equal(found[:60, :30], np.repeat(pixels[:, :1], 30, axis=1))
    assert np.array_equal(found[59:, 30:90], np.repeat(pixels[-1:], 53, axis=0))


def test_gray_photos_stay_gray() -> None:
    image = Image.fromarray(waves(120, 90)).convert("L")
    found = aligned(image, moved(5, 0.6, 20, 10), size=64)
    assert (found.mode, found.size) == ("L", (64, 64))


def test_aligned_refuses_a_face_far_larger_than_the_photo() -> None:
    with pytest.raises(DataError, match="would span"):
        aligned(Image.fromarray(waves(60, 60)), moved(0, 1e6, 0, 0), size=64)


@pytest.mark.parametrize(("mode", "count"), [("CMYK", 5), ("RGB", 4)])
def test_aligned_refuses_what_it_does_not_take(mode: str, count: int) -> None:
    with pytest.raises(ValueError, match="five points"):
        aligned(Image.new(mode, (64, 64)), TEMPLATE[:count], size=64)


def global_numpy() -> NDArray[np.uint32]:
    state: Any = np.random.get_state()
    return np.array(state[1])


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder(torch.device("cpu"))


def test_a_drawn_face_is_found_with_its_points_in_place(finder: FaceFinder) -> None:
    points = finder.find(drawn_face())
    assert points is not None
    left, right, nose, left_mouth, right_mouth = points
    assert left[0] < nose[0] < right[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left[1], right[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_points_follow_a_photo_that_is_enlarged(finder: FaceFinder) -> None:
    """Above 1024 pixels the search runs on a smaller copy; its points must come back in photo pixels."""
    small = drawn_face(256)
    large = small.resize((1280, 1280), Image.Resampling.BICUBIC)
    found, wanted = finder.find(large), finder.find(small)
    assert found is not None
    assert wanted is not None
    away = np.array(found) - ((np.array(wanted) + 0.5) * 5 - 0.5)
    assert np.abs(away).max() < 40  # of 1280: the nets see other pixels of the copy


def test_aligning_a_turned_face_gives_the_upright_one(finder: FaceFinder) -> None:
    upright = drawn_face(256, number=3)
    turned = upright.rotate(20, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))
    results = []
    for image in (upright, turned):
        points = finder.find(image)
        assert points is not None
        results.append(
            np.asarray(aligned(image, points, size=64).convert("L"), dtype=np.float64)[12:52, 12:52]
        )
    assert np.corrcoef(results[0].flatten(), results[1].flatten())[0, 1] > 0.9


@pytest.mark.parametrize("size", [(128, 128), (1, 1), (19, 400), (25, 2000), (3000, 30)])
def test_nothing_is_found_where_there_is_no_face(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert finder.find(Image.new("RGB", size, (90, 120, 60))) is None


def test_nothing_is_found_in_noise(finder: FaceFinder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    assert finder.find(Image.fromarray(noise)) is None


def test_gray_photos_are_searched_too(finder: FaceFinder) -> None:
    assert finder.find(drawn_face().convert("L")) is not None


@pytest.mark.parametrize("is_left", [True, False])
def test_of_two_faces_the_large_one_near_the_middle_is_taken(finder: FaceFinder, is_left: bool) -> None:
    photo = Image.new("RGB", (400, 200), (110, 110, 110))
    photo.paste(drawn_face(160), (120, 20))
    photo.paste(drawn_face(96, number=1), (0, 50) if is_left else (304, 50))
    points = finder.find(photo)
    assert points is not None
    assert all(120 <= x < 280 for x, _ in points)


def test_finding_repeats_and_leaves_the_global_random_state() -> None:
    face = drawn_face()
    states = torch.get_rng_state(), global_numpy(), random.getstate()
    first = FaceFinder(torch.device("cpu")).find(face)
    second = FaceFinder(torch.device("cpu")).find(face)
    assert first == second
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(global_numpy(), states[1])
    assert random.getstate() == states[2]
