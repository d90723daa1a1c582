"""Images of a cell on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mibench.errors import RecordError
from mibench.report import remove_cell_images, save_cell_images
from mibench.report.tiles import PAPER, _paletted, enlarge, read_layout, read_tiles

Make = Callable[..., Any]
LABELS, PROTECTED = [3, 7, 19, 42, 5, 8], [True] * 4 + [False] * 2


def save(folder: Path, tiles: Any) -> list[Path]:
    real, got, nearest = tiles
    return save_cell_images(folder, real, got, nearest=nearest, labels=LABELS, protected=PROTECTED)


def test_strips_come_back_bit_for_bit(make_tiles: Make, tmp_path: Path) -> None:
    tiles = make_tiles("bido", num=3)
    paths = save(tmp_path / "cell", tiles)
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "cell").iterdir()}
    layout = read_layout(tmp_path / "cell")
    assert layout is not None
    assert (layout.labels, layout.protected, layout.size) == (tuple(LABELS), tuple(PROTECTED), (32, 32))
    for kind, expected in zip(("real", "got", "nearest"), tiles):
        assert np.array_equal(read_tiles(tmp_path / "cell", kind, layout), expected)  # type: ignore[arg-type]


def test_all_that_is_written_can_be_removed(make_tiles: Make, tmp_path: Path) -> None:
    save(tmp_path / "cell", make_tiles("bido", num=3))
    (tmp_path / "cell" / "evidence.json").write_text("{}")
    for _ in range(2):
        remove_cell_images(tmp_path / "cell")
        assert [path.name for path in (tmp_path / "cell").iterdir()] == ["evidence.json"]
    remove_cell_images(tmp_path / "absent")


def test_strips_have_no_margins(make_tiles: Make, tmp_path: Path) -> None:
    real, got, _ = make_tiles(num=3)
    save_cell_images(tmp_path, real, got, labels=LABELS, protected=PROTECTED)
    with Image.open(tmp_path / "got.png") as strip:
        assert strip.size == (3 * 32, 6 * 32)
    assert not (tmp_path / "nearest.png").exists()


def test_the_picture_is_large_enough_to_see_and_the_same_every_time(make_tiles: Make, tmp_path: Path) -> None:
    save(tmp_path / "a", make_tiles())
    save(tmp_path / "b", make_tiles())
    first, second = ((tmp_path / name / "reconstructions.png").read_bytes() for name in "ab")
    assert first == second
    with Image.open(tmp_path / "a" / "reconstructions.png") as picture:
        assert picture.width >= 6 * 64
        assert picture.height >= 6 * 64


def test_colors_are_chosen_fast_and_nearly_as_well_as_from_all_pixels(make_tiles: Make) -> None:
    real, got, _ = make_tiles("bido", num=4)
    tiles = np.concatenate([real, got], axis=1).transpose(0, 2, 1, 3, 4).reshape(6 * 32, 8 * 32, 3)
    page = Image.new("RGB", (800, 600), PAPER)
    page.paste(Image.fromarray(tiles).resize((768, 576), Image.Resampling.LANCZOS), (16, 16))
    start = time.process_time()
    whole = page.quantize(256, method=Image.Quantize.MEDIANCUT)
    middle = time.process_time()
    found = _paletted(page)
    assert 3 * (time.process_time() - middle) < middle - start
    errors = [
        np.square(np.asarray(one.convert("RGB"), float) - np.asarray(page)).mean() for one in (whole, found)
    ]
    assert errors[1] ** 0.5 < 1.15 * errors[0] ** 0.5
    assert found.convert("RGB").getpixel((1, 1)) == PAPER


def test_the_picture_shows_the_real_image_beside_the_reconstruction(tmp_path: Path) -> None:
    real = np.full((1, 1, 32, 32, 3), (200, 10, 10), np.uint8)
    got = np.full((1, 1, 32, 32, 3), (10, 10, 200), np.uint8)
    save_cell_images(tmp_path, real, got, labels=[1], protected=[True])
    with Image.open(tmp_path / "reconstructions.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)  # the picture has a palette of its own
    columns = {name: np.nonzero((np.abs(pixels - color) < 16).all(-1))[1].mean()
               for name, color in (("real", (200, 10, 10)), ("got", (10, 10, 200)))}  # fmt: skip
    assert columns["real"] < columns["got"]


def test_gray_images_work(make_tiles: Make, tmp_path: Path) -> None:
    save(tmp_path, [tiles[..., :1] for tiles in make_tiles()])
    layout = read_layout(tmp_path)
    assert layout is not None
    assert read_tiles(tmp_path, "got", layout).shape == (6, 2, 32, 32, 3)


@pytest.mark.parametrize("size", [16, 32, 64, 112, 224])
def test_enlarging_takes_whole_factors(size: int) -> None:
    out = enlarge(np.zeros((size, size, 3), np.uint8), 72)
    assert out.shape[0] >= 64
    assert out.shape[0] % size == 0


@pytest.mark.parametrize("change", ["float", "labels", "flags", "size", "channels"])
def test_arrays_that_do_not_fit_are_refused(make_tiles: Make, tmp_path: Path, change: str) -> None:
    real, got, nearest = make_tiles()
    labels, protected = LABELS, PROTECTED
    if change == "float":
        got = got.astype(np.float32)
    if change == "labels":
        labels = LABELS[:5]
    if change == "flags":
        protected = PROTECTED[:5]
    if change == "size":
        nearest = nearest[:, :, :16]
    if change == "channels":
        real, got, nearest = (np.concatenate([part, part], -1) for part in (real, got, nearest))
    with pytest.raises(ValueError, match="save_cell_images"):
        save_cell_images(tmp_path / "cell", real, got, nearest=nearest, labels=labels, protected=protected)
    assert not (tmp_path / "cell").exists()


def test_a_cell_without_images_has_no_layout(tmp_path: Path) -> None:
    assert read_layout(tmp_path) is None


def test_broken_files_are_named(make_tiles: Make, tmp_path: Path) -> None:
    save(tmp_path, make_tiles())
    layout = read_layout(tmp_path)
    assert layout is not None
    (tmp_path / "real.png").write_bytes(b"no image")
    with pytest.raises(RecordError, match="cannot be read"):
        read_tiles(tmp_path, "real", layout)
    Image.new("RGB", (8, 8)).save(tmp_path / "got.png")
    with pytest.raises(RecordError, match="8x8 pixels"):
        read_tiles(tmp_path, "got", layout)
    (tmp_path / "cell.json").write_text(json.dumps({"labels": [1]}))
    with pytest.raises(RecordError, match="not the layout"):
        read_layout(tmp_path)
