"""Privacy against utility for many defenses: a panel an attack, every point under its defense's name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mibench.report.groups import Group, by_member, groups
from mibench.report.look import GRID, INK, MUTED, PAGE_WIDTH, drawable, look
from mibench.report.panels import WORD_OF, head, levels, measured, metric_index
from mibench.report.placing import Box, around, leader, place, text_width, wrap
from mibench.report.table import Comparison, Entry
from mibench.report.worst import WORST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 3  # so many names of equal points are written out; more are counted, and listed below
_MOST_OUTLIERS = 0.2  # share of the defenses that may lie off the axis
_HEIGHT, _LEFT, _ABOVE, _BELOW = 2.15, 0.46, 0.24, 0.24  # inches of and around a panel
_SIZE, _LINE = 6.3, 8.0  # points: a label's letters and its line
_LISTED = 6.5  # points: the letters of what stands below the panels


@dataclass(frozen=True)
class Spot:
    """Defenses that lie at one point, to the digits that tables print.

    Args:
        names: labels of the defenses; first the one that does nothing, if it is among them.
        group: of the first.
        utility, aa: MC(all) and attack accuracy in percent.
        label: what stands beside the point.
    """

    names: tuple[str, ...]
    group: Group
    utility: Entry
    aa: Entry
    label: str


def panels(
    table: Comparison, acts: Mapping[str, str], *, chance: float = math.nan, title: str = ""
) -> Figure | None:
    """One panel an attack: MC(all) to the right, AA upwards; None without two defenses to compare.

    All panels share their utilities. Where few defenses have far less than all others, the axis leaves them
    out, and they stand at its left end with their MC(all). The last panel takes the width that is left.

    Args:
        table: see `plot.plotted`.
        acts: where each defense acts.
        chance: chance level of AA in percent; NaN for none.
        title: heading of the figure.
    """
    across, upwards = metric_index(table, "mc_all"), metric_index(table, "aa")
    if across is None or upwards is None or len(table.defenses) < 2:
        return None
    attacks = measured(table, across, upwards)
    if not attacks:
        return None
    spots = {row: spots_of(table, row, (across, upwards), acts) for row in attacks}
    notes = _notes(table, spots, (across, upwards))
    with look():
        figure, axes = _sheet(len(attacks), len(notes), title)
        limits = utilities([spot.utility for row in attacks for spot in spots[row]])
        extras: list[Patch | Line2D] = []
        for one, row in zip(axes, attacks):
            one.set_xlim(limits)
            one.set_ylim(_accuracies(spots[row]))
            head(one, table.rows[row], 40)
            one.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
            one.grid()
            extras = levels(one, table, upwards, chance)
            _draw(one, spots[row])
        _explain(figure, acts, extras, notes)
    return figure


def spots_of(table: Comparison, row: int, metrics: tuple[int, int], acts: Mapping[str, str]) -> list[Spot]:
    """The points of one attack; defenses that print the same utility and attack accuracy share one."""
    group_of = by_member(acts)
    found: dict[tuple[str, str], list[int]] = {}
    for defense in range(len(table.defenses)):
        x, y = (table.entries[row, defense, metric] for metric in metrics)
        if x.state == "value" and y.state == "value":
            found.setdefault((x.shown, y.shown), []).append(defense)
    spots = []
    for members in found.values():
        members.sort(key=lambda defense: group_of[table.defenses[defense]].acts != "nothing")
        names = tuple(table.defenses[defense] for defense in members)
        x, y = (table.entries[row, members[0], metric] for metric in metrics)
        label = called(names, [group_of[name] for name in names])
        spots.append(Spot(names, group_of[names[0]], x, y, label))
    return spots


def called(names: Sequence[str], of: Sequence[Group]) -> str:
    """What defenses at one point are called: their names, or the first and how many more of which kind."""
    if len(names) <= _FEW:
        return drawable(", ".join(names), 44)
    kinds = {group.acts for group in of[1:]}
    kind = "output steps" if kinds == {"output"} else "others"
    return f"{drawable(names[0], 24)} and {len(names) - 1} {kind}"


def utilities(entries: Sequence[Entry]) -> tuple[float, float]:
    """The ends of the axis of utility: all, but for a few that lie so far away that half of it were empty."""
    values = sorted(entry.value for entry in entries)
    least, most = values[0], values[-1]
    for value in values[: 1 + int(_MOST_OUTLIERS * len(values))]:
        if most - value < (most - least) / 2:
            least = value
            break
    span = max(most - least, 1.0)
    return least - 0.09 * span, most + 0.07 * span


def _accuracies(spots: Sequence[Spot]) -> tuple[float, float]:
    """The ends of the axis of attack accuracy, from zero to a little above what was reached."""
    top = max(max(spot.aa.value, min(spot.aa.high, 100)) for spot in spots)
    top = max(top, 10.0)
    return -0.08 * top, 1.08 * top


def _sheet(num: int, num_notes: int, title: str) -> tuple[Figure, list[Axes]]:
    """A page of so many panels, two in a line, with room for a legend and notes below them."""
    lines = -(-num // 2)
    foot = 0.5 + num_notes * _LISTED * 1.35 / 72
    height = 0.26 + lines * (_ABOVE + _HEIGHT + _BELOW) + foot
    figure = Figure(figsize=(PAGE_WIDTH, height))
    figure.text(0.01, 1 - 0.08 / height, drawable(title, 90), fontsize=8.5, color=MUTED, va="top")
    half = (PAGE_WIDTH - 0.08 - 2 * _LEFT - 0.1) / 2
    axes = []
    for index in range(num):
        line, column = divmod(index, 2)
        is_alone = index == num - 1 and column == 0
        width = 2 * half + _LEFT + 0.1 if is_alone else half
        left = _LEFT + column * (half + _LEFT + 0.1)
        bottom = height - 0.26 - line * (_ABOVE + _HEIGHT + _BELOW) - _ABOVE - _HEIGHT
        place_ = (left / PAGE_WIDTH, bottom / height, width / PAGE_WIDTH, _HEIGHT / height)
        axes.append(figure.add_axes(place_))
        if column == 0:
            axes[-1].set_ylabel("AA (%), lower is better", labelpad=2)
    figure.text(
        1 - 0.08 / PAGE_WIDTH, (foot - 0.1) / height, "MC(all), accuracy on private test images (%) → better",
        fontsize=8, ha="right", va="center",
    )  # fmt: skip
    return figure, axes


def _draw(axes: Axes, spots: Sequence[Spot]) -> None:
    """Markers, intervals and names of one panel."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = (72 * inches * share for inches, share in zip(
        figure.get_size_inches(), axes.get_position().size))  # fmt: skip
    edge = left + 0.02 * (right - left)
    for spot in spots:
        if spot.group.acts == "nothing":
            axes.axhline(spot.aa.value, color=GRID, linewidth=1.6, zorder=0.5)
    anchors, sizes, texts = [], [], []
    for spot in spots:
        x, is_off = max(spot.utility.value, edge), spot.utility.value < edge
        _mark(axes, spot, x, is_off=is_off)
        text = f"← {spot.label}, MC {spot.utility.shown}" if is_off else spot.label
        texts.append(text)
        sizes.append((text_width(text, _SIZE) + 2, _LINE))
        anchors.append(
            ((x - left) / (right - left) * width, (spot.aa.value - bottom) / (top - bottom) * height)
        )
    markers = [around(*anchor, 3.2, 3.2) for anchor in anchors]
    boxes = place(anchors, sizes, (1, 1, width - 1, height - 1), markers)
    for spot, text, anchor, box in zip(spots, texts, anchors, boxes):
        _name(axes, text, INK if spot.group.acts == "nothing" else spot.group.color, anchor, box)


