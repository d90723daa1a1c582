"""What figures of several panels share: which attack stands where, titles of axes, levels to compare with."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mibench.report.caption import spans
from mibench.report.look import BAND, INK, MUTED, drawable
from mibench.report.placing import wrap
from mibench.report.table import Comparison, Entry, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORD_OF = {"failed": "failed", "blocked": "makes no sense", "absent": "n/a", "missing": "not run"}


def metric_index(table: Comparison, name: str) -> int | None:
    """The index of a metric; None where no record holds it."""
    return next((index for index, metric in enumerate(table.metrics) if metric.name == name), None)


def values(table: Comparison, index: int) -> list[Entry]:
    """The entries of one metric that have a number."""
    return [e for (_, _, m), e in table.entries.items() if m == index and e.state == "value"]


def measured(table: Comparison, across: int, upwards: int) -> list[int]:
    """The attacks, no controls, for which any defense has both of two metrics."""
    both = {(row, d) for (row, d, m), e in table.entries.items() if m == across and e.state == "value"}
    both &= {(row, d) for (row, d, m), e in table.entries.items() if m == upwards and e.state == "value"}
    rows = {row for row, _ in both}
    return [row for row, line in enumerate(table.rows) if row in rows and not line.control]


def panel_rows(table: Comparison, index: int, across: int) -> list[list[int]]:
    """Rows of the table in lines of panels, `across` a line; negative controls start a line of their own.

    A row in which the metric has no meaning for any defense, as the worst case's FID, has no panel.
    """
    told = {row for (row, _, metric), e in table.entries.items() if metric == index and e.state != "absent"}
    lines = []
    for _, members in groupby(sorted(told), key=lambda row: table.rows[row].control):
        rows = list(members)
        lines += [rows[start : start + across] for start in range(0, len(rows), across)]
    return lines


def axis_title(table: Comparison, index: int, chance: float) -> str:
    """What a panel measures, of how many images, which direction is better, what the dashes are."""
    metric = table.metrics[index]
    unit = "%, " if metric.percent else ""
    counts = spans({entry.count for entry in values(table, index)})
    text = f"{metric.title} ({unit}n = {counts}); {metric.better} is better for the defender"
    return text + (f"; dashes: chance, {chance:.1f} %" if not math.isnan(chance) else "")


def head(axes: Axes, row: Row, limit: int = 24, width: float = math.inf) -> None:
    """Write whom a panel is about above it, in lines of `width` points; a negative control is muted."""
    label = drawable(row.label, limit) + (" (control)" if row.control else "")
    axes.set_title(
        "\n".join(wrap(label.split(" "), width, 9.0)),  # 9: bold 8.5 is as wide
        loc="left", pad=3, color=MUTED if row.control else INK, weight="normal" if row.control else "bold",
    )  # fmt: skip


def levels(axes: Axes, table: Comparison, upwards: int, chance: float) -> list[Patch | Line2D]:
    """The band of the negative controls and the line of chance; returns their legend entries."""
    extras: list[Patch | Line2D] = []
    reached = [e.value for (r, _, m), e in table.entries.items()
               if m == upwards and table.rows[r].control and e.state == "value"]  # fmt: skip
    if reached:
        axes.axhspan(min(reached), max(reached), color=BAND, alpha=0.6, linewidth=0, zorder=0)
        extras.append(Patch(color=BAND, alpha=0.6, label="negative controls"))
    if not math.isnan(chance):
        line = axes.axhline(chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
        line.set_label(f"chance, {chance:.1f} %")
        extras.append(line)
    return extras
