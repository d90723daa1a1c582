"""Entries put on a board and taken off it: files and nothing else; the next night runs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mibench.atomic import write_atomically
from mibench.attack import Attack
from mibench.boards.assembling import board_suite, with_entry
from mibench.boards.board import ENTRIES, PLUGINS, Board
from mibench.boards.entry import NAME, SCHEMA, Entry, Kind, usable_entries
from mibench.boards.history import read_history
from mibench.boards.ledger import read_ledger, write_ledger
from mibench.boards.locking import locked
from mibench.boards.strict import MOST_BYTES, build, parse_json
from mibench.defense import Defense
from mibench.errors import BoardError, UnknownPluginError
from mibench.plugin import Plugin
from mibench.registry import get_attack, get_defense, load_plugin_file


def add(
    board: Board,
    what: str,
    *,
    name: str = "",
    params: Sequence[str] = (),
    told: Mapping[str, str] | None = None,
) -> Entry:
    """Put a plugin on a board and return its entry; one of that name is replaced.

    Args:
        board: to put it on.
        what: name of a plugin, or the path of a Python file with one, whose source is copied.
        name: of the entry; empty takes the plugin's.
        params: fields that are not the defaults, each FIELD=VALUE, the value as JSON or else a word.
        told: title, paper and authors, for pages; an empty or missing title and paper are those of the card.

    Raises:
        BoardError: the name, a field or the file cannot be used; or the name is one of the board's own suite,
            or an attack needs more access than the board grants.
        PluginError: there is no such plugin, or the file holds none.
    """
    plugin = _plugin(what)
    kind: Kind = "attack" if issubclass(plugin, Attack) else "defense"
    label = name or plugin.name
    where = f"board {board.name}, entry {label}"
    if not NAME.fullmatch(label) or not NAME.fullmatch(plugin.name):
        raise BoardError(f"{where}: is no name. Take lowercase letters, digits and _, at most 40, with --as.")
    fields = dict(_field(one, where) for one in params)
    made: Attack[Any] | Defense = build(plugin, fields, where=where)
    with_entry(board_suite(board), label, made, board)  # told now, and not by the first night
    source = _source(what, where)
    words = {word: text for word, text in (told or {}).items() if text}
    entry = Entry(
        schema=SCHEMA,
        kind=kind,
        plugin=plugin.name,
        source=hashlib.sha256(source).hexdigest() if source else "",
        params={field: made.params()[field] for field in fields},
        title=words.get("title", made.card.title),
        paper=words.get("paper", made.card.paper),
        authors=words.get("authors", ""),
        submitted=datetime.now(UTC).date().isoformat(),
    )
    if source:
        _check_shared(board, label, entry)
        write_atomically(board.folder / PLUGINS / f"{plugin.name}.py", source)
    write_entry(board, label, entry)
    return entry


def write_entry(board: Board, name: str, entry: Entry) -> None:
    """Write the file of an entry as a whole."""
    text = json.dumps(entry.to_json(), indent=1, sort_keys=True) + "\n"
    write_atomically(board.folder / ENTRIES / f"{name}.json", text.encode())


def remove(board: Board, name: str) -> None:
    """Take an entry off a board, and its plugin's file if no other entry is of it.

    Its last numbers stay in the history.

    Raises:
        BoardError: there is no such entry.
    """
    files = {file.stem: file for file in sorted((board.folder / ENTRIES).glob("*.json"))}
    if name not in files:
        names = ", ".join(files) or "none"
        raise BoardError(f"board {board.name}, entry {name!r:.60}: is not there. There are: {names}.")
    entries, _ = usable_entries(board)
    entry = entries.pop(name, None)
    files[name].unlink()
    if entry is None or not entry.source:
        return
    if not any(one.source and one.plugin == entry.plugin for one in entries.values()):
        (board.folder / PLUGINS / f"{entry.plugin}.py").unlink(missing_ok=True)


def trust(board: Board, ran: Mapping[str, str]) -> None:
    """Note that the board itself has run entries: whatever came with them, their numbers are re-run.

    Args:
        board: that ran them.
        ran: by name the digest of what was run; an entry that was replaced meanwhile was not.
    """
    entries, _ = usable_entries(board)
    for name, digest in ran.items():
        entry = entries.get(name)
        if entry is not None and entry.digest == digest and entry.trust != "re-run":
            write_entry(board, name, replace(entry, trust="re-run"))


def accept(board: Board, name: str) -> int:
    """Take the level of the last night of a row for its new one, and return that night's number.

    Args:
        board: that the row is on.
        name: of the row; of an attack `attack:` and its label.

    Raises:
        LockedError: a night is being run.
        BoardError: there is no night yet, or the last one did not see the row.
    """
    with locked(board) as folder:  # a night that ends now would make another one the last
        history = read_history(board)
        if not history:
            raise BoardError(
                f"board {board.name}: has no night, so there is nothing to take. Run `mibench board update`."
            )
        rows = [*history[-1].entries, *(f"attack:{label}" for label in history[-1].attacks)]
        if name not in rows:
            raise BoardError(
                f"board {board.name}: its last night has no row {name!r:.60}. It has: {', '.join(rows)}."
            )
        ledger = read_ledger(folder)
        ledger.accept(name, history[-1].night)
        write_ledger(folder, ledger)
    return history[-1].night


def _plugin(what: str) -> type[Attack[Any] | Defense]:
    """The plugin of a name or a file."""
    if what.endswith(".py"):
        plugin: type[Plugin] = load_plugin_file(what)
        if not issubclass(plugin, Attack | Defense):
            raise BoardError(f"plugin {what}: is neither attack nor defense. A board takes these alone.")
        return plugin
    try:
        return get_defense(what)
    except UnknownPluginError as error:
        try:
            return get_attack(what)
        except UnknownPluginError:
            raise error from None


def _source(what: str, where: str) -> bytes:
    """The source of a plugin's file; empty for a name."""
    if not what.endswith(".py"):
        return b""
    source = Path(what).read_bytes()
    if len(source) > MOST_BYTES:
        raise BoardError(f"{where}: {what} has more than {MOST_BYTES:,} bytes. Shorten it.")
    return source


def _field(text: str, where: str) -> tuple[str, Any]:
    """A field and its value, from FIELD=VALUE."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise BoardError(f"{where}: {text!r:.60} sets no field. Write --set FIELD=VALUE.")
    try:
        return name, parse_json(value, where=f"{where}, field {name}")
    except BoardError:
        return name, value  # a word


def _check_shared(board: Board, name: str, entry: Entry) -> None:
    """Raise BoardError where another entry is of the same plugin with another source: they share its file."""
    for other, known in usable_entries(board)[0].items():
        if other != name and known.source and known.plugin == entry.plugin and known.source != entry.source:
            raise BoardError(
                f"board {board.name}, entry {name}: entry {other} is of another source of '{entry.plugin}'. "
                f"Rename the plugin, or add {other} anew as well."
            )
