"""One metric of many defenses: a dot and its interval each, in groups by where they act."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mibench.report.groups import Group, groups
from mibench.report.look import GRID, INK, MUTED, PAGE_WIDTH, UNDEFENDED, drawable, look
from mibench.report.panels import WORD_OF, axis_title, head, metric_index, panel_rows, values
from mibench.report.table import Comparison
from mibench.report.worst import WORST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = (5, 4, 3)  # panels side by side on a page, the first that leaves fewest gaps
_LINE = 0.148  # inches of a defense
_NAMES = 1.0  # inches: about what the defenses' names take
_GAP = 0.45  # lines between two groups


@dataclass(frozen=True)
class Line:
    """One line of every panel: a defense by its index in the table, or the heading of a group above it."""

    height: float
    group: Group
    defense: int | None
    label: str


def dots(
    table: Comparison, metric: str, acts: Mapping[str, str], *, chance: float = math.nan, title: str = ""
) -> Figure | None:
    """One panel an attack, one line a defense, in groups by where they act; None without a single number.

    Within a group the best defense stands first: by the worst case over attacks where there is one,
    otherwise by the mean over attacks. Gray lines mark no defense.

    Args:
        table: the table of one scene.
        metric: name of the metric to draw.
        acts: where each defense acts.
        chance: chance level to mark, in the metric's unit; NaN for none.
        title: heading of the figure.
    """
    index = metric_index(table, metric)
    if index is None or not values(table, index):
        return None
    lines = ordered(table, index, acts)
    across = min(ACROSS, key=lambda number: len(panel_rows(table, index, number)) * number)
    rows = panel_rows(table, index, across)
    bottom = lines[-1].height + 0.8
    limits = _limits(table, index)
    width = 72 * (PAGE_WIDTH - _NAMES) / across - 4
    with look():
        figure = Figure(figsize=(PAGE_WIDTH, len(rows) * (_LINE * bottom + 0.42) + 0.6), layout="constrained")
        figure.suptitle(drawable(title, 90), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        grid = figure.subplots(len(rows), across, sharex=True, squeeze=False)
        for number, members in enumerate(rows):
            for column, axes in enumerate(grid[number]):
                if column >= len(members):
                    axes.set_axis_off()
                    continue
                axes.set_xlim(limits)
                axes.set_ylim(bottom, -0.8)
                _panel(axes, table, members[column], index, lines, chance=chance, width=width)
                _name_lines(axes, lines if column == 0 else ())
                below = rows[number + 1] if number + 1 < len(rows) else []
                axes.tick_params(labelbottom=column >= len(below))
        figure.supxlabel(drawable(axis_title(table, index, chance), 120), fontsize=8)
    return figure


def ordered(table: Comparison, index: int, acts: Mapping[str, str]) -> list[Line]:
    """The lines of a panel: groups under their headings, in each the best defense first."""
    places = {name: place for place, name in enumerate(table.defenses)}
    lines: list[Line] = []
    height = 0.0
    for group in groups(acts):
        members = sorted(group.members, key=lambda name: _badness(table, index, places[name]))
        if group.acts != "nothing":
            lines.append(Line(height, group, None, group.title))
            height += 1
        for name in members:
            lines.append(Line(height, group, places[name], name))
            height += 1
        height += _GAP
    return lines


def _badness(table: Comparison, index: int, defense: int) -> float:
    """What the best defense has least of: its value where lower is better; infinity without a number."""
    attacks = [row for row, line in enumerate(table.rows) if not line.control]
    attacks = attacks or list(range(len(table.rows)))
    worst = [row for row in attacks if table.rows[row].attack.startswith(WORST)]
    for rows in (worst, attacks):
        found = [e.value for row in rows if (e := table.entries[row, defense, index]).state == "value"]
        if found:
            mean = sum(found) / len(found)
            return mean if table.metrics[index].better == "lower" else -mean
    return math.inf


def _limits(table: Comparison, index: int) -> tuple[float, float]:
    """The ends of the axis, with room for the numbers on the right: 0 to 100 %, or what the dots need."""
    found = values(table, index)
    low, high = (0.0, 100.0) if table.metrics[index].percent else (
        min(entry.low for entry in found), max(entry.high for entry in found)
    )  # fmt: skip
    span = (high - low) or 1.0
    return low - 0.05 * span, high + 0.36 * span


def _panel(
    axes: Axes,
    table: Comparison,
    row: int,
    index: int,
    lines: Sequence[Line],
    *,
    chance: float,
    width: float,
) -> None:
    """The dots of one attack, in a panel of so many points."""
    control = table.rows[row].control
    left, right = axes.get_xlim()
    for line in lines:
        if line.defense is None:
            continue
        entry = table.entries[row, line.defense, index]
        axes.axhline(line.height, color=GRID, linewidth=0.5, zorder=0)
        if entry.state != "value":
            text = axes.text(left + (right - left) * 0.05, line.height, WORD_OF[entry.state], color=MUTED)
            text.set(va="center", fontsize=6.5, style="italic")
            continue
        if line.group.acts == "nothing":
            axes.axvline(entry.value, color=UNDEFENDED, linewidth=0.8, zorder=1)
        color = MUTED if control else line.group.color
        axes.plot([entry.low, entry.high], [line.height] * 2, color=color, linewidth=1.1, alpha=0.6, zorder=2)
        axes.plot(
            entry.value, line.height, line.group.marker, color=color,
            markersize=7 if line.group.marker == "*" else 4.2,
            markerfacecolor="white" if control else color, markeredgewidth=0.7, zorder=3,
        )  # fmt: skip
        axes.text(
            right, line.height, entry.shown, va="center", ha="right", fontsize=6.5, color=INK,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
    if not math.isnan(chance):
        axes.axvline(chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    head(axes, table.rows[row], 32, width)
    if table.metrics[index].percent:
        axes.set_xticks([0, 50, 100])
        axes.set_xticks([25, 75], minor=True)
    axes.grid(axis="x", which="both")


def _name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Write defenses and groups beside the dots; none beside panels whose neighbor to the left has them."""
    axes.set_yticks([line.height for line in lines], [drawable(line.label, 22) for line in lines])
    axes.tick_params(axis="y", length=0)
    for line, text in zip(lines, axes.get_yticklabels()):
        if line.defense is None:
            text.set(color=line.group.color, fontweight="bold")
