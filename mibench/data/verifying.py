"""Whether a prepared set, a split or a source folder still is what was written down about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from mibench.data.damage import OnBytes, digest_problem, sha256_of
from mibench.data.finding import Finding, counted, first_few
from mibench.data.prepared import AGAIN, IMAGES, INFO, MANIFEST, SHA256, SKIPPED, PreparedSet, file_problem
from mibench.data.spelling import unspelled
from mibench.errors import DataError

_SAMPLE = 50  # missing files that are looked for in other folders


def verify_set(folder: str | Path, on_bytes: OnBytes = lambda _count: None) -> Iterator[Finding]:
    """Hold every file of a prepared set against `set.json`, and the manifest against itself.

    What a file holds is looked at where it is there with its size: one missing file is one failed check.

    Args:
        folder: of the set.
        on_bytes: called with the number of bytes after each block that is read.
    """
    try:
        found = PreparedSet(folder)
    except DataError as error:
        yield Finding("fail", INFO, str(error).removeprefix(f"prepared set {Path(folder)}: "))
        return
    yield Finding("ok", INFO, f"{found.info.images:,} images, {found.info.identities:,} identities")
    absent = set()
    for name in sorted(found.info.files):
        problem = file_problem(found.root, found.info, name)
        if problem:
            absent.add(name)
        else:
            problem = digest_problem(found, name, on_bytes)
        told = f"{problem}. {AGAIN}" if problem else None
        yield _checked(name, "the SHA-256 is the recorded one", told)
    checks: tuple[tuple[str, str, str, Callable[[], object]], ...] = (
        ("shape", IMAGES, f"{IMAGES} is as {INFO} says", lambda: found.pixels),
        ("rows", MANIFEST, "rows, identities and counts agree", lambda: _manifest_problem(found)),
        (
            "left out",
            SKIPPED,
            "the files left out are as many as recorded, by reason",
            lambda: _skipped_problem(found),
        ),
    )
    for what, name, text, look in checks:
        if name not in absent:
            yield _checked(what, text, _said(found, look))


def bytes_to_read(folder: str | Path) -> int:
    """How many bytes `verify_set` will read; 0 where the set cannot be read."""
    try:
        names = PreparedSet(folder).info.files
    except DataError:
        return 0
    files = [Path(folder) / str(name) for name in names]
    return sum(file.stat().st_size for file in files if file.is_file())


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
    tops: set[str] = set()  # first folders of what is there
    for line in PreparedSet(folder).manifest():
        file = source / unspelled(line["file"])
        try:
            is_same = sha256_of(file) == line["sha256"]
        except (OSError, ValueError):  # ValueError: a name with a zero byte
            missing.append(line["file"])
        else:
            same += is_same
            tops.add(_top(line["file"]))
            if not is_same:
                changed.append(line["file"])
        on_file(1)
    if not missing and not changed:
        return Finding("ok", "source", f"all {counted(same, 'image')} in {source} are those that were read")
    told = [f"{len(missing):,} missing ({first_few(missing)})"] if missing else []
    told += [f"{len(changed):,} changed ({first_few(changed)})"] if changed else []
    advice = "Prepared images stay as they are; a new preparation from here would give another set."
    if len(missing) > same + len(changed) and (place := _elsewhere(source, missing)):
        advice = f"Those that are missing lie in {place}: give that folder by --source."
    elif len(tops) == 1 and tops.isdisjoint(map(_top, missing)):
        advice = f"All that are there lie in {min(tops)}/, so this is a part of the source. {advice}"
    return Finding("fail", "source", f"{source}: {', '.join(told)}, {same:,} the same. {advice}")


def _top(name: str) -> str:
    return name.partition("/")[0]


def _elsewhere(source: Path, missing: list[str]) -> Path | None:
    """The folder around a source or inside it that has most of the files that it lacks, if one has."""
    some = [unspelled(name) for name in missing[:: max(1, len(missing) // _SAMPLE)][:_SAMPLE]]
    try:
        inside = sorted(child for child in source.iterdir() if child.is_dir())
    except OSError:
        inside = []
    counts = [
        (sum((folder / name).is_file() for name in some), folder)
        for folder in (source.resolve().parent, *inside)
    ]
    count, place = max(counts, key=lambda pair: pair[0])  # of equal ones the first, which is the outer one
    return place if 2 * count > len(some) else None


def _checked(what: str, good: str, problem: str | None) -> Finding:
    return Finding("ok", what, good) if problem is None else Finding("fail", what, problem)


def _said(of: PreparedSet, look: Callable[[], object]) -> str | None:
    """The problem that a look returns or raises as DataError; None where it returns something else."""
    try:
        found = look()
    except DataError as error:
        return str(error).removeprefix(f"prepared set {of.root}: ")
    return found if isinstance(found, str) else None


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
            return f"{MANIFEST}, line {row + 2}: {problem}. {AGAIN}"
        last = line["identity"]
        identities.add(last)
        files.add(line["file"])
    counts = {"images": row + 1, "identities": len(identities)}
    for name, count in counts.items():
        if count != getattr(found.info, name):
            return f"{MANIFEST} has {count:,} {name}, {INFO} says {getattr(found.info, name):,}. {AGAIN}"
    if not found.info.has_identities and len(identities) != row + 1:
        return f"{MANIFEST} puts several images under one name, and the set says nobody's. {AGAIN}"
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
            return f"'{reason}': {counts[reason]:,} in {SKIPPED}, {INFO} says {wanted:,}. {AGAIN}"
    return None
