"""Whether a prepared set, a split or a source folder still is what was written down about it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mibench.data.finding import Finding, counted, first_few
from mibench.data.prepared import IMAGES, INFO, MANIFEST, SHA256, SKIPPED, PreparedSet
from mibench.data.spelling import unspelled
from mibench.errors import DataError

OnBytes = Callable[[int], object]
_BLOCK = 1 << 20  # bytes that are read at a time
_AGAIN = "Prepare the set again, or put the file back."


def verify_set(folder: str | Path, on_bytes: OnBytes = lambda _count: None) -> Iterator[Finding]:
    """Hold every file of a prepared set against `set.json`, and the manifest against itself.

    Args:
        folder: of the set.
        on_bytes: called with the number of bytes after each block that is read.
    """
    try:
        found = PreparedSet(folder)
    except DataError as error:
        yield Finding("fail", INFO, str(error))
        return
    yield Finding("ok", INFO, f"{found.info.images:,} images, {found.info.identities:,} identities")
    for name, state in sorted(found.info.files.items()):
        yield _checked(
            name, "the SHA-256 is the recorded one", _file_problem(found.root / name, state, on_bytes)
        )
    yield _checked("shape", f"{IMAGES} is as {INFO} says", _said(lambda: found.pixels))
    text = "rows, identities and counts agree"
    yield _checked("rows", text, _said(lambda: _manifest_problem(found)))
    text = "the files left out are as many as recorded, by reason"
    yield _checked("left out", text, _said(lambda: _skipped_problem(found)))


def bytes_to_read(folder: str | Path) -> int:
    """How many bytes `verify_set` will read; 0 where the set cannot be read."""
    try:
        names = PreparedSet(folder).info.files
    except DataError:
        return 0
    files = [Path(folder) / str(name) for name in names]
    return sum(file.stat().st_size for file in files if file.is_file())


def sha256_of(file: Path, on_bytes: OnBytes = lambda _count: None) -> str:
    """SHA-256 of a file, in hexadecimal, read block by block.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
            on_bytes(len(block))
    return digest.hexdigest()


def verify_source(folder: str | Path, source: Path, on_file: OnBytes = lambda _count: None) -> Finding:
    """Whether the files that a set was made from are still there, byte for byte.

    Args:
        folder: of the set.
        source: the folder that it was prepared from.
        on_file: called with 1 after each file.

    Raises:
        DataError: the set's own files cannot be read.
    """
    missing, changed, same = [], [], 0
    for line in PreparedSet(folder).manifest():
        file = source / unspelled(line["file"])
        try:
            is_same = sha256_of(file) == line["sha256"]
        except (OSError, ValueError):  # ValueError: a name with a zero byte
            missing.append(line["file"])
        else:
            same += is_same
            if not is_same:
                changed.append(line["file"])
        on_file(1)
    if not missing and not changed:
        return Finding("ok", "source", f"all {counted(same, 'file')} in {source} are those that were read")
    told = [f"{len(missing):,} missing ({first_few(missing)})"] if missing else []
    told += [f"{len(changed):,} changed ({first_few(changed)})"] if changed else []
    advice = "Prepared images stay as they are; a new preparation from here would give another set."
    return Finding("fail", "source", f"{source}: {', '.join(told)}, {same:,} the same. {advice}")


def _checked(what: str, good: str, problem: str | None) -> Finding:
    return Finding("ok", what, good) if problem is None else Finding("fail", what, problem)


def _said(look: Callable[[], object]) -> str | None:
    """The problem that a look returns or raises as DataError; None where it returns something else."""
    try:
        found = look()
    except DataError as error:
        return str(error)
    return found if isinstance(found, str) else None


def _file_problem(file: Path, state: dict[str, Any], on_bytes: OnBytes) -> str | None:
    if not file.is_file():
        return f"the file is missing. {_AGAIN}"
    try:
        if (size := file.stat().st_size) != state["bytes"]:
            return f"{size:,} bytes, {INFO} says {state['bytes']:,}. {_AGAIN}"
        found = sha256_of(file, on_bytes)
    except OSError as error:
        return f"it cannot be read ({error.strerror or error}). Check the disk and the permissions."
    if found != state["sha256"]:
        return f"its SHA-256 begins with {found[:12]}, {INFO} says {state['sha256'][:12]}. {_AGAIN}"
    return None


def _manifest_problem(found: PreparedSet) -> str | None:
    """The first thing that is wrong with the manifest, if any.

    Raises:
        DataError: it cannot be read.
    """
    identities: set[str] = set()
    files: set[str] = set()
    last, row = None, -1
    for row, line in enumerate(found.manifest()):
        problem = _line_problem(line, row)
        if problem is None and line["identity"] != last and line["identity"] in identities:
            problem = f"'{line['identity']}' has rows in two places"
        if problem is None and line["file"] in files:
            problem = f"the file '{line['file']}' stands there twice"
        if problem is not None:
            return f"{MANIFEST}, line {row + 2}: {problem}. {_AGAIN}"
        last = line["identity"]
        identities.add(last)
        files.add(line["file"])
    counts = {"images": row + 1, "identities": len(identities)}
    for name, count in counts.items():
        if count != getattr(found.info, name):
            return f"{MANIFEST} has {count:,} {name}, {INFO} says {getattr(found.info, name):,}. {_AGAIN}"
    if not found.info.has_identities and len(identities) != row + 1:
        return f"{MANIFEST} puts several images under one name, and the set says nobody's. {_AGAIN}"
    return None


def _line_problem(line: dict[str, str], row: int) -> str | None:
    """What is wrong with one line by itself."""
    if line["row"] != str(row):
        return f"it says row '{line['row']}', {row} is next"
    if not line["identity"] or not line["file"]:
        return "it has no identity or no file"
    if not SHA256.fullmatch(line["sha256"]):
        return f"'{line['sha256'][:80]}' is no SHA-256"
    for name in ("width", "height"):
        if not re.fullmatch("[1-9][0-9]{0,9}", line[name]):
            return f"{name} '{line[name][:80]}' is no number of pixels"
    return None


def _skipped_problem(found: PreparedSet) -> str | None:
    """Where the lines of `skipped.csv` are not as many as recorded.

    Raises:
        DataError: it cannot be read.
    """
    counts = Counter(line["reason"] for line in found.skipped())
    for reason in sorted({*counts, *found.info.skipped}, key=str):
        if counts[reason] != found.info.skipped.get(reason, 0):
            wanted = found.info.skipped.get(reason, 0)
            return f"'{reason}': {counts[reason]:,} in {SKIPPED}, {INFO} says {wanted:,}. {_AGAIN}"
    return None
