"""A picture of some people of a prepared set, to look at before anything is trained on it."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mibench.data.prepared import PreparedSet
from mibench.errors import DataError
from mibench.seeds import derive_seed

LEAST_TILE, MOST_TILE = 96, 256  # pixels: smaller faces cannot be judged by eye, larger ones fill the screen
_GAP, _EDGE, _LINE = 4, 16, 18
_INK, _MUTED, _PAPER, _ALARM = (24, 24, 27), (113, 113, 122), (255, 255, 255), (153, 27, 27)
_LEAST_WIDTH = 560  # pixels, so that titles and terms have room beside few images


@dataclass(frozen=True)
class Strip:
    """One line of a sheet: a label, a muted word about it, and images (n, C, H, W), uint8."""

    label: str
    about: str
    images: NDArray[np.uint8]


def draw_strips(found: PreparedSet, *, identities: int, images: int, seed: int) -> list[Strip]:
    """Identities drawn by a seed, in row order, each with some of its images, drawn likewise.

    A set that does not say who is on an image gives lines of single images.

    Args:
        found: the set.
        identities: lines at most, >= 1.
        images: images a line at most, >= 1.
        seed: of the draw.

    Raises:
        DataError: the images or the manifest cannot be read.
    """
    random = np.random.default_rng(derive_seed(seed, "contact sheet"))

    def drawn(rows: Sequence[int], count: int) -> list[int]:
        chosen = random.choice(len(rows), size=min(count, len(rows)), replace=False)
        return [rows[place] for place in sorted(chosen.tolist())]

    pixels = found.pixels
    if not found.info.has_identities:
        rows = drawn(range(found.info.images), identities * images)
        lines = [rows[start : start + images] for start in range(0, len(rows), images)]
        return [Strip(f"rows {line[0]} to {line[-1]}", "", np.asarray(pixels[line])) for line in lines]
    names = list(found.rows_of)
    strips = []
    for place in drawn(range(len(names)), identities):
        own = found.rows_of[names[place]]
        rows = drawn(own, images)
        about = f"{len(rows)} of {len(own)}, rows {own.start} to {own.stop - 1}"
        strips.append(Strip(names[place], about, np.asarray(pixels[rows])))
    return strips


def contact_sheet(strips: Sequence[Strip], *, title: str, about: str, terms: str = "") -> bytes:
    """The sheet as a PNG file without metadata.

    Args:
        strips: the lines, one or more; all images of one shape; labels must be printable.
        title: the first line.
        about: the second line, muted.
        terms: told in red below the images; empty where there is nothing to tell.

    Raises:
        DataError: there is no line.
    """
    if not strips:
        raise DataError("contact sheet: no image to show. Ask for one identity and one image at the least.")
    tile = enlarged(strips[0].images[0])
    height = tile.height + _LINE + 2 * _GAP
    columns = max(len(strip.images) for strip in strips)
    width = max(_LEAST_WIDTH, columns * (tile.width + _GAP) - _GAP + 2 * _EDGE)
    small, large = _font(13), _font(16, bold=True)
    notes = _wrapped(terms, small, width - 2 * _EDGE)
    top = _EDGE + 2 * _LINE + _GAP + 4
    page = Image.new("RGB", (width, top + len(strips) * height + len(notes) * _LINE + _EDGE), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_EDGE, _EDGE), _cut(title, large, width - 2 * _EDGE), fill=_INK, font=large, anchor="lt")
    about = _cut(about, small, width - 2 * _EDGE)
    draw.text((_EDGE, _EDGE + _LINE + _GAP), about, fill=_MUTED, font=small, anchor="lt")
    for line, strip in enumerate(strips):
        y = top + line * height
        for column, image in enumerate(strip.images):
            page.paste(enlarged(image), (_EDGE + column * (tile.width + _GAP), y))
        _caption(draw, strip, (_EDGE, y + tile.height + _GAP), width - 2 * _EDGE)
    for line, note in enumerate(notes):
        y = top + len(strips) * height + line * _LINE
        draw.text((_EDGE, y), note, fill=_ALARM, font=small, anchor="lt")
    out = io.BytesIO()
    page.save(out, format="PNG", optimize=True)
    return out.getvalue()


def enlarged(pixels: NDArray[np.uint8]) -> Image.Image:
    """An image (C, H, W), uint8, at a size to look at: whole factors up or down, its own pixels where up."""
    image = Image.fromarray(
        np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    )
    if image.width > MOST_TILE:
        image = image.reduce(-(-image.width // MOST_TILE))
    factor = max(1, -(-LEAST_TILE // image.width))
    side = (image.width * factor, image.height * factor)
    return image.resize(side, Image.Resampling.NEAREST).convert("RGB")


def _caption(draw: ImageDraw.ImageDraw, strip: Strip, place: tuple[int, int], width: int) -> None:
    """The label of a line, and its muted words behind it."""
    bold, small = _font(13, bold=True), _font(13)
    room = width - small.getlength(strip.about) - 10 if strip.about else width
    label = _cut(strip.label, bold, room)
    draw.text(place, label, fill=_INK, font=bold, anchor="lt")
    x, y = place
    draw.text((x + bold.getlength(label) + 10, y), strip.about, fill=_MUTED, font=small, anchor="lt")


def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib carries it, so that sheets look the same on every machine."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, or what of it fits into the width with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """The words of a text in lines that fit into the width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, font, width))
    return lines


def check_place(file: Path, *, may_publish: bool) -> None:
    """Raise DataError where a sheet would replace a file, or faces would slip into somebody's next commit.

    Args:
        file: where the sheet is to go.
        may_publish: whether the set's terms allow to publish it; if not, no git checkout may hold it
            unless it ignores the file.
    """
    if file.suffix.lower() != ".png":
        raise DataError(f"contact sheet {file}: is written as PNG. Give a name that ends with .png.")
    if file.exists() or file.is_symlink():
        raise DataError(f"contact sheet {file}: is there already. Give another name, or remove it first.")
    checkout = None if may_publish else _checkout_of(file)
    if checkout is not None and not _is_ignored(file, checkout):
        raise DataError(
            f"contact sheet {file}: the terms of the set forbid to publish its images, and git does not "
            f"ignore this file in {checkout}. Write it elsewhere, or have .gitignore name it."
        )


def _checkout_of(file: Path) -> Path | None:
    """The git checkout that a file would lie in."""
    return next((above for above in file.resolve().parents if (above / ".git").exists()), None)


def _is_ignored(file: Path, checkout: Path) -> bool:
    """Whether git ignores a file; False where git is not there to ask."""
    command = ["git", "-C", str(checkout), "check-ignore", "--quiet", "--", str(file.resolve())]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False
