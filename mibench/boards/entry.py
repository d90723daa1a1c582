"""What stands on a board: a configured plugin, who sent it, and how far its numbers were checked."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from mibench.boards.board import ENTRIES, PLUGINS, Board
from mibench.boards.strict import FORBID, build, digest, read_json
from mibench.errors import BoardError

SCHEMA = 1
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
"""Names of entries: labels of rows, files, parts of addresses."""
_HASH = re.compile(r"[0-9a-f]{64}")
_LONGEST = 300

Trust = Literal["self-reported", "recomputed", "re-run"]
"""Who computed the numbers: the author; we from the author's reconstructions; we from the plugin alone."""
Kind = Literal["defense", "attack"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file of `entries/`; its stem is the name, and the label of its row.

    Args:
        schema: of the file.
        kind: what the plugin is.
        plugin: the plugin's name.
        source: SHA-256 of `plugins/<plugin>.py` beside the board, in hexadecimal; empty for a built-in plugin
            or one of an installed package.
        params: fields that are not the plugin's defaults.
        title: one line for pages.
        paper: citation or identifier.
        authors: who sent it.
        submitted: date, YYYY-MM-DD.
        trust: how far the numbers that came with it were checked; what the board runs itself is re-run.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    schema: int
    kind: Kind
    plugin: str
    source: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    paper: str = ""
    authors: str = ""
    submitted: str = ""
    trust: Trust = "self-reported"

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema must be {SCHEMA}, got {self.schema}. Update mibench.")
        if not NAME.fullmatch(self.plugin):
            raise ValueError(f"plugin {self.plugin!r:.60} is no name of a plugin.")
        if self.source and not _HASH.fullmatch(self.source):
            raise ValueError(f"source {self.source!r:.60} is no SHA-256 of 64 lowercase hexadecimal digits.")
        for name in ("title", "paper", "authors"):
            if len(getattr(self, name)) > _LONGEST:
                raise ValueError(f"{name} has more than {_LONGEST} characters. Shorten it.")
        if self.submitted and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.submitted):
            raise ValueError(f"submitted {self.submitted!r:.60} is no date as 2026-01-31.")

    def to_json(self) -> dict[str, Any]:
        """All fields, for the file."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides its numbers: plugin, source and params."""
        return digest([self.kind, self.plugin, self.source, self.params])


def read_entries(board: Board) -> dict[str, Entry]:
    """The entries of a board by name, sorted.

    Raises:
        BoardError: one of them cannot be used; see `read_entry`.
    """
    return {file.stem: read_entry(file) for file in sorted((board.folder / ENTRIES).glob("*.json"))}


def usable_entries(board: Board) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries of a board that can be read, and of the others why not; both by name, sorted.

    A broken entry keeps nobody from looking at a board, nor from mending it.
    """
    found, broken = {}, {}
    for file in sorted((board.folder / ENTRIES).glob("*.json")):
        try:
            found[file.stem] = read_entry(file)
        except BoardError as error:
            broken[file.stem] = str(error)
    return found, broken


def read_entry(file: Path) -> Entry:
    """The entry of a file. The plugin's own file is not looked at.

    Raises:
        BoardError: its name is none, it is no strict JSON, or a field is wrong.
    """
    where = f"entry {file.name!r:.60}"
    if file.suffix != ".json" or not NAME.fullmatch(file.stem):
        raise BoardError(f"{where}: its name is none. Take lowercase letters, digits and _, at most 40.")
    return build(Entry, read_json(file, where=where), where=where)


def source_file(board: Board, entry: Entry) -> Path | None:
    """Where the plugin's own file lies; None for a built-in or installed plugin."""
    return board.folder / PLUGINS / f"{entry.plugin}.py" if entry.source else None
