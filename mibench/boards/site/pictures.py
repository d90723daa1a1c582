"""The picture of a cell: faces of rendered people as they are, those of real people beyond recognition."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mibench.errors import RecordError
from mibench.report.evidence import FILE, Evidence, Shot, exemplars, protected_shots
from mibench.report.evidence_page import evidence_of, said_text, verdict_text
from mibench.report.frame import WITHHELD, Json, may_show_images
from mibench.report.tiles import Kind, Layout, Tiles, enlarge, read_layout, read_tiles

SIDE = 64  # pixels of the longer side of a face, or more: small files that can still be judged by eye
MOST_PEOPLE = 6
QUALITY = 80
BLURRED = 3
"""Cells a side that are left of a real person's face. People still recognize half of the familiar faces at
7 x 10 pixels (Sinha et al., Proceedings of the IEEE 94(11), 2006, result 1); 3 x 3 are an eighth of that."""
_MOST_BYTES = 32 * 2**20  # of a strip of images; real ones have a few hundred kilobytes
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class Card:
    """What is shown of a cell beside its numbers.

    Args:
        file: name of the picture.
        picture: WebP; empty without one.
        size: width and height of the picture in pixels.
        columns: what its columns are, left to right.
        rows: what its rows are, top to bottom.
        is_blurred: whether it shows real people.
        alt: the picture in words.
        verdicts: what the models say of all reconstructions; empty without evidence.
        said: for each person and column what victim and judge say of it.
    """

    file: str
    picture: bytes = b""
    size: tuple[int, int] = (0, 0)
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    is_blurred: bool = False
    alt: str = ""
    verdicts: str = ""
    said: tuple[tuple[str, tuple[str, ...]], ...] = ()


def card_of(record: Json, places: Sequence[Path]) -> Card:
    """The card of a cell, without a picture where none of the folders holds its images.

    Args:
        record: the cell's.
        places: folders of results, each with a folder a suite; and folders with `cells/` in them.
    """
    name = f"{record['cell']}.webp"
    may_show = may_show_images(record)
    roots = _roots(record, places)
    evidence = next(filter(None, (_evidence(root, record) for root in roots)), None)
    people = dict(list(protected_shots(evidence).items())[:MOST_PEOPLE])
    told = Card(name, verdicts=verdict_text(record, evidence), said=_said(people))
    for root in roots:
        folder = _inside(root, *(() if may_show else (WITHHELD,)), "cells", str(record["cell"]))
        if folder is None:
            continue
        try:
            return _with_picture(told, folder, people, is_blurred=not may_show)
        except RecordError:  # no images, or broken ones: a page is drawn without them
            continue
    return told


def blurred(tile: Tiles, side: int = SIDE) -> Tiles:
    """A face of which BLURRED x BLURRED averages of color are left; pixels (H, W, C), uint8.

    Args:
        tile: (H, W, C), uint8, C 1 or 3.
        side: pixels of the longer side of what is returned, at least.
    """
    height, width = tile.shape[:2]
    rows = np.array_split(np.arange(height), min(BLURRED, height))
    columns = np.array_split(np.arange(width), min(BLURRED, width))
    means = np.array([[tile[np.ix_(row, column)].mean(axis=(0, 1)) for column in columns] for row in rows])
    return enlarge(means.round().astype(np.uint8), side)


def _roots(record: Json, places: Sequence[Path]) -> list[Path]:
    """The folders that may hold `cells/`; a suite's name is a folder only where it looks like one."""
    suite = str(record.get("suite"))
    named = [place / suite for place in places] if _SUITE.fullmatch(suite) else []
    return [*places, *named]


def _inside(root: Path, *parts: str) -> Path | None:
    """The folder below a root; None where it is not there, or a link is on the way."""
    path = root
    for one in parts:
        path = path / one
        if path.is_symlink():
            return None
    return path if path.is_dir() else None


def _evidence(root: Path, record: Json) -> Evidence | None:
    """The evidence of a cell; None where there is none, or another cell's."""
    folder = _inside(root, "cells", str(record["cell"]))
    if folder is None or (folder / FILE).is_symlink():
        return None
    found = evidence_of(folder)
    return found if found is not None and found.cell == record["cell"] else None


def _said(people: Mapping[int, Sequence[Shot]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """For each person what the judge says of the best, median and worst reconstruction."""
    return tuple(
        (
            str(label),
            tuple(
                f"{which}: victim {said_text(one.victim_top, one.victim_p, label)}, "
                f"judge {said_text(one.judge_top, one.judge_p, label)}"
                for which, one in exemplars(shots).items()
            ),
        )
        for label, shots in people.items()
    )


def _with_picture(
    told: Card, folder: Path, people: Mapping[int, Sequence[Shot]], *, is_blurred: bool
) -> Card:
    """The card with the picture of a folder; RecordError where its images cannot be used."""
    layout = _layout(folder)
    protected = [label for label, is_protected in zip(layout.labels, layout.protected) if is_protected]
    labels = ([label for label in people if label in layout.labels] or protected)[:MOST_PEOPLE]
    if not labels:
        raise RecordError(f"{folder}: no protected label has images. Run the suite again.")
    got = _tiles(folder, "got", layout)
    # real people's own photographs are left out whole; only what an attack made of them is blurred
    real = None if is_blurred else _tiles(folder, "real", layout)
    rows = []
    for label in labels:
        row = layout.labels.index(label)
        faces = [got[row, min(index, got.shape[1] - 1)] for index in _chosen(people.get(label))]
        rows.append(faces if real is None else [real[row, 0], *faces])
    draw = blurred if is_blurred else enlarge
    pixels = np.vstack([np.hstack([draw(face, SIDE) for face in row]) for row in rows])
    shown: tuple[str, ...] = ("best", "median", "worst") if people else ("first", "second", "third")
    names = ", ".join(map(str, labels))
    how = "blurred beyond recognition" if is_blurred else "a real image first"
    return replace(
        told,
        picture=_webp(pixels),
        size=(pixels.shape[1], pixels.shape[0]),
        columns=shown if is_blurred else ("real", *shown),
        rows=tuple(map(str, labels)),
        is_blurred=is_blurred,
        alt=f"Faces of labels {names}, a row each, {how}: reconstructions ({', '.join(shown)}).",
    )


def _chosen(shots: Sequence[Shot] | None) -> tuple[int, int, int]:
    """The numbers of a person's three images that are shown; fewer reconstructions stand there again."""
    if not shots:
        return 0, 1, 2
    found = [one.index for one in exemplars(shots).values()]
    return found[0], found[min(1, len(found) - 1)], found[-1]


def _layout(folder: Path) -> Layout:
    """The layout of a folder's strips; RecordError where it has none, or the file is a link."""
    found = None if (folder / "cell.json").is_symlink() else read_layout(folder)
    if found is None or not found.labels:
        raise RecordError(f"{folder}: has no images of its own. Run the suite again.")
    return found


def _tiles(folder: Path, kind: Kind, layout: Layout) -> Tiles:
    """A strip; RecordError where it is a link or larger than any that mibench writes."""
    file = folder / f"{kind}.png"
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _MOST_BYTES:
        raise RecordError(f"{file}: is no strip of images. Run the suite again.")
    tiles = read_tiles(folder, kind, layout)
    if not tiles.size:
        raise RecordError(f"{file}: is empty. Run the suite again.")
    return tiles


def _webp(pixels: Tiles) -> bytes:
    """Pixels (H, W, 3) as a WebP file without metadata."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="WEBP", quality=QUALITY, method=4)
    return out.getvalue()
