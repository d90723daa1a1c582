"""The folder of an unfinished set: three files that grow, how far they are valid, and who may write to them.

images.npy, manifest.csv, skipped.csv   grow; what lies beyond the sizes in progress.json is cut off
progress.json                           replaced as a whole after every few hundred images
lock                                    held by the process that writes, and let go by its death
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from mibench.atomic import replace_file
from mibench.data.prepared import (
    COLUMNS,
    IMAGES,
    INFO,
    MANIFEST,
    SHA256,
    SKIP_COLUMNS,
    SKIPPED,
    UNFINISHED,
    SetInfo,
)
from mibench.data.spelling import spelled
from mibench.errors import DataError

SCHEMA = 1
PART, PROGRESS, LOCK = UNFINISHED, "progress.json", "lock"
GROWING = (IMAGES, MANIFEST, SKIPPED)
OURS = frozenset({*GROWING, INFO, PROGRESS, LOCK})
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow any further here",
}


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a preparation has got, always at the end of a person.

    Args:
        people: that were dealt with.
        read: files that were read.
        images: rows.
        identities: with a row.
        skipped: files left out, by reason.
        converted: files of an unusual pixel format, by format.
        sizes: valid bytes of each growing file, by name.
    """

    people: int = 0
    read: int = 0
    images: int = 0
    identities: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    converted: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What `progress.json` says.

    Args:
        options: of the plan.
        made_with: versions of what decodes the images.
        command: that goes on.
        layout: that the source is read with.
        replaces: whether the finished set will take the place of another one.
        done: files that were read.
        total: files to read, about.
        bytes_left: about what is still to be written.
        position: up to where the growing files are valid.
        schema: of this file.
    """

    options: dict[str, Any]
    made_with: dict[str, str]
    command: str
    layout: str
    replaces: bool
    done: int
    total: int
    bytes_left: int
    position: Position
    schema: int = SCHEMA


class PartFolder:
    """The three growing files, open.

    Args:
        root: the folder, locked; files that are not there are made.
        shape: (C, size, size) of an image.
    """

    def __init__(self, root: Path, shape: tuple[int, int, int]) -> None:
        self.root, self.shape = root, shape
        # unbuffered, so that a failed write leaves nothing that a later close would try again
        flags = os.O_RDWR | os.O_CREAT
        self._open = {
            name: os.fdopen(os.open(root / name, flags, 0o666), "r+b", buffering=0) for name in GROWING
        }
        self.sizes = {name: os.fstat(file.fileno()).st_size for name, file in self._open.items()}

    def begin(self) -> None:
        """Empty the files and write their heads."""
        self.cut(dict.fromkeys(GROWING, 0))
        self.append(IMAGES, self._header(0))
        self.append(MANIFEST, csv_lines([COLUMNS]))
        self.append(SKIPPED, csv_lines([SKIP_COLUMNS]))

    def append(self, name: str, payload: bytes) -> None:
        """Write at the end of a growing file."""
        rest = memoryview(payload)
        while rest:
            rest = rest[self._open[name].write(rest) :]
        self.sizes[name] += len(payload)

    def cut(self, sizes: Mapping[str, int]) -> None:
        """Cut each file at a size, and write on from there.

        Raises:
            DataError: a file is shorter than that.
        """
        for name, file in self._open.items():
            if (found := os.fstat(file.fileno()).st_size) < sizes[name]:
                raise DataError(
                    f"unfinished set {spelled(str(self.root))}: {name} has {found:,} bytes, {PROGRESS} says "
                    f"{sizes[name]:,}. Begin anew with --restart."
                )
            file.truncate(sizes[name])
            file.seek(sizes[name])
            self.sizes[name] = sizes[name]

    def save(self, progress: Progress) -> None:
        """Bring everything to the disk, and then say so in `progress.json`."""
        self._sync()
        document = json.dumps(dataclasses.asdict(progress), indent=1, sort_keys=True)
        replace_file(self.root / PROGRESS, document.encode())

    def finish(self, info: SetInfo) -> None:
        """Write `set.json` and take away what belongs to the work alone; `end_images` comes before."""
        replace_file(self.root / INFO, info.to_json().encode())
        self.close()
        sync_folder(self.root)
        (self.root / PROGRESS).unlink()

    def end_images(self, images: int) -> None:
        """Say in the head of the array how many images there are; it was left room for that."""
        header = self._header(images)
        file = self._open[IMAGES]
        file.seek(0)
        file.write(header)
        file.seek(0, os.SEEK_END)
        self._sync()

    def close(self) -> None:
        """Close the files."""
        for file in self._open.values():
            file.close()

    def _header(self, images: int) -> bytes:
        """Head of an array of so many images: numpy pads it, so that the first axis can grow in place."""
        out = io.BytesIO()
        said = {"descr": "|u1", "fortran_order": False, "shape": (images, *self.shape)}
        np.lib.format.write_array_header_1_0(out, said)
        return out.getvalue()

    def _sync(self) -> None:
        for file in self._open.values():
            os.fsync(file.fileno())


def csv_lines(lines: Iterable[Iterable[object]]) -> bytes:
    """Lines of a CSV file."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue().encode()


