"""Figures of records: attack accuracy and FID by defense, and privacy against utility."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from mibench.report import dot_plot, tradeoff_panels
from mibench.report.curves import utility_of
from mibench.report.frame import Json, metric_infos, number
from mibench.report.look import INK, MARKERS, MUTED, PAGE_WIDTH, colors, drawable, has_hues, look
from mibench.report.panels import (
    WORD_OF,
    axis_title,
    head,
    levels,
    measured,
    metric_index,
    panel_rows,
    values,
)
from mibench.report.table import Comparison, Entry, comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = (4, 3)  # panels side by side on a page, the first where both leave as few gaps
PLOTTED = ("mc_all", "aa", "fid")
Palette = Mapping[str, str]


def plotted(records: Sequence[Json]) -> Comparison:
    """The table behind the figures of one scene: the plotted metrics that its records hold.

    The worst case over attacks has an MC(all) too, where all attacks met the same model.
    """
    infos = metric_infos(records)
    table = comparison(records, metrics=[name for name in PLOTTED if name in infos])
    if PLOTTED[0] not in infos:
        return table
    pairs = ((row, defense) for row in range(len(table.rows)) for defense in range(len(table.defenses)))
    utility = {(row, defense, 0): utility_of(table, row, defense) for row, defense in pairs}
    return replace(table, entries=table.entries | utility)


def figures(
    table: Comparison, acts: Mapping[str, str], *, chance: float = math.nan, title: str = ""
) -> dict[str, Figure | None]:
    """The figures of one scene by name; None where there is nothing to draw.

    Defenses have a color each as long as there are enough; more of them have that of where they act, and
    stand under their names.

    Args:
        table: see `plotted`.
        acts: where each defense of all scenes acts, so that it has one color in all of them.
        chance: chance level of AA in percent; NaN for none.
        title: heading of the figures.
    """
    own = {name: acts[name] for name in table.defenses}
    if not has_hues(own):
        table = _contested(table)
    across, upwards = metric_index(table, "mc_all"), metric_index(table, "aa")
    attacks = [] if across is None or upwards is None else measured(table, across, upwards)
    palette = colors(acts if has_hues(acts) else own)
    if not has_hues(own) or len(attacks) > len(MARKERS):
        scatter = tradeoff_panels.panels(table, own, chance=chance, title=title)
    else:
        scatter = tradeoff(table, palette, chance=chance, title=title)
    if has_hues(own):
        aa, fid = (
            bars(table, "aa", palette, chance=chance, title=title),
            bars(table, "fid", palette, title=title),
        )
    else:
        aa = dot_plot.dots(table, "aa", own, chance=chance, title=title)
        fid = dot_plot.dots(table, "fid", own, title=title)
    return {"tradeoff": scatter, "aa": aa, "fid": fid}


def _contested(table: Comparison) -> Comparison:
    """The table without attacks that one defense alone has met, if there are others: nothing to compare."""
    met = [
        sum(table.entries[row, defense, 0].state != "missing" for defense in range(len(table.defenses)))
        for row in range(len(table.rows))
    ]
    kept = [row for row, count in enumerate(met) if count > 1]
    if not kept:
        return table
    entries = {
        (place, defense, metric): table.entries[row, defense, metric]
        for place, row in enumerate(kept)
        for defense in range(len(table.defenses))
        for metric in range(len(table.metrics))
    }
    return replace(table, rows=tuple(table.rows[row] for row in kept), entries=entries)


def chance_level(records: Iterable[Json]) -> float:
    """The chance level in percent where all records agree on one; NaN otherwise."""
    levels = {level for record in records if (level := number(record.get("chance"))) == level}
    return 100 * levels.pop() if len(levels) == 1 else math.nan


def bars(
    table: Comparison, metric: str, palette: Palette, *, chance: float = math.nan, title: str = ""
) -> Figure | None:
    """One panel an attack, one bar a defense with its interval; None without a single number.

    Args:
        table: the table of one scene.
        metric: name of the metric to draw.
        palette: color of each defense.
        chance: chance level to mark, in the metric's unit; NaN for none.
        title: heading of the figure.
    """
    index = metric_index(table, metric)
    if index is None or not values(table, index):
        return None
    across = min(PANELS, key=lambda number: len(panel_rows(table, index, number)) * number)
    rows = panel_rows(table, index, across)
    height = len(rows) * (0.155 * len(table.defenses) + 0.42) + 0.75
    with look():
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        figure.suptitle(drawable(title, 90), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        grid = figure.subplots(len(rows), across, sharex=True, squeeze=False)
        limit = _limit(table, index)
        for line, members in enumerate(rows):
            for column, axes in enumerate(grid[line]):
                if column >= len(members):
                    axes.set_axis_off()
                    continue
                _panel(axes, table, members[column], index, palette, chance=chance, limit=limit)
                _name_defenses(axes, table.defenses if column == 0 else ())
                below = rows[line + 1] if line + 1 < len(rows) else []
                axes.tick_params(labelbottom=column >= len(below))
        figure.supxlabel(drawable(axis_title(table, index, chance), 120), fontsize=8)
    return figure


def _limit(table: Comparison, index: int) -> float:
    """The upper end of the axis: 100 %, or what the longest bar needs."""
    if table.metrics[index].percent:
        return 100.0
    return max(entry.high for entry in values(table, index)) * 1.02


def _panel(
    axes: Axes, table: Comparison, row: int, index: int, palette: Palette, *, chance: float, limit: float
) -> None:
    """The bars of one attack."""
    line = table.rows[row]
    room = limit * 1.22  # to the right of the bars stand the numbers
    for place, defense in enumerate(table.defenses):
        entry = table.entries[row, place, index]
        if entry.state == "value":
            _bar(axes, place, entry, palette[defense], control=line.control, room=room)
        else:
            axes.text(
                room * 0.03,
                place,
                WORD_OF[entry.state],
                va="center",
                fontsize=6.5,
                color=MUTED,
                style="italic",
            )
    if not math.isnan(chance):
        axes.axvline(chance, color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=3)
    head(axes, line)
    axes.set_xlim(0, room)
    axes.set_ylim(len(table.defenses) - 0.4, -0.6)
    axes.grid(axis="x")
    if table.metrics[index].percent:
        axes.set_xticks([0, 25, 50, 75, 100])


def _name_defenses(axes: Axes, names: Sequence[str]) -> None:
    """Write the defenses' names beside the bars; none beside panels whose neighbor to the left has them."""
    axes.set_yticks(range(len(names)), [drawable(name, 22) for name in names])
    axes.tick_params(axis="y", length=0)