def _mark(axes: Axes, spot: Spot, x: float, *, is_off: bool) -> None:
    """One point with its intervals; hollow where it lies off the axis."""
    group, y = spot.group, spot.aa
    bar = {"color": group.color, "linewidth": 0.8, "zorder": 2}
    axes.plot([x, x], [y.low, y.high], alpha=0.28, **bar)  # type: ignore[arg-type]
    if not is_off:
        axes.plot([spot.utility.low, spot.utility.high], [y.value] * 2, alpha=0.2, **bar)  # type: ignore[arg-type]
    axes.plot(
        x, y.value, group.marker, color=group.color, markersize=8.5 if group.marker == "*" else 4.8,
        markerfacecolor="white" if is_off else group.color, markeredgewidth=0.8 if is_off else 0.4,
        markeredgecolor=group.color if is_off else "white", zorder=4.5 if group.acts == "nothing" else 4,
    )  # fmt: skip


def _name(axes: Axes, text: str, color: str, anchor: tuple[float, float], box: Box) -> None:
    """A point's name in its box, with a line to the point where it stands apart."""
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    axes.annotate(
        text, middle, xytext=middle, ha="center", va="center", fontsize=_SIZE, color=color, zorder=3.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.2},
        xycoords="axes points", textcoords="axes points",
    )  # fmt: skip
    start, end = leader(anchor, box)
    if math.dist(start, end) > 7:
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "alpha": 0.8, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(
            "", start, xytext=end, arrowprops=line, zorder=3, xycoords="axes points",
            textcoords="axes points",
        )  # fmt: skip


