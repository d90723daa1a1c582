"""From a board and its entries to the suite of a night; an entry that cannot be used is left out alone."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mibench.attack import Attack
from mibench.boards.board import ENTRIES, Access, Board
from mibench.boards.entry import Entry, read_entry, source_file
from mibench.boards.strict import MOST_BYTES, build
from mibench.choose import load_one
from mibench.defense import Defense
from mibench.errors import BoardError, MibenchError
from mibench.plan import Plan, build_plan
from mibench.registry import forget_files, get_attack, get_defense
from mibench.suite import Entry as Labeled
from mibench.suite import Suite, load_suite

_IMPORT_S = 300.0  # a busy machine needs a minute for torch alone
_LOADED = "loaded"
# another process tries first: a file that never ends, or that ends the process, would take the night with it
_TRY = f"""\
import sys
from mibench.errors import MibenchError
from mibench.registry import load_plugin_file
try:
    load_plugin_file(sys.argv[1])
except MibenchError:
    pass
print({_LOADED!r})
"""
_LEVELS: tuple[Access, ...] = ("label", "score", "white-box")


@dataclass
class Assembled:
    """What a night is about.

    Args:
        suite: the board's, with the usable entries.
        plan: of the suite.
        entries: usable ones by name.
        failed: why an entry cannot be used, one sentence, by its name.
        kinds: of the failed entries, where they could be read.
    """

    suite: Suite
    plan: Plan
    entries: dict[str, Entry] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)


def assemble(board: Board, imported: set[str]) -> Assembled:
    """The suite and the plan of a board's next night. Plugins loaded from files before are forgotten.

    Args:
        board: to assemble.
        imported: SHA-256 of plugin files that were imported without harm; grows by those that are new.

    Raises:
        MibenchError: the board's own suite cannot be used.
    """
    forget_files()
    suite = board_suite(board)
    found = Assembled(suite, build_plan(suite))
    for file in sorted((board.folder / ENTRIES).glob("*.json")):
        try:
            entry = read_entry(file)
            found.kinds[file.stem] = entry.kind
            labeled = _configured(board, file.stem, entry, imported)
            with_it = with_entry(found.suite, file.stem, labeled, board)
            plan = build_plan(with_it)
        except (MibenchError, ValueError, TypeError) as error:
            found.failed[file.stem] = str(error)
            continue
        except Exception as error:  # making and planning run a plugin's code, which may raise anything
            found.failed[file.stem] = (
                f"board {board.name}, entry {file.stem}: it raised {type(error).__name__} ({error!s:.200}). "
                "Mend the plugin."
            )
            continue
        found.suite, found.plan = with_it, plan
        found.entries[file.stem] = entry
    return found


def board_suite(board: Board) -> Suite:
    """The suite of a board without its entries, with the attacks that its access admits.

    Raises:
        BoardError: no attack is left, or some would not meet every defense.
        MibenchError: the suite cannot be read.
    """
    suite = load_suite(board.suite)
    where = f"board {board.name}, suite {suite.name}"
    if suite.crossed is not None and suite.crossed < len(suite.attacks):
        raise BoardError(
            f"{where}: crossed is {suite.crossed}. All attacks of a board meet all; leave it out."
        )
    attacks = tuple(one for one in suite.attacks if _is_admitted(board, one.plugin))
    if not attacks:
        raise BoardError(f"{where}: none of its attacks gets by with {board.rules.access} access. Add one.")
    return dataclasses.replace(suite, attacks=attacks)


def _is_admitted(board: Board, attack: Attack[Any]) -> bool:
    return _LEVELS.index(attack.needed_access.level) <= _LEVELS.index(board.rules.access)


def _configured(board: Board, name: str, entry: Entry, imported: set[str]) -> Attack[Any] | Defense:
    """The plugin of an entry with its fields."""
    where = f"board {board.name}, entry {name}"
    file = source_file(board, entry)
    if file is not None:
        _check_source(where, file, entry.source, imported)
        family: Any = Attack if entry.kind == "attack" else Defense
        kind: Any = load_one(str(file), family, entry.kind)
    else:
        kind = get_attack(entry.plugin) if entry.kind == "attack" else get_defense(entry.plugin)
    plugin: Attack[Any] | Defense = build(kind, entry.params, where=where).located(board.folder)
    return plugin


def _check_source(where: str, file: Path, digest: str, imported: set[str]) -> None:
    """Raise BoardError unless a file is the one that an entry names, and can be imported without harm."""
    if file.is_symlink() or not file.is_file():
        raise BoardError(
            f"{where}: plugins/{file.name} is no file. Put the plugin there, or remove the entry."
        )
    if file.stat().st_size > MOST_BYTES:
        raise BoardError(f"{where}: plugins/{file.name} has more than {MOST_BYTES:,} bytes. Shorten it.")
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != digest:
        raise BoardError(
            f"{where}: plugins/{file.name} has SHA-256 {found[:12]}, and the entry names {digest[:12]}. "
            "Add the plugin anew with `mibench board add`."
        )
    if digest in imported:
        return
    command = [sys.executable, "-c", _TRY, str(file)]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BoardError(
            f"{where}: importing plugins/{file.name} took over {_IMPORT_S:.0f} s. Mend it."
        ) from error
    if _LOADED not in tried.stdout.split():
        raise BoardError(
            f"{where}: importing plugins/{file.name} ended its process (code {tried.returncode}). Mend it."
        )
    imported.add(digest)


def with_entry(suite: Suite, name: str, plugin: Attack[Any] | Defense, board: Board) -> Suite:
    """The suite of a board with one more plugin under a label.

    Raises:
        BoardError: the label is taken, or an attack needs more access than the board grants.
    """
    where = f"board {board.name}, entry {name}"
    if isinstance(plugin, Attack):
        if not _is_admitted(board, plugin):
            raise BoardError(
                f"{where}: attack '{plugin.name}' needs {plugin.needed_access.level} access; the board "
                f"grants {board.rules.access}. Take another board."
            )
        rows: tuple[Labeled[Attack[Any]], ...] = suite.attacks
        _check_label(where, name, [one.label for one in rows])
        return dataclasses.replace(suite, attacks=(*rows, Labeled(name, plugin)))
    _check_label(where, name, [one.label for one in suite.defenses])
    return dataclasses.replace(suite, defenses=(*suite.defenses, Labeled(name, plugin)))


def _check_label(where: str, name: str, labels: list[str]) -> None:
    if name in labels:
        raise BoardError(f"{where}: the board's suite has '{name}' already. Choose another name.")
