"""Odd images are counted, ordinary ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mibench.data.finding import Finding
from mibench.data.health import DARK_MEAN, content_of, examine, images_each
from mibench.data.prepared import PreparedSet

from .make_set import make_set, toy_pixels


def found(folder: Path) -> dict[str, Finding]:
    return {one.what: one for one in examine(PreparedSet(folder))}


def test_each_kind_of_odd_image_is_found_at_its_row() -> None:
    pixels = toy_pixels(1200)
    pixels[3] = 0  # black, so blank and no more
    pixels[700] = 200
    pixels[701] = (pixels[701] / 255 * 2 * (DARK_MEAN - 1)).astype(np.uint8)
    pixels[5] = pixels[5, :1]
    pixels[1100] = pixels[2]
    seen: list[int] = []
    content = content_of(pixels, seen.append)
    assert (content.flat, content.dark) == ([3, 700], [701])
    assert content.gray == [5]
    assert content.repeated == [(1100, 2)]
    assert sum(seen) == content.images == 1200


def test_one_color_all_over_is_blank() -> None:
    pixels = toy_pixels(4)
    pixels[1] = np.array([255, 0, 0], np.uint8)[:, None, None]  # a red pixel, enlarged
    pixels[2, 1:] = 40  # the red channel alone shows something
    assert content_of(pixels).flat == [1]


def test_noise_of_jpeg_hides_neither_blank_nor_gray_images(tmp_path: Path) -> None:
    blank = np.full((64, 64, 3), (90, 91, 90), np.uint8)
    gray = np.repeat(toy_pixels(1, channels=1, size=8)[0, 0].repeat(8, 0).repeat(8, 1)[..., None], 3, 2)
    color = toy_pixels(1, size=8)[0].transpose(1, 2, 0).repeat(8, 0).repeat(8, 1)
    rows = []
    for place, image in enumerate((blank, gray, color)):
        Image.fromarray(image).save(tmp_path / f"{place}.jpg", quality=60)
        with Image.open(tmp_path / f"{place}.jpg") as opened:
            rows.append(np.asarray(opened).transpose(2, 0, 1))
    content = content_of(np.stack(rows))
    assert (content.flat, content.gray) == ([0], [1])


def test_gray_sets_have_no_gray_images() -> None:
    assert content_of(toy_pixels(3, channels=1)).gray == []


def test_a_good_set_raises_no_warning(tmp_path: Path) -> None:
    folder = make_set(tmp_path, toy_pixels(12), [str(place // 2) for place in range(12)])
    assert {one.status for one in found(folder).values()} == {"ok"}
    assert found(folder)["people"].text == "6, each with 2 images or more"
    assert images_each(PreparedSet(folder)) == [2] * 6


def test_people_with_one_image_are_named(tmp_path: Path) -> None:
    folder = make_set(tmp_path, toy_pixels(9), list("aabbcdefg"))
    people = found(folder)["people"]
    assert people.status == "warn"
    assert people.text.startswith("5 of 7 have one image (c, d, e and 2 more)")


def test_two_people_are_too_few(tmp_path: Path) -> None:
    people = found(make_set(tmp_path, toy_pixels(4), list("aabb")))["people"]
    assert (people.status, people.text[:13]) == ("warn", "2 identities:")


def test_images_of_nobody_have_no_people(tmp_path: Path) -> None:
    assert "people" not in found(make_set(tmp_path, toy_pixels(4), list("abcd"), has_identities=False))


@pytest.mark.parametrize(("copies", "status"), [(1, "ok"), (2, "warn")])
def test_more_than_one_percent_of_copies_is_told(tmp_path: Path, copies: int, status: str) -> None:
    skipped = [(f"{place}.png", "same bytes as another image of this identity") for place in range(copies)]
    skipped += [("x.png", "is empty")]
    count = 100 - copies
    who = [str(place // 7) for place in range(count)]
    folder = make_set(
        tmp_path,
        toy_pixels(count),
        who,
        skipped=skipped,
        options={"found_images": 101} if copies == 1 else {},
    )
    assert found(folder)["copies"].status == status
    assert found(folder)["copies"].text.startswith(f"{copies} of {102 - copies} images")


def test_equal_images_of_two_people_are_a_mistake_in_the_names(tmp_path: Path) -> None:
    pixels: Any = toy_pixels(8)
    pixels[1] = pixels[0]
    pixels[7] = pixels[2]
    repeated = found(make_set(tmp_path, pixels, list("aabbccdd")))["repeated"]
    assert repeated.status == "warn"
    assert repeated.text.startswith("2 images with the pixels of an earlier one, 1 of them of someone else")
    pairs = "row 7 (d/7.png) is row 2 (b/2.png), row 1 (a/1.png) is row 0 (a/0.png). Remove"
    assert pairs in repeated.text
    assert "--restart" in repeated.text


def test_a_finding_names_as_many_as_are_asked_for(tmp_path: Path) -> None:
    pixels: Any = toy_pixels(12)
    pixels[6:] = pixels[:6]
    folder = PreparedSet(make_set(tmp_path, pixels, [str(place // 2) for place in range(12)]))
    texts = {most: {one.what: one.text for one in examine(folder, most=most)} for most in (3, 6)}
    assert "row 8 (4/8.png) is row 2 (1/2.png) and 3 more. Remove" in texts[3]["repeated"]
    assert "row 11 (5/11.png) is row 5 (2/5.png). Remove" in texts[6]["repeated"]


def test_a_few_gray_images_are_counted_and_many_are_warned_of(tmp_path: Path) -> None:
    pixels = toy_pixels(200)
    pixels[0] = pixels[0, :1]
    who = [str(place // 5) for place in range(200)]
    few = found(make_set(tmp_path, pixels, who))["gray"]
    pixels[:3] = pixels[:3, :1]
    many = found(make_set(tmp_path, pixels, who, name="many"))["gray"]
    assert (few.status, few.text) == ("ok", "1 image without color")
    assert many.status == "warn"
    assert many.text.startswith(
        "3 images without color: row 0 (0/0.png), row 1 (0/1.png), row 2 (0/2.png). An attack"
    )
