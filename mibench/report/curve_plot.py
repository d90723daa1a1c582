"""The figure of one attack: privacy against utility, a line for each defense through its levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mibench.report.curves import LOSSES, Curve, Point, Sheet
from mibench.report.look import GRID, INK, MARKERS, MUTED, PAGE_WIDTH, PALETTE, UNDEFENDED, drawable, look
from mibench.report.placing import Side, around, beside, overlap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES, _DOTS = (0, (3, 2)), (0, (1, 1.5))
_ROOM = 1.2  # the near panel is so many times as wide as the largest loss that is compared
_LINE = 8.0  # points between one label and the next
_LETTER = 3.8  # points that a letter of a label takes
_SIDES: tuple[Side, ...] = (
    ("center", "bottom", 0, 7), ("center", "top", 0, -7), ("left", "center", 8, 0),
    ("right", "center", -8, 0), ("left", "bottom", 6, 6), ("right", "top", -6, -6),
    ("left", "top", 6, -6), ("right", "bottom", -6, 6),
)  # fmt: skip
"""Where a level is written beside its marker: alignment, and offset in points; the first that is free."""


def curves(sheet: Sheet, *, chance: float = math.nan) -> Figure:
    """Utility to the right, AA upwards; the efficient part of each curve is solid, the Pareto front ringed.

    A second panel shows what lies close to no defense, where the table compares, if there is more.

    Args:
        sheet: one attack against the curves of a scene.
        chance: chance level in percent to mark; NaN for none.
    """
    whole, near = _ranges(sheet)
    with look():
        figure = Figure(figsize=(PAGE_WIDTH, 4.2), layout="constrained")
        panels = figure.subplots(1, 1 if near is None else 2, sharey=True, squeeze=False)[0]
        title = f"{sheet.row.label} · {sheet.scene.name}"
        figure.suptitle(drawable(title, 110), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        handles: list[Line2D] = []
        for axes, limits in zip(panels, [whole] if near is None else [whole, near]):
            axes.set_xlim(limits)
            axes.set_ylim(-4, 104)
            axes.grid()
            handles = _panel(axes, sheet, chance)
            elsewhere = near if near is not None and axes is panels[0] else None
            _name_levels(axes, sheet, len(panels), elsewhere)
            if elsewhere is None:
                _mark_losses(axes, sheet)
        panels[0].set_ylabel("AA, attack accuracy (%), lower is better")
        panels[-1].set_xlabel("MC(all), accuracy on private test images (%) → better", loc="right")
        figure.legend(handles=handles, loc="outside lower center", ncols=4, handlelength=1.8)
    return figure


def _ranges(sheet: Sheet) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """The utilities that the panels show: all, and those near no defense where that is far less."""
    points = [*sheet.others, *_points(sheet)]
    least, most = (
        min(p.utility.low for p in points), max(p.utility.high for p in points)
    )  # fmt: skip
    margin = max(0.06 * (most - least), 0.5)
    whole = (least - margin, most + margin)
    if sheet.baseline is None:
        return whole, None
    start = sheet.baseline.utility.value
    near = (start - _ROOM * max(LOSSES), max(p.utility.value for p in points) + 0.15 * max(LOSSES))
    return whole, near if whole[1] - whole[0] > 2 * (near[1] - near[0]) else None


def _points(sheet: Sheet) -> list[Point]:
    """The points of all curves."""
    return [point for curve in sheet.curves for point in curve.points]


def _panel(axes: Axes, sheet: Sheet, chance: float) -> list[Line2D]:
    """Everything but the levels' names; returns the entries of the legend."""
    looks = zip(sheet.curves, itertools.cycle(PALETTE), itertools.cycle(MARKERS))
    handles = [_curve(axes, curve, color, marker) for curve, color, marker in looks]
    handles += [_alone(axes, point, is_baseline=point is sheet.baseline) for point in sheet.others]
    handles.append(_front(axes, sheet.front))
    if not math.isnan(chance):
        line = axes.axhline(chance, color=INK, linewidth=0.8, linestyle=_DASHES, zorder=1)
        line.set_label(f"chance, {chance:.1f} %")
        handles.append(line)
    return handles


