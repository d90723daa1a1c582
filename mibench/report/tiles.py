"""The images of a cell on disk: raw strips for other figures, and one labeled picture to look at.

A cell's folder holds `real.png`, `got.png` and perhaps `nearest.png`: one line of raw pixels a label, one
column an image, no margins, lossless. `cell.json` says which label each line is. `reconstructions.png`
shows the three side by side, enlarged.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mibench.errors import RecordError
from mibench.report.atomic import write_bytes, write_text

Tiles = npt.NDArray[np.uint8]
Kind = Literal["real", "got", "nearest"]
HEADINGS: dict[Kind, str] = {"real": "real", "got": "reconstructed", "nearest": "nearest private image"}
SHOWN_COLUMNS: dict[Kind, int] = {"real": 2, "got": 4, "nearest": 4}
SHOWN_ROWS = 8
LEAST_TILE = 72  # pixels: smaller faces cannot be judged by eye
_SAMPLED = 8  # pixels between those that choose the colors: 81 or more of every face are among them
INK, MUTED, PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Which labels the lines of the strips are, and how large their tiles: (height, width)."""

    labels: tuple[int, ...]
    protected: tuple[bool, ...]
    size: tuple[int, int]
    columns: dict[str, int]


def save_cell_images(
    folder: Path,
    real: Tiles,
    got: Tiles,
    nearest: Tiles | None = None,
    *,
    labels: Sequence[int],
    protected: Sequence[bool],
) -> list[Path]:
    """Write a cell's strips, their layout and the labeled picture; returns the files.

    Args:
        folder: the cell's folder; made if need be.
        real: (T, R, H, W, C) uint8, C 1 or 3: real private images of the attacked labels.
        got: (T, n, H, W, C) uint8: reconstructions.
        nearest: (T, n, H, W, C) uint8: the private training image nearest to each reconstruction.
        labels: the T attacked labels.
        protected: for each label whether the defense protects it.

    Raises:
        ValueError: arrays that are not uint8, of five axes, or do not agree with each other or the labels.
    """
    strips: dict[Kind, Tiles] = {"real": real, "got": got}
    if nearest is not None:
        strips["nearest"] = nearest
    for kind, tiles in strips.items():
        _check(kind, tiles, got.shape, len(labels), len(protected))
    paths = [write_bytes(folder / f"{kind}.png", _png(_strip(tiles))) for kind, tiles in strips.items()]
    layout: dict[str, Any] = {
        "labels": [int(label) for label in labels],
        "protected": [bool(flag) for flag in protected],
        "size": [int(side) for side in got.shape[2:4]],
        "columns": {kind: int(tiles.shape[1]) for kind, tiles in strips.items()},
    }
    paths.append(write_text(folder / "cell.json", json.dumps(layout, indent=1) + "\n"))
    picture = _picture(strips, layout["labels"], layout["protected"])
    return [*paths, write_bytes(folder / "reconstructions.png", picture)]


def remove_cell_images(folder: Path) -> None:
    """Remove what `save_cell_images` writes; a folder without it stays as it is."""
    for name in (*(f"{kind}.png" for kind in HEADINGS), "cell.json", "reconstructions.png"):
        (folder / name).unlink(missing_ok=True)


def _check(kind: str, tiles: Tiles, like: tuple[int, ...], num_labels: int, num_flags: int) -> None:
    """ValueError unless the tiles are what `save_cell_images` asks for."""
    fits = tiles.ndim == 5 and tiles.dtype == np.uint8 and tiles.shape[2:] == like[2:]
    if not fits or tiles.shape[0] != num_labels or num_flags != num_labels or tiles.shape[4] not in {1, 3}:
        raise ValueError(
            f"save_cell_images: '{kind}' has shape {tiles.shape} and type {tiles.dtype} beside {num_labels} "
            f"labels and {num_flags} flags. Give uint8 arrays of (labels, images, height, width, 1 or 3)."
        )


