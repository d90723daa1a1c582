"""How figures look: palette, fonts, file formats. Figures are drawn without pyplot and its global state."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

from mibench.report.atomic import write_bytes
from mibench.report.escape import plain

PAGE_WIDTH = 7.16  # inches: the text width of a two-column IEEE page
DPI = 150
INK, MUTED, GRID, BAND = "#18181b", "#71717a", "#e4e4e7", "#d4d4d8"

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#5B4B8A", "#B5A300", "#7F3C00",
           "#2F4B4B")  # fmt: skip
"""Okabe and Ito's colors (jfly.uni-koeln.de/color), which color-blind readers can tell apart; its yellow and
black are replaced by darker hues and two are added, told apart by lightness too."""
UNDEFENDED = "#8b8b94"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "H", "8")

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5, "text.parse_math": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.linewidth": 0.7, "grid.color": GRID, "grid.linewidth": 0.6, "hatch.linewidth": 0.6,
    "legend.frameon": False, "figure.dpi": DPI, "savefig.dpi": DPI, "pdf.fonttype": 42,
    "axes.axisbelow": True,
}  # fmt: skip


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's settings of a report, whatever the user's own are, for the time of the block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type]  # a plain dict of names and values
        yield


@cache
def _characters() -> frozenset[int]:
    """The characters that the figures' font can draw."""
    path = font_manager.findfont("DejaVu Sans", fallback_to_default=False)
    return frozenset(font_manager.get_font(path).get_charmap())


def drawable(text: object, limit: int = 40) -> str:
    """Text that matplotlib draws as it stands: known characters, no underscore that hides a legend entry."""
    known = "".join(char if ord(char) in _characters() else "?" for char in plain(text, limit))
    return f" {known}" if known.startswith("_") else known


def colors(acts: Mapping[str, str]) -> dict[str, str]:
    """A color for every defense, given where each acts; one that does nothing is the baseline: gray."""
    shades = itertools.cycle(PALETTE)
    return {name: UNDEFENDED if act == "nothing" else next(shades) for name, act in acts.items()}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as STEM.png and STEM.pdf, without dates, so that equal records give equal bytes."""
    formats = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    paths = []
    for name, metadata in formats.items():
        out = io.BytesIO()
        with look():
            figure.savefig(out, format=name, metadata=metadata, dpi=DPI)
        figure.set_layout_engine("none")  # laid out by now: once more would cost as much as the drawing
        paths.append(write_bytes(stem.with_name(f"{stem.name}.{name}"), out.getvalue()))
    return paths