def _mark_losses(axes: Axes, sheet: Sheet) -> None:
    """A line at each utility where the table compares defenses, named above the axes."""
    if sheet.baseline is None:
        return
    for loss in LOSSES:
        place = sheet.baseline.utility.value - loss
        if axes.get_xlim()[0] < place:
            axes.axvline(place, color=GRID, linewidth=1.8, zorder=0)
            axes.annotate(
                f"\N{MINUS SIGN}{loss:g}", (place, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=6.5, color=MUTED,
            )  # fmt: skip


def _curve(axes: Axes, curve: Curve, color: str, marker: str) -> Line2D:
    """One defense: a pale line in the order of its levels, a solid one over those that none of them beats."""
    axes.plot(*_xy(curve.points), color=color, linewidth=0.8, alpha=0.35, zorder=2)
    efficient = curve.efficient
    axes.plot(*_xy(efficient), color=color, linewidth=1.5, zorder=3)
    for point in curve.points:
        _marker(axes, point, color=color, marker=marker, face=color if point in efficient else "white")
    label = drawable(f"{curve.name} ({curve.knob})", 34)
    return Line2D([], [], color=color, marker=marker, markersize=5.5, linewidth=1.5, label=label)


def _alone(axes: Axes, point: Point, *, is_baseline: bool) -> Line2D:
    """A defense at one level; no defense is the gray star."""
    color, marker, size = (UNDEFENDED, "*", 9.0) if is_baseline else (MUTED, ".", 7.0)
    _marker(axes, point, color=color, marker=marker, face=color, size=size)
    return Line2D(
        [], [], linestyle="none", marker=marker, color=color, markersize=size, label=drawable(point.label, 34)
    )


def _marker(axes: Axes, point: Point, *, color: str, marker: str, face: str, size: float = 5.5) -> None:
    """A point with the intervals of both its values."""
    x, y = point.utility, point.aa
    axes.plot([x.value, x.value], [y.low, y.high], color=color, linewidth=0.9, alpha=0.45, zorder=2)
    axes.plot([x.low, x.high], [y.value, y.value], color=color, linewidth=0.9, alpha=0.25, zorder=2)
    axes.plot(
        x.value, y.value, marker, color=color, markersize=size, markerfacecolor=face, markeredgewidth=0.9,
        zorder=4,
    )  # fmt: skip


def _front(axes: Axes, points: Sequence[Point]) -> Line2D:
    """The Pareto front: its points ringed, joined by the stairs below which no model lies."""
    x, y = _xy(points)
    axes.plot(x, y, drawstyle="steps-pre", color=INK, linewidth=0.9, linestyle=_DOTS, zorder=1)
    (rings,) = axes.plot(x, y, "o", markersize=10.5, markerfacecolor="none", color=INK, zorder=4)
    rings.set_markeredgewidth(0.8)
    entry = Line2D(
        [], [], color=INK, linewidth=0.9, linestyle=_DOTS, markeredgewidth=0.8, label="Pareto front"
    )
    entry.set_marker("o")
    entry.set_markersize(8.5)
    entry.set_markerfacecolor("none")
    return entry


def _name_levels(axes: Axes, sheet: Sheet, num_panels: int, elsewhere: tuple[float, float] | None) -> None:
    """Write each level beside its marker, on the first side that no marker or other level takes.

    Levels at utilities `elsewhere` are named in another panel.
    """
    size = 72 * PAGE_WIDTH * 0.9 / num_panels, 72 * 2.9  # about; the layout is settled only when drawn
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()

    def place(point: Point) -> tuple[float, float]:
        x, y = point.pair
        return (x - left) / (right - left) * size[0], (y - bottom) / (top - bottom) * size[1]

    taken = [around(*place(point), 4.0, 4.0) for point in [*sheet.others, *_points(sheet)]]
    for curve, color in zip(sheet.curves, itertools.cycle(PALETTE)):
        for point in curve.points:
            is_named = elsewhere is not None and elsewhere[0] <= point.pair[0] <= elsewhere[1]
            if is_named or not left <= point.pair[0] <= right:
                continue
            text = drawable(point.level, 12)
            boxes = [beside(*place(point), (len(text) * _LETTER, _LINE), side) for side in _SIDES]
            shared = [sum(overlap(box, other) for other in taken) for box in boxes]
            best = shared.index(min(shared))
            taken.append(boxes[best])
            across, up, dx, dy = _SIDES[best]
            axes.annotate(
                text, point.pair, xytext=(dx, dy), textcoords="offset points", ha=across, va=up, fontsize=6.5,
                color=color, zorder=5,
            )  # fmt: skip


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.pair[0] for point in points], [point.pair[1] for point in points]
