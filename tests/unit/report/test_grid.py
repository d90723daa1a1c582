"""Grids of many defenses: who shares a line, how the lines lie on a page, how many bytes they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from mibench.report import save_cell_images
from mibench.report.grid import attack_grid
from mibench.report.look import LARGE, PAGE_HEIGHT, PAGE_WIDTH, save

Make = Callable[..., Any]
Records = list[dict[str, Any]]
DMI = ("dmi", "white-box", False, 0.7)
LABELS = [3, 7, 19]


def cell(folder: Path, record: dict[str, Any], pictures: int, *, aa: float = 0.5, last: int = 0) -> Any:
    """The record with this AA; its cell's images are drawn from seed `pictures`, the last one from `last`."""
    rng = np.random.default_rng(pictures)
    got = rng.integers(0, 256, (3, 2, 32, 32, 3)).astype(np.uint8)
    got[2, 1] += np.uint8(last)
    save_cell_images(
        folder / "cells" / record["cell"], got[:, :1], got, labels=LABELS, protected=[True, True, True]
    )
    record["estimates"]["aa"] = {"value": aa, "low": aa, "high": aa, "count": 32}
    return record


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_defenses_share_a_line_only_where_all_is_equal(make_record: Make, tmp_path: Path) -> None:
    def made(name: str, act: str = "output", *, pictures: int = 1, aa: float = 0.5, last: int = 0) -> Any:
        record = make_record(DMI, (name, act, 0.9, 1.0))
        return cell(tmp_path, record, pictures, aa=aa, last=last)

    records = [
        made("rounding"), made("none", "nothing"), made("bido", "training", pictures=2),
        made("top_k"), made("other_aa", aa=0.25), made("other_image", last=9), made("as_bido", pictures=2),
    ]  # fmt: skip
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    texts = words(figure)
    assert {"none", "= rounding, top_k", "bido", "= as_bido", "other_aa", "other_image"} <= set(texts)
    assert not {"rounding", "top_k", "as_bido"} & set(texts)
    assert texts.index("none") < texts.index("bido")
    assert texts.count("AA 50.0 %") == 3
    assert len(figure.axes[0].images) == 3 * (1 + 4)


def test_the_order_of_labels_does_not_part_equal_defenses(make_record: Make, tmp_path: Path) -> None:
    records = [make_record(DMI, (name, "output", 0.9, 1.0)) for name in ("a", "b", "c")]
    got = np.random.default_rng(0).integers(0, 256, (3, 2, 32, 32, 3)).astype(np.uint8)
    for record, order, faces in zip(records, ([0, 1, 2], [2, 0, 1], [0, 1, 2]), (got, got, got[::-1])):
        labels = [LABELS[place] for place in order]
        save_cell_images(
            tmp_path / "cells" / record["cell"], got[order], faces[order], labels=labels, protected=[True] * 3
        )
        record["estimates"]["aa"] = {"value": 0.5, "low": 0.5, "high": 0.5, "count": 32}
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    assert {"a", "= b", "c"} <= set(words(figure))


def test_failures_never_share_a_line(make_record: Make, tmp_path: Path) -> None:
    records = [cell(tmp_path, make_record(DMI, ("none", "nothing", 0.9, 1.0)), 1)]
    for name in ("a", "b"):
        failed = make_record(DMI, (name, "training", 0.9, 1.0), status="failed", estimates={})
        records.append(failed)
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    assert words(figure).count("failed") == 2
    assert {"a", "b"} <= set(words(figure))


def test_another_view_is_named_where_a_line_is_shared(make_record: Make, tmp_path: Path) -> None:
    records = [
        cell(tmp_path, make_record(DMI, (name, act, 0.9, 1.0), view=view), pictures)
        for name, act, view, pictures in (
            ("none", "nothing", "stripped", 1), ("none", "nothing", "deployed", 1),
            ("ad_mi", "output", "stripped", 1), ("ad_mi", "output", "deployed", 2),
        )
    ]  # fmt: skip
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    texts = words(figure)
    assert "stripped, AA 50.0 %" in texts
    assert "deployed, AA 50.0 %" in texts
    assert " ".join(text for text in texts if "none" in text or "ad_mi" in text) == (
        "none = none (deployed), ad_mi ad_mi"
    )


@pytest.mark.parametrize("num", [5, 30])
def test_many_lines_lie_in_blocks_on_one_page(make_record: Make, tmp_path: Path, num: int) -> None:
    records = [
        cell(tmp_path, make_record(DMI, (f"defense_{index}", "training", 0.9, 1.0)), index)
        for index in range(num)
    ]
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    width, height = figure.get_size_inches()
    assert width <= PAGE_WIDTH + 1e-9
    assert height <= PAGE_HEIGHT
    blocks = words(figure).count("real")
    assert (blocks > 1) == (num == 30)
    assert words(figure).count("label 7") == blocks
    assert {f"defense_{index}" for index in range(num)} <= set(words(figure))
    for path in save(figure, tmp_path / "grid"):  # noise is the worst that can be asked to be small
        assert path.stat().st_size < 1_000_000


def test_long_lists_of_names_stay_beside_their_tiles(make_record: Make, tmp_path: Path) -> None:
    names = ["none", *(f"a_rather_long_{index}" for index in range(20))]
    records = [
        cell(tmp_path, make_record(DMI, (name, "output" if index else "nothing", 0.9, 1.0)), 1)
        for index, name in enumerate(names)
    ]
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    assert all(any(name in text for text in words(figure)) for name in names)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    tiles = min(image.get_window_extent().x0 for image in axes.images)
    listed = [text for text in axes.texts if "a_rather" in text.get_text()]
    boxes = [text.get_window_extent() for text in listed]
    assert max(box.x1 for box in boxes) <= tiles
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])


def test_a_small_picture_keeps_every_color(make_record: Make, tmp_path: Path) -> None:
    from PIL import Image

    records = [cell(tmp_path, make_record(DMI, ("none", "nothing", 0.9, 1.0)), 1)]
    figure = attack_grid(records, tmp_path, "dmi")
    assert figure is not None
    png = save(figure, tmp_path / "grid")[0]
    assert png.stat().st_size <= LARGE
    with Image.open(png) as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 256
