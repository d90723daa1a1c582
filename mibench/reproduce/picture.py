"""A table made again as a picture: the paper's shape, each cell measured over reported, then the claims.

Verdicts have a color and a sign, so that the picture reads in gray as well.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mibench.report.look import GRID, INK, MUTED, drawable, look
from mibench.reproduce.compared import Number, Verdict
from mibench.reproduce.result import Reproduction
from mibench.reproduce.sheet import (
    SIGNS,
    Sheet,
    evidence_text,
    measured_text,
    reported_text,
    sheet,
    sign,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# inches
_LEFT, _COLUMN, _LINE, _HEAD = 1.35, 0.52, 0.33, 0.24
_CLAIM, _MARGIN, _LEAST = 0.17, 0.12, 10.5
_LETTER = 0.075  # of the smaller text, on average: what a column of names needs
TINTS: dict[Verdict, str] = {
    "match": "#b9e3d4", "differs": "#eeb08a", "not shown": "#f6ebc0", "not comparable": "#fafafa",
}  # fmt: skip


def to_figure(found: Reproduction) -> Figure:
    """The picture, as large as its table needs."""
    table = sheet(found)
    left = max(_LEFT, *(_LETTER * len(row.label) for block in table.blocks for row in block.rows))
    column = max(_COLUMN, *(_LETTER * len(head) / len(names) + 0.1 for head, names in table.groups))
    width = max(_LEAST, left + column * table.width + 2 * _MARGIN)
    claims = _claim_lines(found, width)
    notes = [line for note in found.notes for line in textwrap.wrap(note, int(width / 0.058))]
    rows = sum(len(block.rows) for block in table.blocks)
    blocks = sum(bool(block.heading) for block in table.blocks)
    heights = 0.55, 2 * _HEAD + rows * _LINE + blocks * _HEAD, len(claims) * _CLAIM, len(notes) * 0.13
    height = sum(heights) + 4 * _MARGIN
    with look():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        put_text(axes, _MARGIN, 0.22, found.title, size=11, weight="bold")
        put_text(axes, _MARGIN, 0.42, found.summary, size=7.5, color=MUTED)
        bottom = _table(axes, table, left, column, heights[0] + _MARGIN)
        y = bottom + 2 * _MARGIN
        for verdict, text in claims:
            _claim(axes, verdict, text, y)
            y += _CLAIM
        for note in notes:
            y += 0.13
            put_text(axes, _MARGIN, y, note, size=6, color=MUTED)
    return figure


def _table(axes: Axes, table: Sheet, left: float, column: float, top: float) -> float:
    """Draw heads and lines from `top` down; returns where they end."""
    x = left + _MARGIN
    for heading, names in table.groups:
        middle = x + column * len(names) / 2
        put_text(axes, middle, top + 0.5 * _HEAD, heading, weight="bold", align="center")
        axes.plot([x + 0.04, x + column * len(names) - 0.04], [top + _HEAD] * 2, color=MUTED, linewidth=0.6)
        for name in names:
            put_text(axes, x + column - 0.06, top + 1.5 * _HEAD, name, size=6.5, color=MUTED, align="right")
            x += column
    y = top + 2 * _HEAD
    for block in table.blocks:
        if block.heading:
            put_text(axes, _MARGIN, y + 0.6 * _HEAD, block.heading, style="italic", color=MUTED)
            y += _HEAD
        for row in block.rows:
            put_text(axes, _MARGIN, y + _LINE / 2, row.label)
            for place, entry in enumerate(row.entries):
                if entry is not None:
                    _entry(axes, entry, left + _MARGIN + place * column, y, column)
            y += _LINE
            axes.plot([_MARGIN, x], [y, y], color=GRID, linewidth=0.5)
    return y


def _entry(axes: Axes, number: Number, x: float, y: float, width: float) -> None:
    """One cell: measured with its sign, reported below."""
    if number.verdict != "not comparable":
        corner, sides = (x + 0.02, y + 0.02), (width - 0.04, _LINE - 0.04)
        axes.add_patch(Rectangle(corner, *sides, facecolor=TINTS[number.verdict], linewidth=0))
    text = f"{sign(number)} {measured_text(number)}".strip()
    put_text(axes, x + width - 0.06, y + 0.31 * _LINE, text, size=7.5, align="right")
    below = reported_text(number)
    put_text(axes, x + width - 0.06, y + 0.74 * _LINE, below, size=6, color=MUTED, align="right")


def _claim_lines(found: Reproduction, width: float) -> list[tuple[Verdict, str]]:
    """Every claim on one line, cut to the width."""
    most = int((width - 0.5) / 0.062)
    lines = []
    for one in found.claims:
        evidence = evidence_text(one)
        text = f"{one.claim.sentence} {evidence + '; ' if evidence else ''}{one.verdict}: {one.why}"
        lines.append((one.verdict, text if len(text) <= most else text[: most - 1] + "…"))
    return lines


def _claim(axes: Axes, verdict: Verdict, text: str, y: float) -> None:
    axes.add_patch(Rectangle((_MARGIN, y + 0.01), 0.2, _CLAIM - 0.02, facecolor=TINTS[verdict], linewidth=0))
    put_text(axes, _MARGIN + 0.1, y + _CLAIM / 2, SIGNS[verdict], weight="bold", align="center")
    put_text(axes, _MARGIN + 0.28, y + _CLAIM / 2, text, size=6.8)


def put_text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 7.5,
    color: str = INK,
    weight: str = "normal",
    style: str = "normal",
    align: str = "left",
) -> None:
    """Write a line of text at a place, in the middle of its height."""
    axes.text(
        x, y, drawable(text, 400), fontsize=size, color=color, weight=weight, style=style, ha=align,
        va="center",
    )  # fmt: skip
