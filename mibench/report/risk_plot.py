"""How the risk is spread over people: a histogram for each defense, with no defense behind it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from mibench.report.groups import Group, by_member
from mibench.report.look import BAND, INK, MUTED, PAGE_HEIGHT, PAGE_WIDTH, drawable, look
from mibench.report.placing import wrap
from mibench.report.risk import EXPOSED, Exposure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS = 4
_EDGES = np.linspace(0, 1, 9)  # an edge where exposure begins
_PANEL = 1.32  # inches
_FEW = 2  # names in a heading


def histograms(found: Sequence[Exposure], *, title: str = "") -> Figure | None:
    """One panel for each defense that differs from no defense for anybody; None where there is none.

    Defenses under which every person has the same numbers share a panel. Bars count people by the share of
    their reconstructions that is recognized in the worst case over attacks; gray is no defense.

    Args:
        found: of one scene.
        title: heading of the figure.
    """
    plain = next((one for one in found if one.acts == "nothing"), None)
    if plain is None:
        return None
    groups: dict[bytes, list[Exposure]] = {}
    for one in found:
        groups.setdefault(one.worst.tobytes(), []).append(one)
    same = groups.pop(plain.worst.tobytes())
    if not groups:
        return None
    panels = list(groups.values())
    rows = -(-len(panels) // ACROSS)
    look_of = by_member({one.defense: one.acts for one in found})
    top = max(int(_counts(one).max()) for one in found)
    with look():
        height = min(rows * _PANEL + 0.85, PAGE_HEIGHT)
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        figure.suptitle(drawable(title, 90), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        grid = figure.subplots(rows, ACROSS, sharex=True, sharey=True, squeeze=False)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.set_axis_off()
                continue
            _panel(axes, plain, panels[place], look_of[panels[place][0].defense], top)
            axes.tick_params(labelbottom=place + ACROSS >= len(panels))
        figure.supylabel("people", fontsize=8)
        _explain(figure, [look_of[members[0].defense] for members in panels], same)
    return figure


def _counts(one: Exposure) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """People in each bin, the upper end of the last one included."""
    counts, _ = np.histogram(one.worst, _EDGES)
    return counts


def _panel(axes: Axes, plain: Exposure, members: Sequence[Exposure], group: Group, top: int) -> None:
    """The histogram of one defense over that of none."""
    width = 100 * (_EDGES[1] - _EDGES[0])
    left = 100 * _EDGES[:-1]
    axes.bar(left, _counts(plain), width, align="edge", color=BAND, edgecolor="white", linewidth=0.8)
    axes.bar(
        left + 0.22 * width, _counts(members[0]), 0.56 * width, align="edge", color=group.color, linewidth=0
    )
    axes.axvline(100 * EXPOSED, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    axes.set_xlim(0, 100)
    axes.set_ylim(0, top * 1.05)
    axes.set_xticks([0, 25, 50, 75, 100])
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")
    names = [one.defense for one in members]
    label = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
    share = f"{100 * members[0].exposed[0]:.0f} % exposed"
    axes.set_title(
        "\n".join([*wrap(drawable(label, 60).split(" "), 115, 9.0), share]),
        loc="left",
        pad=3,
        color=INK,
        weight="bold",
        fontsize=7.5,
    )


def _explain(figure: Figure, used: Sequence[Group], same: Sequence[Exposure]) -> None:
    """The legend: what is counted, colors by where defenses act, and who has no panel."""
    kinds = {group.acts: Patch(color=group.color, label=group.title) for group in used}
    share = f"{100 * same[0].exposed[0]:.0f} % exposed"
    handles = [Patch(color=BAND, label=f"no defense, {share}"), *kinds.values()]
    attacks = same[0].attacks
    best = f"best of {attacks} attacks" if attacks > 1 else "one attack"
    text = (
        f"Across: recognized reconstructions of a person (%), {best}; exposed: {100 * EXPOSED:.0f} % or "
        "more, right of the dashes."
    )
    if len(same) > 1:
        names = ", ".join(drawable(one.defense, 22) for one in same[1:])
        text += f" As no defense for everybody: {names}."
    lines = textwrap.fill(text, 118)
    figure.legend(
        handles=handles, loc="outside lower left", ncols=len(handles), handlelength=1.2,
        title=lines, title_fontsize=7.5, alignment="left",
    )  # fmt: skip
