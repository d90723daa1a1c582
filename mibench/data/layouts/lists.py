"""Reads the text files that say who is on an image and where the face is, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mibench.data.layouts.layout import Box, Item, Points
from mibench.data.layouts.walking import Walk, quoted
from mibench.errors import DataError

LONGEST = 65_536
"""Characters of a line; web addresses in lists are some hundred long, a file without lines is no list."""
AGAIN = "Get the file again, or mend the line."


def numbered_lines(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1, without surrounding spaces.

    Bytes that are no UTF-8 survive as surrogates, as they do in file names.

    Raises:
        DataError: the file cannot be read, or a line is too long for a list.
    """
    number = 0
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as opened:
            while line := opened.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise malformed(file, number, line, f"has more than {LONGEST} characters")
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{quoted(file)}: cannot be read ({error.strerror}). Check permissions.") from error


def malformed(file: Path, number: int, line: str, problem: str, advice: str = AGAIN) -> DataError:
    """An error about a line, with its number and its start."""
    return DataError(f"{quoted(file)}, line {number}: {problem}; it begins {quoted(line, 60)}. {advice}")


def numbers(fields: Sequence[str]) -> tuple[float, ...] | None:
    """Fields as finite numbers; None where one is none."""
    try:
        values = tuple(map(float, fields))
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


@dataclass(frozen=True)
class Table:
    """A list that says where the face on each image is.

    Args:
        name: of its file, for the reasons of skips.
        rows: by a key of the image: ten numbers x1, y1, ..., x5, y5 of landmarks, or left, top, right and
            bottom of a box, in pixels.
    """

    name: str
    rows: dict[str, tuple[float, ...]]


def with_face(walk: Walk, item: Item, key: str, *, marks: Table | None, boxes: Table | None) -> Item | None:
    """The image with the landmarks and the box that lists give; None, and a skip, if one leaves it out."""
    for table in (marks, boxes):
        if table is not None and key not in table.rows:
            walk.skip(item.name, f"not named in {table.name}")
            return None
    box = _box(boxes.rows[key]) if boxes else None
    if boxes and box is None:
        walk.skip(item.name, f"empty box in {boxes.name}")
        return None
    return replace(item, landmarks=_points(marks.rows[key]) if marks else None, box=box)


def named_but_gone(walk: Walk, list_name: str, names: Iterable[str]) -> None:
    """Note images that a list names and that are not there, by their paths below the root."""
    for name in names:
        walk.skip(name, f"named in {list_name} but not there")


def corners(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a box given by its size."""
    return left, top, left + width, top + height


def _points(values: Sequence[float]) -> Points:
    return tuple(zip(values[::2], values[1::2]))


def _box(values: Sequence[float]) -> Box | None:
    """The box; None where it is empty."""
    left, top, right, bottom = values
    return (left, top, right, bottom) if left < right and top < bottom else None
