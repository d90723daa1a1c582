"""Cells of earlier nights computed again from nothing, and compared with their records to the last bit.

The key of a result names plugins, settings and data, and not the core's code or the libraries: a result
that is there is not computed again when those change. So each night a few cells are, in turn.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mibench.boards.history import Alarm, Night
from mibench.boards.ledger import Ledger
from mibench.boards.regress import Evidence, Place
from mibench.boards.strict import digest
from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Json, Record, finite
from mibench.task import Cell, Task

FOLDER = "recheck"
# what the same inputs give on the same machine; flags also depend on other cells, and versions are told apart
_COMPARED = ("status", "estimates", "hits", "queries", "notes", "effort", "scrutiny", "judge", "keys")
_SHOWN = 60

Compute = Callable[[Plan, Path], tuple[Record, Mapping[Key, Mapping[str, Any]]]]
"""From the plan of one cell and the folder of an empty store to its record and the costs of its tasks."""


@dataclass(frozen=True)
class Rechecked:
    """A cell that was computed again.

    Args:
        cell: of the plan.
        evidence: whether the records differ, with AA before and now.
        level: digest of the record that came out.
        costs: of its tasks by key, as lines of costs.jsonl.
    """

    cell: Cell
    evidence: Evidence
    level: str
    costs: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)


def recheck(
    plan: Plan,
    records: Mapping[str, Record],
    ledger: Ledger,
    *,
    count: int,
    folder: Path,
    device: str,
    suspected: Sequence[Alarm],
    seconds: Callable[[Task], float],
    left_s: Callable[[], float],
    compute: Compute,
) -> Iterator[Rechecked]:
    """Compute cells again and compare them.

    Args:
        plan: of the board.
        records: known ones by name of the cell.
        ledger: says what was computed this night and when cells were rechecked; that is noted there.
        count: most cells.
        folder: of the night; the empty store lies below it for a while.
        device: type of the device; cells of another one are passed over, since they differ in rounding.
        suspected: alarms and suspicions that a recheck may confirm or clear.
        seconds: estimate of a task.
        left_s: seconds that are left of the budget.
        compute: does it.
    """
    place = folder / FOLDER
    done = 0
    for cell in turns(plan, records, ledger, suspected=suspected, device=device):
        if done == count:
            return
        alone = dataclasses.replace(plan, cells=(cell,), wanted=())
        if sum(seconds(plan.tasks[key]) for key in _to_do(alone)) > left_s():
            continue
        shutil.rmtree(place, ignore_errors=True)  # of a night that was killed
        try:
            record, costs = compute(alone, place)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        done += 1
        ledger.rechecked[cell.measure] = ledger.night
        yield _compare(cell, records[cell.id], record, costs, ledger.levels.get(cell.measure))


def turns(
    plan: Plan, records: Mapping[str, Record], ledger: Ledger, *, suspected: Sequence[Alarm], device: str
) -> list[Cell]:
    """Cells that may be rechecked, in the order in which they are: suspected ones, then the least recent.

    A cell that was computed this night says nothing. One that was rechecked this night has not had its turn:
    the night was killed after it, and what it said went with the night.
    """
    cells = {one.cell for one in suspected if one.cell}
    rows = {one.entry for one in suspected if one.kind == "defense" and not one.cell}
    tonight = set(ledger.ran)
    found = []
    for cell in plan.cells:
        record = records.get(cell.id)
        if record is None or record.status != "ok" or record.keys.get("measure") != cell.measure:
            continue
        here = str(record.provenance.get("device", "")).partition(":")[0]
        if here in ("", device) and cell.measure not in tonight:
            found.append(cell)
    return sorted(
        found,
        key=lambda cell: (
            cell.id not in cells,
            cell.defense.label not in rows,
            0 if (last := ledger.rechecked.get(cell.measure, 0)) == ledger.night else last,
        ),
    )


def _to_do(plan: Plan) -> Collection[Key]:
    return [key for key in plan.needed(set()) if not plan.is_ready_made(key)]


def _compare(
    cell: Cell,
    known: Record,
    fresh: Record,
    costs: Mapping[Key, Mapping[str, Any]],
    taken: str | None,
) -> Rechecked:
    """What a recheck says; `taken` is the digest of the record that a keeper took as the new level."""
    old, new = _content(known), _content(fresh)
    level = digest(new)
    where = "" if level == taken else first_difference(old, new)
    before, now = (_aa(record) for record in (known, fresh))
    error = (fresh.error or {}).get("message", "")
    note = f"computed again, it failed: {error}" if fresh.status != "ok" else where
    evidence = Evidence(is_worse=bool(where), before=before, now=now, cell=cell.id, note=f"{note:.300}")
    return Rechecked(cell, evidence, level, costs)


def _content(record: Record) -> Json:
    """What a repetition must give again, as JSON."""
    values = {name: getattr(record, name) for name in _COMPARED}
    made: Any = finite(values)
    return dict(made)


def of_records(
    history: Sequence[Night], again: Sequence[Rechecked], cells: Collection[str]
) -> dict[Place, Evidence]:
    """By row what rechecks say of its records: one that differs, or the suspected one cleared.

    A suspected one that is no cell of the board any more is cleared too: its key has changed since, by a
    raised version for example, and its numbers were computed anew.

    Args:
        history: earlier nights in order.
        again: cells that were computed again this night.
        cells: names of those that the board has now.
    """
    last = history[-1:]
    open_cells = {
        one.entry: one.cell
        for night in last
        for one in (*night.suspicions, *night.alarms)
        if one.what == "record"
    }
    found: dict[Place, Evidence] = {
        ("defense", row, "record"): Evidence(is_worse=False, cell=cell)
        for row, cell in open_cells.items()
        if cell not in cells
    }
    for one in again:
        row = one.cell.defense.label
        place: Place = ("defense", row, "record")
        is_clear = open_cells.get(row) == one.cell.id and place not in found
        if one.evidence.is_worse or is_clear:
            found[place] = one.evidence
    return found


def first_difference(old: object, new: object, path: str = "") -> str:
    """Where two JSON values first differ, and how; empty where they are equal.

    >>> first_difference({"a": [1, 2]}, {"a": [1, 3]})
    'a.1: was 2, is 3'
    """
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted({*old, *new}, key=str)
        parts = [(str(name), old.get(name, _ABSENT), new.get(name, _ABSENT)) for name in names]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(str(i), *pair) for i, pair in enumerate(zip(old, new))]
    else:
        return "" if _same(old, new) else f"{path}: was {old!r:.{_SHOWN}}, is {new!r:.{_SHOWN}}"
    found = (first_difference(one, other, f"{path}.{name}".lstrip(".")) for name, one, other in parts)
    return next((one for one in found if one), "")


class _Absent:
    """In place of a value that is not there."""

    def __repr__(self) -> str:
        return "nothing"


_ABSENT = _Absent()


def _same(old: object, new: object) -> bool:
    """Whether two values are one to the last bit: 1, 1.0 and True are not, nor are 0.0 and -0.0."""
    return type(old) is type(new) and repr(old) == repr(new)


def _aa(record: Record) -> float | None:
    value = (record.estimates.get("aa") or {}).get("value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