def _notes(table: Comparison, spots: Mapping[int, Sequence[Spot]], metrics: tuple[int, int]) -> list[str]:
    """Who stands behind a label that counts, and who has no point, as lines of the page's width."""
    facts: dict[str, list[str]] = {}  # by what is said: the attacks that it is said of
    for row, found in spots.items():
        attack = table.rows[row].label
        for spot in found:
            if len(spot.names) > _FEW:
                facts.setdefault(f"{spot.label}: {', '.join(spot.names[1:])}", []).append(attack)
        for why, names in _pointless(table, row, metrics).items():
            facts.setdefault(f"no point for {', '.join(names)}: {why}", []).append(attack)
    lines: list[str] = []
    for fact, attacks in facts.items():
        where = "" if len(attacks) == len(spots) else f" ({', '.join(attacks)})"
        lines += wrap(drawable(f"{fact}{where}.", 2000).split(), 72 * (PAGE_WIDTH - 0.2), _LISTED)
    return lines


def _pointless(table: Comparison, row: int, metrics: tuple[int, int]) -> dict[str, list[str]]:
    """The defenses that have no point for an attack, by why that is."""
    found: dict[str, list[str]] = {}
    for defense, name in enumerate(table.defenses):
        states = [table.entries[row, defense, metric].state for metric in metrics]
        if states == ["absent", "value"] and table.rows[row].attack.startswith(WORST):
            found.setdefault("the attacks met models of different MC(all)", []).append(name)
        elif states != ["value", "value"]:
            word = WORD_OF[next(state for state in states if state != "value")]
            found.setdefault(word, []).append(name)
    return found


def _explain(
    figure: Figure, acts: Mapping[str, str], extras: Sequence[Patch | Line2D], notes: Sequence[str]
) -> None:
    """The legend of groups and levels, and below it the notes."""
    height = figure.get_size_inches()[1]
    step = _LISTED * 1.35 / 72 / height
    for number, line in enumerate(reversed(notes)):
        figure.text(0.014, 0.06 / height + number * step, line, fontsize=_LISTED, color=MUTED, va="bottom")
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], linestyle="none", marker=group.marker, color=group.color, label=drawable(group.title, 40),
            markersize=8.5 if group.marker == "*" else 4.8,
        )
        for group in groups(acts)
    ]  # fmt: skip
    if "nothing" in acts.values():
        handles.append(Line2D([], [], color=GRID, linewidth=1.6, label="AA without defense"))
    corner = 0.01, 0.07 / height + len(notes) * step
    figure.legend(
        handles=[*handles, *extras], loc="lower left", bbox_to_anchor=corner,
        ncols=8, handlelength=1.4, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip
