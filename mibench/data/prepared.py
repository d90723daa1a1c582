"""A prepared set: one memory-mapped array of bytes, who is on which row, and where each image came from.

set.json       what it is and how it was made (SetInfo); written last, so a folder without it is unfinished
images.npy     (N, C, H, W), uint8; the images of one identity are neighbors
manifest.csv   a line a row: row, identity, file, sha256, width, height, mode
skipped.csv    a line a file that was left out: file, reason
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mibench.errors import DataError

SCHEMA = 1
INFO, IMAGES, MANIFEST, SKIPPED = "set.json", "images.npy", "manifest.csv", "skipped.csv"
COLUMNS = ("row", "identity", "file", "sha256", "width", "height", "mode")
SKIP_COLUMNS = ("file", "reason")
SHA256 = re.compile(r"[0-9a-f]{64}")
UNFINISHED = ".part"  # what the folder of an unfinished set ends with
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Of a set: with a slash, two sets could have one full name for two people."""


@dataclass(frozen=True, kw_only=True)
class SetInfo:
    """What `set.json` says.

    Args:
        name: of the set, the start of its identities' full names.
        layout: the layout that it was read with.
        title: the set's full name.
        home: address of its home page.
        terms: what its licence allows.
        citation: the paper to cite.
        may_publish: whether images, and what attacks make of them, may stand on public pages.
        has_identities: whether identities are people; where not, each image stands for itself.
        size: height and width in pixels.
        channels: 3 for RGB, 1 for gray.
        images: number of rows N.
        identities: number of identities.
        options: all choices of the preparation, as JSON.
        skipped: number of files left out, by reason.
        converted: number of files of an unusual pixel format, by format.
        files: SHA-256 and bytes of each other file of the set, by name.
        made_with: versions of what made it, by package.
        schema: of this file.
    """

    name: str
    layout: str
    title: str
    home: str
    terms: str
    citation: str
    may_publish: bool
    has_identities: bool
    size: int
    channels: int
    images: int
    identities: int
    options: dict[str, Any]
    skipped: dict[str, int]
    converted: dict[str, int]
    files: dict[str, dict[str, Any]]
    made_with: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The content of `set.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=True) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of what the images and the manifest hold, in hexadecimal; of no name or place."""
        return hashlib.sha256(
            "".join(str(self.files[name]["sha256"]) for name in (IMAGES, MANIFEST)).encode()
        ).hexdigest()


class PreparedSet:
    """A prepared set as it lies on disk; nothing but `set.json` is read before it is asked for.

    Args:
        root: its folder.

    Raises:
        DataError: no folder, an unfinished one, or a `set.json` that says something else.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.info = _read_info(self.root)

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The images (N, C, H, W), uint8, memory-mapped and read-only.

        Raises:
            DataError: the file is missing or has another shape than `set.json` says.
        """
        file = self.root / IMAGES
        if not file.is_file():
            raise self._problem(IMAGES, file_problem(self.root, self.info, IMAGES))
        try:
            # np.load would also unpack archives, and leaves a file open that it cannot map
            found: NDArray[np.uint8] = open_memmap(file, mode="r")
        except _DAMAGE as error:
            # what numpy says of damage is about its own steps: a shorter file is told as that
            told = file_problem(self.root, self.info, IMAGES) or _unreadable(error)
            raise self._problem(IMAGES, told) from error
        side, wanted = self.info.size, (self.info.images, self.info.channels)
        if found.shape != (*wanted, side, side) or found.dtype != np.uint8:
            said = f"set.json says {(*wanted, side, side)} uint8"
            raise self._problem(IMAGES, f"holds {found.shape} {found.dtype}, {said}")
        return found

    def _problem(self, name: str, problem: str) -> DataError:
        return DataError(f"prepared set {self.root}: {name} {problem}. {AGAIN}")

    @cached_property
    def rows_of(self) -> dict[str, range]:
        """The rows of each identity, in row order.

        Raises:
            DataError: the manifest cannot be read or does not fit `set.json`.
        """
        found: dict[str, range] = {}
        row = 0
        for name, lines in groupby(self.manifest(), key=lambda line: line["identity"]):
            if name in found:
                raise self._problem(MANIFEST, f"gives '{name}' rows in two places")
            found[name] = range(row, row := row + sum(1 for _ in lines))
        if row != self.info.images:
            raise self._problem(MANIFEST, f"has {row} rows, {INFO} says {self.info.images}")
        return found

    def manifest(self) -> Iterator[dict[str, str]]:
        """The lines of the manifest.

        Raises:
            DataError: it cannot be read.
        """
        yield from _lines(self.root / MANIFEST, COLUMNS, self.root)

    def skipped(self) -> Iterator[dict[str, str]]:
        """The lines of `skipped.csv`.

        Raises:
            DataError: it cannot be read.
        """
        yield from _lines(self.root / SKIPPED, SKIP_COLUMNS, self.root)


AGAIN = (
    "Put the file back, or give the `mibench data prepare` command of this set with --restart: the same "
    "files give the same images, and splits stay."
)
"""What to do about a damaged set."""
_DAMAGE = (OSError, ValueError, TypeError, ArithmeticError, TokenError)
"""What numpy was seen to raise on files with damaged headers."""


def file_problem(root: Path, info: SetInfo, name: str) -> str:
    """What is wrong with the name or the size of a file; a phrase, empty where nothing is."""
    file, wanted = root / name, info.files[name]["bytes"]
    try:
        if not file.exists():
            return "is missing"
        if not file.is_file():
            return "is a folder and no file" if file.is_dir() else "is no regular file"
        size = file.stat().st_size
    except OSError as error:
        return f"cannot be read ({error.strerror or 'unknown error'})"
    if size < wanted:
        return f"is cut short: it has {size:,} bytes, {INFO} says {wanted:,}"
    return f"was changed: it has {size:,} bytes, {INFO} says {wanted:,}" if size > wanted else ""


def _unreadable(error: Exception) -> str:
    """That a file cannot be read, in words: those of the system, and none of numpy's or Python's."""
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read ({error.strerror})"
    return "cannot be read: it holds no array of numpy's"


def _read_info(root: Path) -> SetInfo:
    file = root / INFO
    if not file.is_file():
        if root.suffix != UNFINISHED and ((root / IMAGES).exists() or (root / MANIFEST).exists()):
            raise DataError(f"prepared set {root}: {INFO} is missing. {AGAIN}")
        raise DataError(
            f"prepared set {root}: there is no {INFO}. Make it by `mibench data prepare`, or give an "
            "unfinished one the command that began it once more."
        )
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
            raise ValueError(f"schema is not {SCHEMA}")
        info = SetInfo(**raw)
        _check_info(info)
        return info
    except (OSError, ValueError, TypeError, RecursionError) as error:
        told = (error.strerror or "unknown error") if isinstance(error, OSError) else error
        raise DataError(f"prepared set {root}: {INFO} cannot be used ({told}). {AGAIN}") from error


def _check_info(info: SetInfo) -> None:
    """Raise ValueError where a field of `set.json` is not of its type, or a file name leads elsewhere."""
    try:
        TypeAdapter(SetInfo).validate_json(info.to_json(), strict=True)
    except ValidationError as error:
        first: Any = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"'{place}': {first['msg']}") from error
    if not NAME.fullmatch(info.name):
        raise ValueError("'name': letters, digits and ._- alone, 64 at most")
    absent = sorted({IMAGES, MANIFEST, SKIPPED} - set(info.files))
    if absent:
        raise ValueError(f"no digest of {', '.join(absent)} is recorded")
    for name, state in info.files.items():
        # a set that came from elsewhere must not make us read other files of this machine
        if name in {"", ".", ".."} or re.search(r"[/\\\0]", name):
            raise ValueError(f"the file name '{name}' leads out of the folder")
        if not SHA256.fullmatch(str(state.get("sha256"))) or not isinstance(state.get("bytes"), int):
            raise ValueError(f"'{name}' has no SHA-256 or no number of bytes")


def _lines(file: Path, columns: tuple[str, ...], root: Path) -> Iterator[dict[str, str]]:
    if not file.exists():
        raise DataError(f"prepared set {root}: {file.name} is missing. {AGAIN}")
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened)
            if tuple(reader.fieldnames or ()) != columns:
                raise DataError(f"prepared set {root}: {file.name} has not the columns {columns}. {AGAIN}")
            for line in reader:
                # csv gives too many cells the key None, and too few the value
                if None in line or None in line.values():
                    raise DataError(
                        f"prepared set {root}: {file.name}, line {reader.line_num}: it has too few or too "
                        f"many cells. {AGAIN}"
                    )
                yield line
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        told = (error.strerror or "unknown error") if isinstance(error, OSError) else "it is no CSV text"
        raise DataError(f"prepared set {root}: {file.name} cannot be read ({told}). {AGAIN}") from error
