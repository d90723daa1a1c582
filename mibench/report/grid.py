"""Reconstruction grids, one an attack: real faces above, below them what each defense let through.

The layout of Fig. 2 in Gong et al. (IEEE TIFS 2023). Every tile is the *first* reconstruction of its
label, so nobody chose it. Defenses that let through the very same images share a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mibench.report.frame import Json, latest, may_show_images, number, part
from mibench.report.look import INK, MUTED, PAGE_HEIGHT, PAGE_WIDTH, drawable, look
from mibench.report.places import attack_label, defense_label
from mibench.report.placing import text_width, wrap
from mibench.report.tiles import Layout, Tiles, enlarge, read_layout, read_tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS, LEAST_COLUMNS = 10, 5  # faces side by side in a block; more would be thumbnails
MOST_TILES = 150  # in a figure, unless the least columns make more; a tile takes about 5 kB of a PDF
SIDE = 64  # pixels of a tile at least: smoothed once, so that no viewer shows blocks, yet few bytes
GAP = 0.042  # between tiles; this and all below in widths of a tile
NARROW, LISTS, WIDE, STEP = 1.5, 2.25, 3.5, 0.25  # the column of names: at least, for lists, for long names
TOP, FOOT = 0.65, 0.36
BETWEEN = 0.3  # blocks side by side
TILE, LEAST_TILE = 0.78, 0.45  # inches of a tile
MOST_BLOCKS = 4
HEADING, REMARK, SAME = 7.5, 6.5, 6.0  # points: letters of a line's name, remark and list
LEADING = 1.25


@dataclass(frozen=True)
class Line:
    """One line of the grid.

    Args:
        heading: the defense.
        remark: its attack accuracy, or why there is none.
        tiles: a tile for each label that has one.
        same: other defenses of which all this is true as well.
    """

    heading: str
    remark: str
    tiles: dict[int, Tiles]
    same: tuple[str, ...] = ()


class _Shape(NamedTuple):
    """How a grid lies on its page: sizes in widths of a tile, and the inches of one.

    Args:
        left: the column of names.
        height: a tile.
        block: names and tiles of a block.
        across, down: the whole grid.
        per_block: lines of defenses in a block, each of which starts with the real faces.
    """

    left: float
    height: float
    block: float
    across: float
    down: float
    per_block: int
    inches: float


def attack_grid(
    records: Sequence[Json],
    results_dir: Path,
    attack: str,
    *,
    shows: Callable[[Json], bool] = may_show_images,
) -> Figure | None:
    """The grid of one attack; None where no cell of it may show images or has any.

    Args:
        records: records of one scene; the first seed of each defense is shown.
        results_dir: the run's folder, with `cells/<cell>/` below it.
        attack: label of the attack.
        shows: whether the images of a record are to be in it.

    Raises:
        RecordError: a cell's images do not agree with their layout.
    """
    chosen = _first_seeds([record for record in records if shows(record)], attack)
    layouts = {str(r["cell"]): read_layout(_folder(results_dir, r)) for r in chosen}
    with_images = [r for r in chosen if layouts[str(r["cell"])] is not None]
    if not with_images:
        return None
    lines = [_real(results_dir, with_images, layouts), *_defenses(results_dir, chosen, layouts)]
    labels = list(dict.fromkeys(label for line in lines for label in line.tiles))
    return _draw(lines, labels, attack)


def _folder(results_dir: Path, record: Json) -> Path:
    """Where a cell's images lie."""
    return results_dir / "cells" / str(record["cell"])


def _first_seeds(records: Sequence[Json], attack: str) -> list[Json]:
    """For every defense and view the record of the lowest seed that was measured, or of the lowest seed."""
    shown: dict[tuple[str, str], Json] = {}
    for record in latest(records):
        if attack_label(record) != attack:
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


