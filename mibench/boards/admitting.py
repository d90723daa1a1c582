"""From a bundle to an entry of a board, with the trust that its verification reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mibench.atomic import write_atomically
from mibench.boards.adding import write_entry
from mibench.boards.assembling import board_suite
from mibench.boards.board import ENTRIES, PLUGINS, Board
from mibench.boards.bundle import Bundle, open_bundle
from mibench.boards.entry import NAME, Entry
from mibench.boards.verifying import How, verify
from mibench.errors import BoardError
from mibench.registry import plugin_names
from mibench.suite import Suite


def admit(
    file: Path,
    board: Board,
    how: How,
    *,
    name: str = "",
    submitted: str = "",
    before_rerun: Callable[[Bundle], None] = lambda _: None,
) -> tuple[str, Entry]:
    """Verify a bundle by the board's own suite, and write the entry that it makes.

    Its plugin's source is written first, so that there is never an entry without one. Its records are not
    taken over: a board runs what stands on it.

    Args:
        file: the bundle.
        board: to stand on.
        how: see `mibench.boards.verifying.verify`; the suite is the board's.
        name: of the entry; empty takes the bundle's.
        submitted: date, YYYY-MM-DD, or empty.
        before_rerun: told before any code of the submission runs.

    Returns:
        The name of the entry, and the entry.

    Raises:
        BoardError: the bundle is not sound or not true, is of another suite, or its name is taken.
        MibenchError: data, store or device cannot be used.
    """
    suite = board_suite(board)
    with open_bundle(file) as bundle:
        entry, source = bundle.manifest.entry(), bundle.source
        taken = name or bundle.manifest.name
        _check_free(board, suite, taken, entry, bundle.where)
    how = dataclasses.replace(how, suite=suite)
    verdict = verify(file, how, before_rerun=before_rerun)
    if not verdict.is_true:
        first = verdict.differences[0]
        raise BoardError(
            f"bundle {file.name!r:.60}: {len(verdict.differences)} numbers are not as its records say; the "
            f"first: cell {first.cell}, {first.what}. `mibench submit verify` shows all."
        )
    entry = dataclasses.replace(entry, trust=verdict.trust, submitted=submitted)
    if source is not None:
        write_atomically(board.folder / PLUGINS / f"{entry.plugin}.py", source)
    write_entry(board, taken, entry)
    return taken, entry


def _entry_file(board: Board, name: str) -> Path:
    return board.folder / ENTRIES / f"{name}.json"


def _check_free(board: Board, suite: Suite, name: str, entry: Entry, where: str) -> None:
    """BoardError where the name is none or taken, or the plugin's file is there with another source."""
    if not NAME.fullmatch(name):
        raise BoardError(
            f"entry {name!r:.60}: its name is none. Take lowercase letters, digits and _, at most 40."
        )
    labels = {one.label for one in (suite.attacks if entry.kind == "attack" else suite.defenses)}
    if name in labels or _entry_file(board, name).exists():
        raise BoardError(f"board {board.name}: '{name}' stands there already. Give another name.")
    known = entry.plugin in plugin_names(f"{entry.kind}s")
    if known and entry.source:
        raise BoardError(f"{where}: mibench has {entry.kind} '{entry.plugin}' itself. Rename the plugin.")
    if not known and not entry.source:
        raise BoardError(
            f"{where}: there is no {entry.kind} '{entry.plugin}' here, and the bundle brings none."
        )
    file = board.folder / PLUGINS / f"{entry.plugin}.py"
    if entry.source and file.exists():
        raise BoardError(
            f"board {board.name}: {file.name} is there already. Rename the plugin, or remove its entry."
        )
