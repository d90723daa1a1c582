"""A table as blocks of rows and groups of columns, and its entries as words: what every format prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mibench.reproduce.compared import Number, Verdict
from mibench.reproduce.evidence import Evidence
from mibench.reproduce.layout import Column, Layout, Place
from mibench.reproduce.measured import Measured
from mibench.reproduce.result import Reproduction
from mibench.reproduce.verdicts import Judged

SIGNS: dict[Verdict, str] = {"match": "✓", "differs": "✗", "not shown": "○", "not comparable": "\N{EN DASH}"}
_NO_NUMBER = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Row:
    """One line: its name, and an entry for each column; None where the table has no such cell."""

    label: str
    entries: tuple[Number | None, ...]


@dataclass(frozen=True)
class Block:
    """Lines under one heading, which may be empty."""

    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Sheet:
    """The table as it is printed.

    Args:
        groups: column groups: heading and the headings of its columns.
        blocks: of lines.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    blocks: tuple[Block, ...]

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(len(names) for _, names in self.groups)


def sheet(found: Reproduction) -> Sheet:
    """The table of the paper's shape; one metric of many defenses stands with defenses as lines."""
    layout = found.layout
    if len(layout.measures) == 1 and len(layout.columns) > 2 * len(layout.places):
        return _turned(found)
    entries = {(one.place, one.column, one.measure.printed): one for one in found.numbers}
    groups = tuple((one.heading, tuple(each.heading for each in layout.measures)) for one in layout.columns)
    blocks = []
    for scene, places in groupby(layout.places, key=lambda place: place[:2]):
        rows = tuple(
            Row(
                _row_name(place),
                tuple(
                    entries.get((place, column, measure.printed))
                    for column in layout.columns
                    for measure in layout.measures
                ),
            )
            for place in places
        )
        blocks.append(Block(_scene_name(scene), rows))
    if all(len(block.rows) == 1 and block.rows[0].label == "" for block in blocks):
        rows = tuple(Row(block.heading, block.rows[0].entries) for block in blocks)
        return Sheet(groups, (Block("", rows),))
    return Sheet(groups, tuple(blocks))


def _turned(found: Reproduction) -> Sheet:
    layout = found.layout
    entries = {(one.place, one.column): one for one in found.numbers}
    groups = tuple(
        (_scene_name(place[:2]), (f"{_row_name(place)} {layout.measures[0].heading}".strip(),))
        for place in layout.places
    )
    rows = tuple(
        Row(column.heading, tuple(entries.get((place, column)) for place in layout.places))
        for column in layout.columns
    )
    return Sheet(groups, (Block("", rows),))


def _scene_name(scene: Sequence[str]) -> str:
    return ", ".join(word for word in scene if word)


def _row_name(place: Place) -> str:
    return "" if place[2] == "none" else place[2]


def measured_text(number: Number) -> str:
    """The measured number as printed, a dash where there is none."""
    if not isinstance(number.measured, Measured):
        return _NO_NUMBER
    return _shown(number.measured.value, is_percent=number.measure.percent)


def reported_text(number: Number) -> str:
    """The reported number as the paper prints it; a dash where it prints none."""
    if math.isnan(number.reported):
        return _NO_NUMBER
    return f"{round(100 * number.reported, 6) if number.measure.percent else number.reported:g}"


def sign(number: Number) -> str:
    """The sign of a number's verdict; empty where it has none to tell."""
    return SIGNS[number.verdict] if number.verdict != "not comparable" else ""


def evidence_text(judged: Judged) -> str:
    """The effect of a claim with its interval, and on how many it rests."""
    found = judged.evidence
    if not isinstance(found, Evidence):
        return ""
    scale = {"points": 100.0, "times": 100.0, "": 1.0}[found.unit]
    unit = {"points": " points", "times": " %", "": ""}[found.unit]
    form = "+.1f" if found.unit else "+.3g"
    value, low, high = (
        format(scale * one, form).replace("-", _MINUS) for one in (found.effect, found.low, found.high)
    )
    interval = "" if math.isnan(found.low) else f" [{low} to {high}]"
    of = found.of.removesuffix("s") if found.num == 1 else found.of
    return f"{value}{unit}{interval}, {found.num} {of}"


def about(column: Column, layout: Layout) -> str:
    """Our name of a column group, with the view where the table shows two."""
    views = {one.view for one in layout.columns if one.defense == column.defense}
    return f"{column.defense} ({column.view})" if len(views) > 1 else column.defense


def _shown(value: float, *, is_percent: bool) -> str:
    if is_percent:
        return f"{100 * value + 0.0:.1f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