def _defenses(results_dir: Path, records: Sequence[Json], layouts: dict[str, Layout | None]) -> list[Line]:
    """The lines of all defenses, no defense first among those that share one; the view where there are two.

    Defenses share a line where *all* their reconstructions of the protected labels, not just the first ones
    that are shown, are equal pixel by pixel, and their attack accuracy prints alike. So it is by construction
    for output steps against a white-box attacker who strips them.
    """
    has_views = len({str(record.get("view")) for record in records}) > 1
    lines: dict[object, Line] = {}
    views: dict[object, str] = {}
    for record in sorted(records, key=lambda one: part(one, "defense").get("acts") != "nothing"):
        layout, view = layouts[str(record["cell"])], str(record.get("view"))
        line, pixels = _defense(results_dir, record, layout)
        key: object = (line.remark, pixels) if pixels else str(record["cell"])
        if key in lines:
            name = line.heading if views[key] == view else f"{line.heading} ({view})"
            lines[key] = replace(lines[key], same=(*lines[key].same, name))
        else:
            lines[key], views[key] = line, view
    return [replace(line, remark=f"{views[key]}, {line.remark}") if has_views else line
            for key, line in lines.items()]  # fmt: skip


def _defense(results_dir: Path, record: Json, layout: Layout | None) -> tuple[Line, bytes]:
    """The line of one defense with its attack accuracy, and the pixels of its reconstructions."""
    name = defense_label(record)
    if layout is None or record.get("status") != "ok":
        word = "no images" if record.get("status") == "ok" else str(record.get("status"))
        return Line(name, word, {}), b""
    strip = read_tiles(_folder(results_dir, record), "got", layout)
    accuracy = number(part(part(record, "estimates"), "aa").get("value"))
    remark = "AA n/a" if math.isnan(accuracy) else f"AA {100 * accuracy:.1f} %"
    rows = _protected(layout)
    by_label = sorted((label, strip[row].tobytes()) for row, label in rows)
    pixels = b"".join(b"%d:%b" % one for one in by_label)  # strips may list the labels in another order
    return Line(name, remark, {label: strip[row, 0] for row, label in rows}), pixels


