"""The comparison table as comma-separated values, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mibench.report.escape import csv_text

if TYPE_CHECKING:
    import pandas as pd

    from mibench.report.table import Comparison, Entry

Value = str | float | int | bool


def wide_csv(table: Comparison) -> str:
    """One line a row of the table; numbers and the ends of their intervals with six digits."""
    head = ["data", "attack", "view", "access", "control"]
    for name in table.defenses:
        for metric in table.metrics:
            title = f"{name} {metric.title}{' (%)' if metric.percent else ''}"
            head += [title, f"{title} low", f"{title} high"] if table.intervals else [title]
    lines: list[Sequence[Value]] = [head]
    for index, row in enumerate(table.rows):
        line: list[Value] = [row.scene, row.attack, row.view, row.access, row.control]
        for defense in range(len(table.defenses)):
            for place in range(len(table.metrics)):
                line += _wide(table.entries[index, defense, place], intervals=table.intervals)
        lines.append(line)
    return _write(lines)


def _wide(entry: Entry, *, intervals: bool) -> list[Value]:
    """An entry as one or three columns: the number, or the word why there is none."""
    if entry.state != "value":
        words: list[Value] = ["" if entry.state == "missing" else entry.state]
        return words + ["", ""] * intervals
    number, *ends = (float(f"{value:.6g}") for value in (entry.value, entry.low, entry.high))
    return [number, *ends] if intervals else [number]


def long_csv(table: Comparison) -> str:
    """One line a number (tidy), fractions in [0, 1] unrounded, with the reason of a failure."""
    notes = dict(table.footnotes)
    lines: list[Sequence[Value]] = [
        ("data", "attack", "view", "access", "control", "defense", "metric", "status", "value", "low", "high",
         "count", "seeds", "best", "cell", "notes")
    ]  # fmt: skip
    for (r, d, m), entry in table.entries.items():
        row, metric = table.rows[r], table.metrics[m]
        scale = 0.01 if metric.percent else 1.0
        numbers = [float(f"{v * scale:.12g}") for v in (entry.value, entry.low, entry.high)]
        status = "ok" if entry.state == "value" else entry.state
        text = "; ".join(notes[mark] for mark in entry.marks.split(",") if mark)
        lines.append(
            (row.scene, row.attack, row.view, row.access, row.control, table.defenses[d], metric.name, status,
             *numbers, entry.count, entry.seeds, entry.best, entry.cell, text)
        )  # fmt: skip
    return _write(lines)


def frame_csv(frame: pd.DataFrame) -> str:
    """A frame as comma-separated values, one line a row."""
    columns = [frame[name].tolist() for name in frame.columns]
    return _write([list(frame.columns), *zip(*columns)])


def _write(lines: Iterable[Sequence[Value]]) -> str:
    """Lines as text; strings are made harmless, NaN is empty."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_safe(value) for value in line] for line in lines)
    return out.getvalue()


def _safe(value: Value) -> Value:
    """A value for a spreadsheet: numbers as they are, text without formulas."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isnan(value):
        return ""
    return csv_text(value) if isinstance(value, str) else value
