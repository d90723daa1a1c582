"""What the site shows of a board: rules, entries, records, order and nights, read without following links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mibench.boards.board import ENTRIES, FILE, HISTORY, RECORDS, Board
from mibench.boards.entry import Entry, usable_entries
from mibench.boards.history import Night, Seen, read_history
from mibench.boards.standing import Row, Standings, standings
from mibench.errors import BoardError
from mibench.flags import attacks_people
from mibench.record import read_records
from mibench.report.escape import plain, slugs
from mibench.report.frame import Json, latest, part
from mibench.report.places import attack_label, defense_label


@dataclass(frozen=True)
class Sheet:
    """All that is known of a board.

    Args:
        board: its folder and rules.
        entries: by name.
        records: the last one of every cell.
        nights: in order.
        standings: rows in order, attacks, tests.
    """

    board: Board
    entries: Mapping[str, Entry]
    records: Sequence[Json]
    nights: Sequence[Night]
    standings: Standings

    @cached_property
    def files(self) -> dict[str, str]:
        """The name of the page of every defense."""
        names = slugs([row.name for row in self.standings.rows])
        return {name: f"defense-{slug}.html" for name, slug in names.items()}

    @cached_property
    def anchors(self) -> dict[str, str]:
        """The anchor of every attack on such a page."""
        return {name: f"attack-{slug}" for name, slug in slugs(list(self.standings.attacks)).items()}

    @cached_property
    def access(self) -> dict[str, str]:
        """The access that every attack needs."""
        return {
            attack_label(one): plain(part(one, "attack").get("access", ""), 20)
            for one in self.records
            if attacks_people(one)
        }

    @cached_property
    def _of(self) -> dict[str, list[Json]]:
        found: dict[str, list[Json]] = {}
        for record in self.records:
            found.setdefault(defense_label(record), []).append(record)
        return found

    def cells(self, row: Row) -> list[Json]:
        """The records of a defense, attacks in the order of the table, controls last."""
        order = {label: place for place, label in enumerate(self.standings.attacks)}
        own = self._of.get(row.name, [])
        return sorted(own, key=lambda one: order.get(attack_label(one), len(order)))

    def verified(self, name: str) -> Night | None:
        """The last night that computed a defense's numbers or found them unchanged."""
        seen = ((night, night.entries.get(name)) for night in reversed(self.nights))
        return next((night for night, one in seen if one is not None and one.status == "ok"), None)

    def last_seen(self, name: str) -> Seen | None:
        """What the last night that knew a defense saw of it."""
        return next((night.entries[name] for night in reversed(self.nights) if name in night.entries), None)

    @property
    def waiting(self) -> dict[str, Entry]:
        """Entries without a number yet."""
        ranked = {row.name for row in self.standings.rows} | {
            plain(part(record, "attack").get("label", ""), 40) for record in self.records
        }
        return {name: entry for name, entry in self.entries.items() if name not in ranked}


def read_sheet(board: Board) -> Sheet:
    """What a board's folder holds.

    Raises:
        BoardError: a file of it is a link, or cannot be used.
        RecordError: a record cannot be used.
    """
    _refuse_links(board)
    entries, _ = usable_entries(board)  # a broken one fails in the night, whose page says why
    file = board.folder / RECORDS
    records = latest(read_records(file)) if file.is_file() else []
    return Sheet(board, entries, records, read_history(board), standings(board, entries, records))


def _refuse_links(board: Board) -> None:
    """BoardError where a file that is read, or a folder on the way to it, leads somewhere else."""
    folder: Path = board.folder
    for path in (folder, *(folder / name for name in (FILE, RECORDS, HISTORY, ENTRIES))):
        if path.is_symlink():
            raise BoardError(f"board {board.name}: {path.name} is a link. Put the file itself there.")