def _strip(tiles: Tiles) -> Tiles:
    """(T, n, H, W, C) to one image (T * H, n * W, C)."""
    rows, columns, height, width, channels = tiles.shape
    return tiles.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def _image(pixels: Tiles) -> Image.Image:
    """An image of pixels (H, W, C), C 1 or 3."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _png(pixels: Tiles) -> bytes:
    """Pixels (H, W, C) as the bytes of a PNG file without metadata."""
    out = io.BytesIO()
    _image(pixels).save(out, format="PNG")
    return out.getvalue()


def read_layout(folder: Path) -> Layout | None:
    """The layout of a cell's strips; None where the cell has no images.

    Raises:
        RecordError: the file is there but cannot be understood.
    """
    path = folder / "cell.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        height, width = raw["size"]
        return Layout(tuple(raw["labels"]), tuple(raw["protected"]), (height, width), dict(raw["columns"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path}: not the layout of a cell's images ({error}). Run the suite again."
        ) from None


def read_tiles(folder: Path, kind: Kind, layout: Layout) -> Tiles:
    """The tiles (T, n, H, W, 3) uint8 of one strip.

    Raises:
        RecordError: the strip is missing or its size is not the layout's.
    """
    path = folder / f"{kind}.png"
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error}). Run the suite again.") from None
    (height, width), rows, columns = layout.size, len(layout.labels), layout.columns.get(kind, 0)
    if pixels.shape[:2] != (rows * height, columns * width):
        raise RecordError(
            f"{path}: {pixels.shape[1]}x{pixels.shape[0]} pixels, but cell.json says {columns * width}x"
            f"{rows * height}. Run the suite again."
        )
    return pixels.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)


def enlarge(tile: Tiles, side: int) -> Tiles:
    """A tile (H, W, C) as RGB with its longer side at `side` pixels or more: whole factors up, Lanczos."""
    height, width = tile.shape[:2]
    factor = max(1, -(-side // max(height, width)))
    image = _image(tile).convert("RGB")
    return np.asarray(image.resize((width * factor, height * factor), Image.Resampling.LANCZOS))


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib carries it, so that pictures look the same on every machine."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def _picture(strips: dict[Kind, Tiles], labels: Sequence[int], protected: Sequence[bool]) -> bytes:
    """The labeled picture: a line a label (protected ones first), a group of columns a kind."""
    order = sorted(range(len(labels)), key=lambda row: not protected[row])[:SHOWN_ROWS]
    shown = {kind: tiles[:, : SHOWN_COLUMNS[kind]] for kind, tiles in strips.items()}
    height, width = enlarge(strips["got"][0, 0], LEAST_TILE).shape[:2]
    left, top, gap, group_gap, edge = 112, 44, 4, 28, 16
    starts, x = {}, left
    for kind, tiles in shown.items():
        starts[kind] = x
        x += tiles.shape[1] * (width + gap) - gap + group_gap
    page = Image.new("RGB", (x - group_gap + edge, top + len(order) * (height + gap) + edge), PAPER)
    draw = ImageDraw.Draw(page)
    for kind, start in starts.items():
        draw.text((start, top - 12), HEADINGS[kind], fill=INK, font=font(14, bold=True), anchor="ls")
    for line, row in enumerate(order):
        y = top + line * (height + gap)
        draw.text((edge, y + height // 2 - 2), f"label {labels[row]}", fill=INK, font=font(14), anchor="ls")
        status = "protected" if protected[row] else "bystander"
        draw.text((edge, y + height // 2 + 4), status, fill=MUTED, font=font(12), anchor="lt")
        for kind, tiles in shown.items():
            for column, tile in enumerate(tiles[row]):
                page.paste(_image(enlarge(tile, LEAST_TILE)), (starts[kind] + column * (width + gap), y))
    out = io.BytesIO()
    _paletted(page).save(out, format="PNG", optimize=True)
    return out.getvalue()


def _paletted(page: Image.Image) -> Image.Image:
    """A page in 256 colors: enough to look at, in a third of the bytes; the strips hold the true pixels.

    The colors are chosen from a small part of the pixels, since choosing takes ten times as long as all else.
    """
    size = (-(-page.width // _SAMPLED), -(-page.height // _SAMPLED))
    sample = page.resize(size, Image.Resampling.NEAREST)
    palette = sample.quantize(256, method=Image.Quantize.MEDIANCUT)
    return page.quantize(palette=palette, dither=Image.Dither.NONE)
