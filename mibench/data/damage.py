"""Which files of a prepared set are not what `set.json` says: gone, of another size, or changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from mibench.data.prepared import AGAIN, INFO, PreparedSet, file_problem

OnBytes = Callable[[int], object]
_BLOCK = 1 << 20  # bytes that are read at a time


def damage(
    found: PreparedSet, *, with_digests: bool, on_bytes: OnBytes = lambda _count: None
) -> dict[str, str]:
    """What is wrong with each file that is not as recorded, by name: a phrase ("is missing").

    Args:
        found: the set.
        with_digests: whether files of the right size are read, and their SHA-256 compared.
        on_bytes: called with the number of bytes after each block that is read.
    """
    told = {}
    for name in sorted(found.info.files):
        problem = file_problem(found.root, found.info, name)
        if not problem and with_digests:
            problem = digest_problem(found, name, on_bytes)
        if problem:
            told[name] = problem
    return told


def digest_problem(found: PreparedSet, name: str, on_bytes: OnBytes = lambda _count: None) -> str:
    """What is wrong with the content of a file that is there; a phrase, empty where nothing is."""
    wanted = str(found.info.files[name]["sha256"])
    try:
        digest = sha256_of(found.root / name, on_bytes)
    except OSError as error:
        return f"cannot be read ({error.strerror or 'unknown error'})"
    if digest == wanted:
        return ""
    return f"was changed: its SHA-256 begins with {digest[:12]}, {INFO} says {wanted[:12]}"


def damage_told(found: PreparedSet, *, with_digests: bool) -> str:
    """A sentence on the first damaged file of a set and what to do; empty where nothing is wrong."""
    for name, problem in damage(found, with_digests=with_digests).items():
        return f"{name} {problem}. {AGAIN}"
    return ""


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