def _draw(lines: Sequence[Line], labels: Sequence[int], attack: str) -> Figure:
    """The grid as a figure of the page's width or less; its unit of length is the width of a tile."""
    shown = labels[: min(max(MOST_TILES // len(lines), LEAST_COLUMNS), MOST_COLUMNS)]
    shape = _shape(lines, len(shown))
    with look():
        figure = Figure(figsize=(shape.across * shape.inches, shape.down * shape.inches))
        axes = figure.add_axes((0, 0, 1, 1))
        for number, block in enumerate(_blocks(lines, shape.per_block)):
            _block(axes, block, shown, number * (shape.block + BETWEEN), shape)
        axes.set_axis_off()
        axes.set_xlim(0, shape.across)
        axes.set_ylim(shape.down, 0)
        axes.text(GAP, 0.2, drawable(attack), va="center", weight="bold", color=INK, fontsize=9)
        note = "first reconstruction of each protected label"
        note += f"; {len(shown)} of {len(labels)} labels" if len(shown) < len(labels) else ""
        axes.text(
            shape.across - GAP, shape.down - 0.16, note, va="center", ha="right", color=MUTED, fontsize=6
        )
    return figure


def _blocks(lines: Sequence[Line], per_block: int) -> list[list[Line]]:
    """The real faces and so many defenses in each block."""
    starts = range(1, len(lines), per_block)
    return [[lines[0], *lines[start : start + per_block]] for start in starts]


def _block(axes: Axes, lines: Sequence[Line], labels: Sequence[int], left: float, shape: _Shape) -> None:
    """Lines below each other, with the labels above them."""
    y = TOP
    for line in lines:
        depth = _depth(line, shape)
        for column, label in enumerate(labels):
            x = left + shape.left + column * (1 + GAP)
            _tile(axes, line.tiles.get(label), x, y + (depth - shape.height) / 2, shape.height)
        _name(axes, line, left, y + depth / 2, shape)
        y += depth + GAP
    for column, label in enumerate(labels):
        x = left + shape.left + column * (1 + GAP) + 0.5
        axes.text(x, TOP - 0.125, f"label {label}", va="center", ha="center", color=MUTED, fontsize=6.5)


def _shape(lines: Sequence[Line], columns: int) -> _Shape:
    """The largest tiles on the least blocks side by side that hold the lines on one page.

    Where no page holds the grid it has one block.
    """
    shapes = []
    for blocks in range(1, MOST_BLOCKS + 1):
        left = NARROW
        while not _fits(shape := _of(lines, columns, blocks, left), lines) and left < WIDE:
            left += STEP
        if shape.down * shape.inches <= PAGE_HEIGHT and shape.inches >= LEAST_TILE:
            return shape
        shapes.append(shape)
    return shapes[0]


def _of(lines: Sequence[Line], columns: int, blocks: int, left: float) -> _Shape:
    """The grid in so many blocks with a column of names as wide as `left`."""
    rows, width = next(iter(lines[0].tiles.values())).shape[:2]
    per_block = -(-(len(lines) - 1) // blocks)
    block = left + columns * (1 + GAP) - GAP
    across = blocks * (block + BETWEEN) - BETWEEN
    shape = _Shape(left, rows / width, block, across, 0.0, per_block, min(PAGE_WIDTH / across, TILE))
    deepest = max(sum(_depth(one, shape) + GAP for one in some) for some in _blocks(lines, per_block))
    return shape._replace(down=TOP + deepest - GAP + FOOT)


def _fits(shape: _Shape, lines: Sequence[Line]) -> bool:
    """Whether names fit in their column, and lists of equal defenses if it is not wide enough for any."""
    width = 72 * (shape.left - 2 * GAP) * shape.inches
    names = (text_width(drawable(line.heading, 20), HEADING) for line in lines)
    listed = (text_width(f"= {name},", SAME) for line in lines for name in line.same)
    is_low = shape.left >= LISTS or all(_depth(line, shape) <= shape.height for line in lines)
    return is_low and max([*names, *listed]) <= width


def _depth(line: Line, shape: _Shape) -> float:
    """How high a line is: as its tiles, or as its text if that needs more."""
    texts = HEADING + bool(line.remark) * REMARK + len(_same(line, shape)) * SAME
    return max(shape.height, texts * LEADING / 72 / shape.inches)


def _same(line: Line, shape: _Shape) -> list[str]:
    """The defenses that share a line, as lines of text."""
    if not line.same:
        return []
    words = [f"{name}," for name in line.same]
    words[0], words[-1] = f"= {words[0]}", words[-1][:-1] if len(words) > 1 else f"= {line.same[0]}"
    return wrap(words, 72 * (shape.left - 2 * GAP) * shape.inches, SAME)


def _tile(axes: Axes, tile: Tiles | None, x: float, y: float, height: float) -> None:
    """One tile, a pale one where it is missing; its 256 colors of its own are enough to look at."""
    if tile is None:
        axes.add_patch(Rectangle((x, y), 1, height, facecolor="#f4f4f4", linewidth=0))
        return
    few = Image.fromarray(enlarge(tile, SIDE)).quantize(256, method=Image.Quantize.MEDIANCUT)
    axes.imshow(np.asarray(few.convert("RGB")), extent=(x, x + 1, y + height, y), aspect="auto")


def _name(axes: Axes, line: Line, left: float, middle: float, shape: _Shape) -> None:
    """What a line shows, to the left of its tiles."""
    texts = [(drawable(line.heading, 20), HEADING, INK)]
    texts += [(line.remark, REMARK, MUTED)] if line.remark else []
    texts += [(text, SAME, MUTED) for text in _same(line, shape)]
    unit = LEADING / 72 / shape.inches
    y = middle - sum(size for _, size, _ in texts) * unit / 2
    for text, size, color in texts:
        y += size * unit
        axes.text(
            left + GAP, y - 0.25 * size * unit, drawable(text, 200), va="baseline", color=color, fontsize=size
        )
