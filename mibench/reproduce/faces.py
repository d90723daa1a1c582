"""The visual comparison of a paper: real images, and below them what each attack got from each defense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mibench.report.frame import Json, may_show_images
from mibench.report.look import GRID, MUTED, look
from mibench.report.tiles import Tiles, enlarge, read_layout, read_tiles
from mibench.reproduce.measured import Measured, Missing
from mibench.reproduce.picture import put_text
from mibench.reproduce.result import Reproduction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PEOPLE = 3  # of each attack
_TILE, _LEFT, _GAP, _BETWEEN, _TOP = 0.62, 1.25, 0.03, 0.14, 0.72  # inches
_SIDE = 64  # pixels of a tile at least


def to_figure(found: Reproduction, folder: Path) -> Figure | None:
    """The comparison; None where no cell may show images or has any.

    Args:
        found: the table whose columns and attacks are shown.
        folder: of the results, with `cells/<cell>/` below it.

    Raises:
        RecordError: a cell's images do not agree with their layout.
    """
    layout = found.layout
    attacks = [(printed, label) for printed, label in layout.attacks.items() if label]
    tiles = [
        [_tiles(found, folder, label, column.defense, place) for _, label in attacks]
        for place, column in enumerate(layout.columns)
    ]
    people = _people(tiles)
    if not people:
        return None
    real = [_real(found, folder, label) for _, label in attacks]
    remarks = [
        [_accuracy(found, label, place) for _, label in attacks] for place in range(len(layout.columns))
    ]
    lines = [("real", real, [""] * len(attacks))]
    lines += [(column.heading, row, remark) for column, row, remark in zip(layout.columns, tiles, remarks)]
    return _draw(found, [printed for printed, _ in attacks], people, lines)


def _record(found: Reproduction, attack: str, place: int) -> Json | None:
    """The cell of the lowest seed, if its images may be shown."""
    records = found.cells.of(attack, found.layout.columns[place])
    if isinstance(records, Missing) or not may_show_images(records[0]):
        return None
    return records[0]


def _tiles(found: Reproduction, folder: Path, attack: str, defense: str, place: int) -> dict[int, Tiles]:
    """The first reconstruction of each protected label."""
    record = _record(found, attack, place)
    return {} if record is None else _strip(folder, record, "got")


def _real(found: Reproduction, folder: Path, attack: str) -> dict[int, Tiles]:
    """The first real image of each protected label, from any cell of the attack."""
    for place in range(len(found.layout.columns)):
        record = _record(found, attack, place)
        strip = {} if record is None else _strip(folder, record, "real")
        if strip:
            return strip
    return {}


def _strip(folder: Path, record: Json, kind: str) -> dict[int, Tiles]:
    where = folder / "cells" / str(record["cell"])
    layout = read_layout(where)
    if layout is None:
        return {}
    strip = read_tiles(where, "real" if kind == "real" else "got", layout)
    rows = [row for row in range(len(layout.labels)) if layout.protected[row]]
    return {layout.labels[row]: strip[row, 0] for row in rows}


def _people(tiles: Sequence[Sequence[dict[int, Tiles]]]) -> list[int]:
    """The labels that are shown, the same for all attacks."""
    labels = dict.fromkeys(label for row in tiles for strip in row for label in strip)
    return list(labels)[:PEOPLE]


def _accuracy(found: Reproduction, attack: str, place: int) -> str:
    aa = found.cells.number(attack, found.layout.columns[place], "aa")
    return f"AA {100 * aa.value:.1f} %" if isinstance(aa, Measured) else "no cell"


def _draw(
    found: Reproduction,
    attacks: Sequence[str],
    people: Sequence[int],
    lines: Sequence[tuple[str, Sequence[dict[int, Tiles]], Sequence[str]]],
) -> Figure:
    block = len(people) * (_TILE + _GAP)
    width = _LEFT + len(attacks) * (block + _BETWEEN) + 0.1
    height = _TOP + len(lines) * (_TILE + 0.2) + 0.3
    with look():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        put_text(axes, 0.1, 0.2, found.title, size=10, weight="bold")
        for place, name in enumerate(attacks):
            middle = _LEFT + place * (block + _BETWEEN) + block / 2
            put_text(axes, middle, _TOP - 0.15, name, weight="bold", align="center")
        for number, (heading, strips, remarks) in enumerate(lines):
            y = _TOP + number * (_TILE + 0.2)
            put_text(axes, 0.1, y + _TILE / 2, heading, size=8.5)
            for place, (strip, remark) in enumerate(zip(strips, remarks)):
                x = _LEFT + place * (block + _BETWEEN)
                for column, label in enumerate(people):
                    _tile(axes, strip.get(label), x + column * (_TILE + _GAP), y)
                put_text(axes, x + block / 2, y + _TILE + 0.08, remark, size=6, color=MUTED, align="center")
        note = (
            f"our reading of the figure's layout; first reconstruction of {len(people)} protected people, "
            f"suite {found.cells.suite}, seed {found.cells.seeds[0]}; AA over all protected people"
        )
        put_text(axes, 0.1, height - 0.12, note, size=6, color=MUTED)
        # imshow sets the limits to its own picture, so they are set at the end
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("auto")
    return figure


def _tile(axes: Axes, tile: Tiles | None, x: float, y: float) -> None:
    if tile is None:
        axes.add_patch(Rectangle((x, y), _TILE, _TILE, facecolor=GRID, linewidth=0))
        return
    shown = np.asarray(enlarge(tile, _SIDE))
    axes.imshow(shown, extent=(x, x + _TILE, y + _TILE, y), aspect="auto")