def _bar(axes: Axes, place: int, entry: Entry, color: str, *, control: bool, room: float) -> None:
    """One bar with its interval and its number; hatched gray for a negative control."""
    look_of_bar = (
        {"facecolor": "#f4f4f5", "edgecolor": MUTED, "hatch": "////"} if control else {"facecolor": color}
    )
    axes.barh(place, entry.value, height=0.72, linewidth=0.5 if control else 0, **look_of_bar)  # type: ignore[arg-type]
    if entry.low < entry.high:
        axes.plot([entry.low, entry.high], [place, place], color=INK, linewidth=0.9, solid_capstyle="butt")
    end = max(entry.high, entry.value) + room * 0.015
    axes.text(end, place, entry.shown, va="center", fontsize=6.5, color=INK, clip_on=False)


def tradeoff(
    table: Comparison, palette: Palette, *, chance: float = math.nan, title: str = ""
) -> Figure | None:
    """Privacy against utility: MC(all) to the right, AA upwards, one marker an attack and defense.

    Markers of one model stand side by side, a few points apart, so that their intervals can be seen; the
    intervals of MC(all) are drawn once a defense. A band shows what the negative controls reach.
    """
    across, upwards = metric_index(table, "mc_all"), metric_index(table, "aa")
    if across is None or upwards is None or not (attacks := measured(table, across, upwards)):
        return None
    with look():
        figure = Figure(figsize=(PAGE_WIDTH, 4.5), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(drawable(title, 90), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        for place, row in enumerate(attacks):
            _markers(
                axes, table, row, palette=palette, metrics=(across, upwards), place=(place, len(attacks))
            )
        extras = levels(axes, table, upwards, chance)
        axes.set_xlabel("MC(all), accuracy on private test images (%) → better", loc="right")
        axes.set_ylabel("AA, attack accuracy (%), lower is better")
        axes.set_ylim(-3, 103)
        axes.margins(x=0.08)
        axes.grid()
        _legend(figure, table, attacks, palette, extras)
    return figure


def _markers(
    axes: Axes,
    table: Comparison,
    row: int,
    *,
    palette: Palette,
    metrics: tuple[int, int],
    place: tuple[int, int],
) -> None:
    """Draw one attack, the place-th of so many, against every defense."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    shift = ScaledTranslation((place[0] - (place[1] - 1) / 2) * 4.5 / 72, 0, figure.dpi_scale_trans)
    beside = axes.transData + shift
    for defense, color in enumerate(palette[name] for name in table.defenses):
        x, y = (table.entries[row, defense, metric] for metric in metrics)
        if x.state != "value" or y.state != "value":
            continue
        bar = {"color": color, "linewidth": 1.0, "alpha": 0.55, "zorder": 2}
        axes.plot([x.value, x.value], [y.low, y.high], transform=beside, **bar)  # type: ignore[arg-type]
        axes.plot([x.low, x.high], [y.value, y.value], transform=beside, **bar | {"alpha": 0.25})  # type: ignore[arg-type]
        axes.plot(
            x.value, y.value, MARKERS[place[0] % len(MARKERS)], color=color, markersize=5.5,
            markeredgecolor="white", markeredgewidth=0.5, transform=beside, zorder=3,
        )  # fmt: skip
        axes.update_datalim([(x.low, y.value), (x.high, y.value)])
    axes.autoscale_view()


def _legend(
    figure: Figure, table: Comparison, attacks: list[int], palette: Palette, extras: list[Patch | Line2D]
) -> None:
    """Color means defense, marker means attack; outside of the axes."""
    heading = Line2D([], [], linestyle="none")
    handles: list[Line2D | Patch] = [heading]
    labels = ["defense"]
    for name in table.defenses:
        handles.append(Patch(facecolor=palette[name]))
        labels.append(drawable(name, 24))
    handles.append(heading)
    labels.append("attack")
    for place, row in enumerate(attacks):
        handles.append(
            Line2D(
                [], [], linestyle="none", marker=MARKERS[place % len(MARKERS)], color=MUTED, markersize=5.5
            )
        )
        labels.append(drawable(table.rows[row].label, 24))
    if extras:
        handles += [heading, *extras]
        labels += ["level", *(str(extra.get_label()) for extra in extras)]
    legend = figure.legend(handles, labels, loc="outside right upper", handlelength=1.2, labelspacing=0.35)
    for handle, text in zip(handles, legend.get_texts()):
        if handle is heading:
            text.set_fontweight("bold")
            text.set_position((-16, 0))
