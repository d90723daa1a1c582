"""Writes a report's files so that a reader never meets half of one.

Without fsync: every file here can be made again from the records.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> Path:
    """Replace path by a file with these bytes in one step; folders are made; returns path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.tmp-")
    aside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        aside.chmod(0o644)  # mkstemp makes files that a web server may not read
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Replace path by a UTF-8 file with this text, line ends as they are, in one step; returns path."""
    return write_bytes(path, text.encode())
