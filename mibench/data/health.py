"""What is odd about the images of a prepared set: blank, dark, gray or repeated ones, people with one image.

The thresholds are ours, chosen so that ordinary portraits stay below them; each number is told with the rows
that it counts, since only eyes can judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mibench.data.finding import NAMED, Finding, counted, first_few
from mibench.data.prepared import PreparedSet

FLAT_STD = 4.0  # levels of 255 by which a blank image's pixels differ at most in each channel, after JPEG
DARK_MEAN = 16.0  # mean level of 255 below which a face can hardly be made out
GRAY_SPREAD = 1.0  # mean levels of 255 between the channels of what was gray before JPEG
TELLING = 0.01  # share of a set from which on repeated files and gray images are worth a warning
SAME_BYTES = "same bytes"  # what the reasons of left out copies begin with
_CHUNK = 512  # rows looked at at a time


@dataclass
class Content:
    """Rows that stand out.

    Args:
        images: number of rows looked at.
        flat: rows without any structure.
        dark: rows that are nearly black, but not flat.
        gray: rows without color, in a set with three channels, but not flat.
        repeated: rows with the pixels of an earlier one: (row, earlier row).
    """

    images: int = 0
    flat: list[int] = field(default_factory=list)
    dark: list[int] = field(default_factory=list)
    gray: list[int] = field(default_factory=list)
    repeated: list[tuple[int, int]] = field(default_factory=list)


def content_of(pixels: NDArray[np.uint8], on_rows: Callable[[int], object] = lambda _count: None) -> Content:
    """Look at every image once.

    Args:
        pixels: (N, C, H, W), uint8, perhaps memory-mapped.
        on_rows: called with the number of rows after each chunk.
    """
    found = Content(images=len(pixels))
    first: dict[bytes, int] = {}
    for start in range(0, len(pixels), _CHUNK):
        chunk = np.asarray(pixels[start : start + _CHUNK])
        values = chunk.reshape(*chunk.shape[:2], -1).astype(np.float32)
        # channel by channel: one color all over has a spread between its channels, and shows nothing
        is_flat = values.std(2).max(1) < FLAT_STD
        is_dark = (values.mean((1, 2)) < DARK_MEAN) & ~is_flat
        found.flat += (start + is_flat.nonzero()[0]).tolist()
        found.dark += (start + is_dark.nonzero()[0]).tolist()
        if chunk.shape[1] == 3:
            spread = (chunk.max(1) - chunk.min(1)).reshape(len(chunk), -1).mean(1)
            found.gray += (start + ((spread < GRAY_SPREAD) & ~is_flat).nonzero()[0]).tolist()
        for row, image in enumerate(chunk, start):
            earlier = first.setdefault(hashlib.blake2b(image.tobytes(), digest_size=16).digest(), row)
            if earlier != row:
                found.repeated.append((row, earlier))
        on_rows(len(chunk))
    return found


def images_each(found: PreparedSet) -> list[int]:
    """Number of images of each identity, in row order.

    Raises:
        DataError: the manifest cannot be read.
    """
    return [len(rows) for rows in found.rows_of.values()]


def examine(
    found: PreparedSet,
    on_rows: Callable[[int], object] = lambda _count: None,
    *,
    most: int = NAMED,
) -> Iterator[Finding]:
    """What is odd about a set; one finding a question, `ok` where nothing is.

    Args:
        found: the set.
        on_rows: as for `content_of`.
        most: people, images or pairs that a finding names; it says how many more there are.

    Raises:
        DataError: images or manifest cannot be read.
    """
    if found.info.has_identities:
        yield _people(found, most)
    yield _copies(found)
    yield from _content(found, content_of(found.pixels, on_rows), most)


def _people(found: PreparedSet, most: int) -> Finding:
    counts = images_each(found)
    single = [name for name, rows in found.rows_of.items() if len(rows) == 1]
    if len(counts) < 3:
        text = (
            f"{counted(len(counts), 'identity', 'identities')}: a split needs five or more. Check the folder."
        )
        return Finding("warn", "people", text)
    if single:
        of = f"of {len(counts):,} have one image ({first_few(single, most)})"
        advice = "They can be public alone; `--min-images 2` leaves them out."
        return Finding("warn", "people", f"{len(single):,} {of}. {advice}")
    return Finding("ok", "people", f"{len(counts):,}, each with {min(counts)} images or more")


def _copies(found: PreparedSet) -> Finding:
    skipped = found.info.skipped
    copies = sum(count for reason, count in skipped.items() if reason.startswith(SAME_BYTES))
    told = found.info.options.get("found_images")  # what is left out is no image only
    seen = told if type(told) is int else found.info.images + copies
    share = f"{copies:,} of {counted(seen, 'image')} were copies of another, byte for byte, and left out"
    if copies > TELLING * seen:
        return Finding("warn", "copies", f"{share}. Look at what else the folder repeats: {_OVERLAP}")
    return Finding("ok", "copies", share)


_OVERLAP = "`mibench data overlap` finds near duplicates."


def _content(found: PreparedSet, content: Content, most: int) -> Iterator[Finding]:
    flat, dark, gray = content.flat, content.dark, content.gray
    where = _Places(found, most)
    yield _rows(where, "blank", flat, _REMOVE)
    yield _rows(where, "dark", dark, "A face can hardly be made out on them: look at the files.")
    yield _repeated(where, content)
    if found.info.channels == 3:
        is_many = len(gray) > TELLING * content.images
        text = f"{counted(len(gray), 'image')} without color"
        if is_many:
            text += f": {where.of(gray)}. An attack may learn who is gray. `--channels 1` makes all alike."
        yield Finding("warn" if is_many else "ok", "gray", text)


_REMOVE = "Remove the files, and give the command that made the set with --restart."


class _Places:
    """How findings name rows: with the files that they come from.

    Args:
        found: the set.
        most: rows that are named; of more it is said how many.
    """

    def __init__(self, found: PreparedSet, most: int) -> None:
        self.found, self.most = found, most

    def of(self, rows: list[int]) -> str:
        """The first few rows."""
        names = self._names(set(rows[: self.most]))
        return first_few([names.get(row, row) for row in rows], self.most)

    def of_pairs(self, pairs: list[tuple[int, int]]) -> str:
        """The first few pairs, each a row and the earlier row that it is equal to."""
        names = self._names({row for pair in pairs[: self.most] for row in pair})
        told = [f"{names.get(row)} is {names.get(earlier)}" for row, earlier in pairs]
        return first_few(told, self.most)

    def _names(self, rows: set[int]) -> dict[int, str]:
        lines = enumerate(self.found.manifest())
        return {row: f"row {row} ({line['file']})" for row, line in lines if row in rows}


def _rows(where: _Places, what: str, rows: list[int], advice: str) -> Finding:
    if not rows:
        return Finding("ok", what, "none")
    return Finding("warn", what, f"{counted(len(rows), 'image')}: {where.of(rows)}. {advice}")


def _repeated(where: _Places, content: Content) -> Finding:
    """Equal pixels from different files; between two people they are a mistake in the names."""
    if not content.repeated:
        return Finding("ok", "repeated", "no two images are equal")
    who = {row: name for name, rows in where.found.rows_of.items() for row in rows}
    across = [(row, earlier) for row, earlier in content.repeated if who[row] != who[earlier]]
    within = [pair for pair in content.repeated if who[pair[0]] == who[pair[1]]]
    text = f"{counted(len(content.repeated), 'image')} with the pixels of an earlier one"
    if across and where.found.info.has_identities:
        text += f", {len(across):,} of them of someone else, so one of the two names is wrong"
    # names that are wrong are told first
    return Finding("warn", "repeated", f"{text}: {where.of_pairs([*across, *within])}. {_REMOVE}")
