"""Writes files whole or not at all, and on the disk before it says so."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


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
