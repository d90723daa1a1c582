"""Writes files whole or not at all, and on the disk before it says so."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

_STALE_S = 7 * 24 * 3600  # no run writes a file for so long, so what is older belongs to a killed one


def write_atomically(file: Path, payload: bytes) -> None:
    """Replace a file as a whole: a reader, and a rerun after a crash, see the old or the new content."""
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, payload)


def replace_file(file: Path, payload: bytes) -> None:
    """As `write_atomically`, for a file whose folder must be there: FileNotFoundError where it is not."""
    # the number of a process is not its own: in two containers on one store the first process has number 1
    aside = file.with_name(f"{file.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with aside.open("wb") as opened:
            opened.write(payload)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes have written aside under a folder, if it is older than a week."""
    for left in list(folder.rglob("*.tmp-*")):
        with contextlib.suppress(OSError):  # another process has just removed it
            if left.is_file() and time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
