"""Reconstruction grids, one an attack: real faces above, below them what each defense let through.

The layout of Fig. 2 in Gong et al. (IEEE TIFS 2023). Every tile is the *first* reconstruction of its
label, so nobody chose it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mibench.report.frame import Json, latest, may_show_images, number, part
from mibench.report.look import INK, MUTED, PAGE_WIDTH, drawable, look
from mibench.report.places import attack_label, defense_label
from mibench.report.tiles import Layout, Tiles, enlarge, read_layout, read_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 10  # faces side by side on a page; more would be thumbnails
SIDE = 96  # pixels of a tile at least
GAP = 4  # pixels between tiles


@dataclass(frozen=True)
class Line:
    """One line of the grid: a heading, a remark below it, a tile for each label that has one."""

    heading: str
    remark: str
    tiles: dict[int, Tiles]


def attack_grid(records: Sequence[Json], results_dir: Path, attack: str) -> Figure | None:
    """The grid of one attack; None where no cell of it may show images or has any.

    Args:
        records: records of one scene; the first seed of each defense is shown.
        results_dir: the run's folder, with `cells/<cell>/` below it.
        attack: label of the attack.

    Raises:
        RecordError: a cell's images do not agree with their layout.
    """
    chosen = _first_seeds(records, attack)
    layouts = {str(r["cell"]): read_layout(_folder(results_dir, r)) for r in chosen}
    with_images = [r for r in chosen if layouts[str(r["cell"])] is not None]
    if not with_images:
        return None
    lines = [_real(results_dir, with_images, layouts)]
    views = len({str(record.get("view")) for record in chosen}) > 1
    lines += [_defense(results_dir, r, layouts[str(r["cell"])], with_view=views) for r in chosen]
    labels = list(dict.fromkeys(label for line in lines for label in line.tiles))
    return _draw(lines, labels, attack)


def _folder(results_dir: Path, record: Json) -> Path:
    """Where a cell's images lie."""
    return results_dir / "cells" / str(record["cell"])


def _first_seeds(records: Sequence[Json], attack: str) -> list[Json]:
    """For every defense and view the record of the lowest seed that was measured, or of the lowest seed."""
    shown: dict[tuple[str, str], Json] = {}
    for record in latest(records):
        if attack_label(record) != attack or not may_show_images(record):
            continue
        place = defense_label(record), str(record.get("view"))
        if _rank(record) < _rank(shown.setdefault(place, record)):
            shown[place] = record
    return list(shown.values())


def _rank(record: Json) -> tuple[bool, int]:
    """Measured cells first, then lower seeds."""
    return record.get("status") != "ok", int(record.get("seed", 0))


def _protected(layout: Layout) -> list[tuple[int, int]]:
    """(line of the strip, label) of the protected labels; of all where none is protected."""
    rows = list(enumerate(layout.labels))
    return [row for row in rows if layout.protected[row[0]]] or rows


def _real(results_dir: Path, records: Sequence[Json], layouts: dict[str, Layout | None]) -> Line:
    """The line of real images: the first one of each label."""
    tiles: dict[int, Tiles] = {}
    for record in records:
        layout = layouts[str(record["cell"])]
        if layout is None or all(label in tiles for _, label in _protected(layout)):
            continue
        strip = read_tiles(_folder(results_dir, record), "real", layout)
        for row, label in _protected(layout):
            tiles.setdefault(label, strip[row, 0])
    return Line("real", "", tiles)


def _defense(results_dir: Path, record: Json, layout: Layout | None, *, with_view: bool) -> Line:
    """The line of one defense with its attack accuracy, and with the view where there are two."""
    name = defense_label(record)
    view = f"{record.get('view')}, " if with_view else ""
    if layout is None or record.get("status") != "ok":
        word = "no images" if record.get("status") == "ok" else str(record.get("status"))
        return Line(name, view + word, {})
    strip = read_tiles(_folder(results_dir, record), "got", layout)
    accuracy = number(part(part(record, "estimates"), "aa").get("value"))
    remark = "AA n/a" if math.isnan(accuracy) else f"AA {100 * accuracy:.1f} %"
    return Line(name, view + remark, {label: strip[row, 0] for row, label in _protected(layout)})


def _draw(lines: Sequence[Line], labels: Sequence[int], attack: str) -> Figure:
    """The grid as a figure of the page's width or less; its unit of length is a pixel of the mosaic."""
    shown = labels[:MOST_COLUMNS]
    mosaic, (height, width) = _mosaic(lines, shown)
    left, top = SIDE * 1.5, SIDE * 0.62
    across, down = left + mosaic.shape[1], top + mosaic.shape[0] + SIDE * 0.35
    with look():
        scale = min(PAGE_WIDTH / across, 0.78 / SIDE)  # a tile is 0.78 inches wide at most
        figure = Figure(figsize=(across * scale, down * scale))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(
            mosaic, extent=(left, across, down - SIDE * 0.35, top), aspect="auto", interpolation="none"
        )
        axes.set_axis_off()
        axes.set_xlim(0, across)
        axes.set_ylim(down, 0)
        axes.text(GAP, SIDE * 0.2, drawable(attack), va="center", weight="bold", color=INK, fontsize=9)
        note = "first reconstruction of each protected label"
        note += f"; {len(shown)} of {len(labels)} labels" if len(shown) < len(labels) else ""
        axes.text(across - GAP, down - SIDE * 0.16, note, va="center", ha="right", color=MUTED, fontsize=6)
        for column, label in enumerate(shown):
            x = left + column * (width + GAP) + width / 2
            axes.text(
                x, top - SIDE * 0.12, f"label {label}", va="center", ha="center", color=MUTED, fontsize=6.5
            )
        for row, line in enumerate(lines):
            _heading(axes, line, top + row * (height + GAP) + height / 2)
    return figure


def _mosaic(lines: Sequence[Line], labels: Sequence[int]) -> tuple[Tiles, tuple[int, int]]:
    """All tiles on white, gray where one is missing; and the (height, width) of a tile in it."""
    height, width = enlarge(next(iter(lines[0].tiles.values())), SIDE).shape[:2]
    mosaic = np.full((len(lines) * (height + GAP) - GAP, len(labels) * (width + GAP) - GAP, 3), 255, np.uint8)
    for row, line in enumerate(lines):
        for column, label in enumerate(labels):
            y, x = row * (height + GAP), column * (width + GAP)
            tile = line.tiles.get(label)
            mosaic[y : y + height, x : x + width] = 244 if tile is None else enlarge(tile, SIDE)
    return mosaic, (height, width)


def _heading(axes: Axes, line: Line, middle: float) -> None:
    """What a line shows, to the left of its tiles."""
    shift = SIDE * 0.1 if line.remark else 0.0
    axes.text(GAP, middle - shift, drawable(line.heading, 20), va="center", color=INK, fontsize=7.5)
    axes.text(GAP, middle + SIDE * 0.13, drawable(line.remark), va="center", color=MUTED, fontsize=6.5)
