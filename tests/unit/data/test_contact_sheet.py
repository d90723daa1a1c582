"""Contact sheets: what is drawn, at what size, and where a sheet may not be written."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mibench.data.contact_sheet import (
    LEAST_TILE,
    MOST_TILE,
    Strip,
    check_place,
    contact_sheet,
    draw_strips,
    enlarged,
)
from mibench.data.prepared import PreparedSet
from mibench.errors import DataError

from .make_set import make_set, toy_pixels


@pytest.fixture
def found(tmp_path: Path) -> PreparedSet:
    who = [f"p{place // 5}" for place in range(50)]
    return PreparedSet(make_set(tmp_path, toy_pixels(50), who))


def test_a_draw_repeats_and_follows_its_seed(found: PreparedSet) -> None:
    first, again, other = (draw_strips(found, identities=4, images=3, seed=seed) for seed in (0, 0, 1))
    assert [one.label for one in first] == [one.label for one in again]
    assert all(np.array_equal(one.images, two.images) for one, two in zip(first, again, strict=True))
    assert [one.label for one in first] != [one.label for one in other]


def test_images_are_those_of_the_person_on_the_label(found: PreparedSet) -> None:
    for strip in draw_strips(found, identities=4, images=3, seed=2):
        own = found.pixels[list(found.rows_of[strip.label])]
        assert len(strip.images) == 3
        assert all(any(np.array_equal(image, one) for one in own) for image in strip.images)
        assert len({image.tobytes() for image in strip.images}) == 3


def test_no_more_is_drawn_than_there_is(found: PreparedSet) -> None:
    strips = draw_strips(found, identities=99, images=99, seed=0)
    assert [one.label for one in strips] == [f"p{place}" for place in range(10)]
    assert {len(one.images) for one in strips} == {5}
    assert strips[1].about == "5 of 5, rows 5 to 9"


def test_images_of_nobody_stand_in_lines(tmp_path: Path) -> None:
    names = [str(place) for place in range(20)]
    folder = make_set(tmp_path, toy_pixels(20), names, has_identities=False)
    strips = draw_strips(PreparedSet(folder), identities=2, images=7, seed=0)
    assert [len(one.images) for one in strips] == [7, 7]
    assert len({image.tobytes() for one in strips for image in one.images}) == 14


@pytest.mark.parametrize(("size", "side"), [(8, 96), (64, 128), (96, 96), (128, 128), (256, 256), (512, 256)])
def test_images_are_shown_at_whole_factors(size: int, side: int) -> None:
    image = enlarged(toy_pixels(1, size=size)[0])
    assert image.size == (side, side)
    assert LEAST_TILE <= side <= MOST_TILE


def test_enlarged_pixels_stay_what_they_are() -> None:
    pixels = toy_pixels(1, channels=1, size=24)[0]
    shown = np.asarray(enlarged(pixels))
    np.testing.assert_array_equal(shown[::4, ::4, 0], pixels[0])
    np.testing.assert_array_equal(shown[3::4, 3::4, 2], pixels[0])


def test_a_sheet_is_a_picture_with_every_image_and_without_metadata(found: PreparedSet) -> None:
    strips = draw_strips(found, identities=3, images=5, seed=0)
    data = contact_sheet(strips, title="toy", about="16x16 RGB")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        page = np.asarray(image)
    tile = np.asarray(enlarged(strips[2].images[4]))
    places = np.argwhere((page == tile[0, 0]).all(2))
    assert any(np.array_equal(page[y : y + 96, x : x + 96], tile) for y, x in places)


def test_terms_are_told_in_red_below(found: PreparedSet) -> None:
    strips = draw_strips(found, identities=1, images=1, seed=0)
    pages = [
        np.asarray(Image.open(io.BytesIO(contact_sheet(strips, title="toy", about="", terms=terms))))
        for terms in ("", "Not to be published. " * 20)
    ]
    red = [(page == (153, 27, 27)).all(2).sum() for page in pages]
    assert red[0] == 0
    assert red[1] > 100
    assert pages[1].shape[0] > pages[0].shape[0] + 40  # several lines
    assert pages[1].shape[1] == pages[0].shape[1]


def test_a_sheet_without_a_line_is_refused() -> None:
    with pytest.raises(DataError, match="no image to show"):
        contact_sheet([], title="", about="")


def test_a_long_label_is_cut(found: PreparedSet) -> None:
    strip = Strip("x" * 500, "1 of 1", draw_strips(found, identities=1, images=1, seed=0)[0].images)
    with Image.open(io.BytesIO(contact_sheet([strip], title="y" * 500, about=""))) as image:
        page = np.asarray(image)
    assert (page[:, -16:] == 255).all()


def test_a_sheet_replaces_no_file_and_is_a_png(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to(tmp_path / "gone")
    for name in ("a.png", "b.png"):
        with pytest.raises(DataError, match="is there already"):
            check_place(tmp_path / name, may_publish=True)
    with pytest.raises(DataError, match=r"ends with \.png"):
        check_place(tmp_path / "c.jpg", may_publish=True)


def test_faces_that_may_not_be_shown_stay_out_of_checkouts_that_would_take_them(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/data/\n")
    check_place(tmp_path / "data" / "sheet.png", may_publish=False)
    check_place(tmp_path / "sheet.png", may_publish=True)
    with pytest.raises(DataError, match="git does not ignore this file"):
        check_place(tmp_path / "sheet.png", may_publish=False)
    with pytest.raises(DataError, match="git does not ignore this file"):
        check_place(tmp_path / "new" / "sheet.png", may_publish=False)


def test_without_git_a_checkout_counts_as_one_that_would_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="git does not ignore this file"):
        check_place(tmp_path / "sheet.png", may_publish=False)
