"""One update of a board at a time: a lock of the operating system, held by the process and freed with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mibench.atomic import write_atomically
from mibench.boards.board import Board
from mibench.errors import BoardError

NIGHT = ".night"
"""Folder of what belongs to the nights on one machine: no repository holds it."""
_LOCK, _HOLDER = "lock", "holder.json"


class LockedError(BoardError):
    """Another process updates the board."""


def night_folder(board: Board) -> Path:
    """The folder of a board's nights on this machine."""
    return board.folder / NIGHT


@contextmanager
def locked(board: Board) -> Iterator[Path]:
    """Hold the board's lock, and have the folder of its nights.

    The system frees the lock when the process ends, however that happens, so none is ever stale.

    Raises:
        LockedError: another process holds it.
        BoardError: the folder cannot be written.
    """
    folder = night_folder(board)
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(exist_ok=True)
        if not (folder / ".gitignore").is_file():
            (folder / ".gitignore").write_text("*\n", encoding="ascii")
        lock.acquire()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        holder = json.dumps({"pid": os.getpid(), "since": now})
        write_atomically(folder / _HOLDER, f"{holder}\n".encode())
    except Timeout:
        raise LockedError(
            f"board {board.name}: {_holder(folder)} updates it. Wait until it has ended; `mibench watch "
            f"{board.folder}` shows how it goes."
        ) from None
    except OSError as error:
        lock.release()
        raise BoardError(
            f"board {board.name}: {folder} cannot be written ({error.strerror or error}). Free some space."
        ) from error
    try:
        yield folder  # what fails in there is no matter of the lock
    finally:
        lock.release()


def _holder(folder: Path) -> str:
    """Who holds the lock, as far as the note beside it tells."""
    try:
        note = json.loads((folder / _HOLDER).read_text(encoding="ascii"))
        return f"process {int(note['pid'])}, at work since {note['since']!s:.25},"
    except (OSError, ValueError, KeyError, TypeError):  # it has just taken the lock
        return "another process"
