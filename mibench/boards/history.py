"""The history of a board: one line a night, only ever added to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from mibench.boards.board import HISTORY, Board
from mibench.boards.entry import Entry, Kind
from mibench.boards.standing import Measured
from mibench.boards.strict import FORBID, build, parse_json
from mibench.errors import BoardError
from mibench.record import finite

SCHEMA = 1
_MOST_LINE = 2**26  # bytes; people times rows take 1 MiB on a board of 35 defenses and 1,000 people
What = Literal["aa", "mc_all", "mc_target", "wall_s", "peak_mib", "status", "record"]
EntryStatus = Literal["ok", "failed", "left_out", "removed"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval, as in `mibench.boards.standing.Measured`; None where there is none."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0

    @classmethod
    def of(cls, one: Measured) -> Estimate:
        """The same numbers; what is not finite becomes None."""
        value, low, high = (x if math.isfinite(x) else None for x in (one.value, one.low, one.high))
        return cls(value=value, low=low, high=high, count=one.count)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a night saw of one defense, or of one attack on the undefended classifier.

    Args:
        status: `ok`, `failed` (a cell failed), `left_out` (for the budget, its numbers are older ones) or
            `removed` (its entry is gone; its numbers are the last ones).
        digest: of the entry, see `mibench.boards.entry.Entry.digest`; empty for what the suite brings.
        ran: tasks that were computed for it this night.
        ranks: first and last rank; empty where it is not ranked.
        worst, mc_all, mc_target: see `mibench.boards.standing.Row`.
        people: share of hits of the best attack by protected person and seed, both in one word; what nights
            are compared on.
        wall_s: seconds of the tasks that it alone needs, computed this night or earlier.
        peak_mib: largest memory of any of them.
        against: digest of the attacks that `worst` is over; nights with other attacks are not compared.
        why: one sentence where the status is not `ok`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    status: EntryStatus
    digest: str = ""
    ran: int = 0
    ranks: tuple[int, ...] = ()
    worst: Estimate
    mc_all: Estimate
    mc_target: Estimate
    people: dict[str, float] = field(default_factory=dict)
    wall_s: float | None = None
    peak_mib: float | None = None
    against: str = ""
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """A change for the worse that showed on as many nights in a row as the board asks for.

    Args:
        entry: name of the row; of an attack its label.
        what: which number; `status` where what worked fails, `record` where a recheck gave another record.
        before: of the last night without suspicion.
        now: of this night.
        low, high: ends of the interval of now - before, for `aa`, `mc_all` and `mc_target`; None for others.
        nights: in a row on which it showed.
        is_new: whether this night is the first to raise it.
        kind: `defense`, or `attack` where an attack got weaker.
        cell: that a recheck found to differ; else empty.
        note: where a record differs, or why a row failed.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    entry: str
    what: What
    before: float | None
    now: float | None
    low: float | None = None
    high: float | None = None
    nights: int
    is_new: bool = True
    kind: Kind = "defense"
    cell: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Night:
    """One run of `mibench board update` on one board.

    Args:
        schema: of the line.
        night: 1, 2, ... without gaps.
        started, ended: UTC, ISO 8601 with seconds.
        software: versions of mibench, torch, python; platform, device.
        cells, hits, ran, failed, left_out: how many cells there are; tasks that were there, were computed,
            failed; cells left out for the budget.
        entries: by name of the row.
        alarms: open ones.
        suspicions: what showed this night and on fewer nights than an alarm needs.
        accepted: names of rows whose change a keeper has accepted since the night before; of attacks with
            `attack:` before the label.
        attacks: by label what the night saw of each attack on the undefended classifier.
        rechecked: cells of earlier nights that were computed again; their tasks are not in `ran`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    schema: int = SCHEMA
    night: int
    started: str
    ended: str
    software: dict[str, str]
    cells: int
    hits: int
    ran: int
    failed: int
    left_out: int
    entries: dict[str, Seen]
    alarms: tuple[Alarm, ...] = ()
    suspicions: tuple[Alarm, ...] = ()
    accepted: tuple[str, ...] = ()
    attacks: dict[str, Seen] = field(default_factory=dict)
    rechecked: tuple[str, ...] = ()


def read_history(board: Board) -> list[Night]:
    """The nights of a board in order; empty before the first.

    A last line without an end is what a crash left: it is left out, and the next night writes over it.

    Raises:
        BoardError: a line is no night, or their numbers have a gap.
    """
    file = board.folder / HISTORY
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BoardError(f"history {file}: cannot be read ({error.strerror}). Check it.") from error
    nights = []
    for index, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), start=1):
        where = f"board {board.name}, {HISTORY}, line {index}"
        night = build(Night, parse_json(line, where=where, most_bytes=_MOST_LINE), where=where)
        if night.night != index:
            raise BoardError(f"{where}: is night {night.night}. Lines must be whole and in order.")
        nights.append(night)
    return nights


def unseen(entries: Mapping[str, Entry], nights: Sequence[Night]) -> list[str]:
    """Names of the entries that the last night did not measure as they stand now: new, changed, or no time.

    Args:
        entries: of the board, by name.
        nights: of the board, in order.
    """

    def is_seen(name: str, entry: Entry) -> bool:
        rows = nights[-1].attacks if entry.kind == "attack" else nights[-1].entries
        one = rows.get(name)
        if one is None or one.digest != entry.digest:
            return False
        return one.status != "left_out" or one.worst.value is not None  # older numbers of the same keys count

    return [name for name, entry in entries.items() if not nights or not is_seen(name, entry)]


def append_night(board: Board, night: Night) -> None:
    """Add a night and have it on the disk before returning; what a crash left of a line is cut off.

    Raises:
        BoardError: the file cannot be written.
    """
    file = board.folder / HISTORY
    line = json.dumps(finite(asdict(night)), sort_keys=True, allow_nan=False)
    try:
        with file.open("ab+") as opened:
            opened.seek(0)
            opened.truncate(opened.read().rfind(b"\n") + 1)
            opened.write(f"{line}\n".encode())
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as error:
        raise BoardError(f"history {file}: cannot be written ({error.strerror}). Free some space.") from error


def software_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What a night says of the software, from a record's provenance."""
    return {str(name): str(value) for name, value in dict(record.get("provenance") or {}).items()}
