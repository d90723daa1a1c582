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
from PIL import Image

from mibench.report.atomic import write_bytes
from mibench.report.escape import plain

PAGE_WIDTH, PAGE_HEIGHT = 7.16, 9.3  # inches: the text of a two-column IEEE page, less a caption
DPI = 150
LARGE, FACE_BITS = 700_000, (8, 7, 6, 5)  # bytes of a PNG; bits a channel, the first that keep it below
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


def has_hues(acts: Mapping[str, str]) -> bool:
    """Whether the palette has a color for every defense, given where each acts."""
    return sum(act != "nothing" for act in acts.values()) <= len(PALETTE)


def colors(acts: Mapping[str, str]) -> dict[str, str]:
    """A color for every defense, given where each acts; one that does nothing is the baseline: gray."""
    shades = itertools.cycle(PALETTE)
    return {name: UNDEFENDED if act == "nothing" else next(shades) for name, act in acts.items()}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as STEM.png and STEM.pdf, without dates, so that equal records give equal bytes.

    Faces are smoothed in the PNG and left as they are in the PDF. A PNG has 256 colors, which is enough for
    lines and letters; faces keep theirs in a small file, and lose their last bits in a large one.
    """
    formats = {
        "png": {"Software": None},
        "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    }
    faces = [image for axes in figure.axes for image in axes.images]
    paths = []
    for name, metadata in formats.items():
        for face in faces:
            face.set_interpolation("bicubic" if name == "png" else "none")
        out = io.BytesIO()
        with look():
            figure.savefig(out, format=name, metadata=metadata, dpi=DPI)
        figure.set_layout_engine("none")  # laid out by now: once more would cost as much as the drawing
        content = _small_png(out, has_faces=bool(faces)) if name == "png" else out.getvalue()
        paths.append(write_bytes(stem.with_name(f"{stem.name}.{name}"), content))
    return paths


def _small_png(png: io.BytesIO, *, has_faces: bool) -> bytes:
    """The PNG in fewer bytes: 256 colors, or for faces as many bits as make it small enough."""
    with Image.open(png) as opened:
        picture = opened.convert("RGB")
    if not has_faces:
        return _png(picture.quantize(256, method=Image.Quantize.MEDIANCUT))
    for bits in FACE_BITS[:-1]:
        if len(content := _png(_coarse(picture, bits))) <= LARGE:
            return content
    return _png(_coarse(picture, FACE_BITS[-1]))


def _coarse(picture: Image.Image, bits: int) -> Image.Image:
    """The picture with so many bits a channel; white stays white."""
    step = 1 << (8 - bits)
    levels = [255 if value == 255 else min((value + step // 2) // step * step, 255) for value in range(256)]
    return picture.point(levels * 3)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True, dpi=(DPI, DPI))
    return out.getvalue()