def read_progress(root: Path) -> Progress | None:
    """What an unfinished set says of itself; None where there is none that can be read."""
    try:
        raw = json.loads((root / PROGRESS).read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            return None
        found = Progress(**{**raw, "position": Position(**raw["position"])})
        return TypeAdapter(Progress).validate_python(dataclasses.asdict(found))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def written_digests(root: Path) -> Iterator[str]:
    """SHA-256 of the file behind each row of an unfinished set.

    Raises:
        DataError: its manifest is damaged.
    """
    place = COLUMNS.index("sha256")
    try:
        with (root / MANIFEST).open(encoding="utf-8", newline="") as opened:
            for line in islice(csv.reader(opened), 1, None):
                if len(line) != len(COLUMNS) or not SHA256.fullmatch(line[place]):
                    raise ValueError(f"a line begins '{spelled(','.join(line)[:60])}'")
                yield line[place]
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"unfinished set {spelled(str(root))}: {MANIFEST} is damaged ({error}). Begin anew with "
            "--restart."
        ) from error


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of an unfinished set, whose folder is made if need be.

    The lock is one of the open file, so it ends with the process, however that ends. A folder that holds
    nothing else at the end goes away.

    Raises:
        DataError: another process holds it.
    """
    import fcntl

    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("a") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = (root / LOCK).stat().st_ino == os.fstat(opened.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_there = False  # the second where the other process has finished just now
        if not is_there:
            raise DataError(
                f"unfinished set {spelled(str(root))}: another process prepares it at this moment. Wait for "
                "it, stop it, or give another folder by --to."
            )
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if {path.name for path in root.iterdir()} == {LOCK}:
                    (root / LOCK).unlink()
                    root.rmdir()


def clear(root: Path) -> None:
    """Take away what an earlier preparation left in its folder, but for the lock.

    Raises:
        DataError: something else lies there.
    """
    check_ours(root)
    for path in list(root.iterdir()):
        if path.name != LOCK:
            path.unlink()


def check_ours(root: Path) -> None:
    """Raise DataError where something lies in the folder that no preparation put there."""
    others = sorted(path.name for path in root.iterdir() if not _is_ours(path.name))
    if others:
        raise DataError(
            f"unfinished set {spelled(str(root))}: holds '{spelled(others[0])}', which is none of its files. "
            "Move that away, or give another folder by --to."
        )


def _is_ours(name: str) -> bool:
    return name in OURS or any(name.startswith(f"{own}.tmp-") for own in (PROGRESS, INFO))


def clear_tmp(root: Path) -> None:
    """Take away what a killed process left of a file that it was replacing."""
    for path in list(root.iterdir()):
        if path.name not in OURS and _is_ours(path.name):
            path.unlink()


def sync_folder(root: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(root, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
