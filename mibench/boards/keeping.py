"""The records of a board after a night: fresh ones, known failures, and older ones of what had no time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from mibench.boards.board import RECORDS, Board
from mibench.boards.standing import STALE
from mibench.flags import with_comparisons
from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Json, Record, read_records, write_lines, write_records
from mibench.recording import Failure, failed_record
from mibench.store import Store
from mibench.task import Cell

COSTS = "costs.jsonl"


def read_known(board: Board) -> list[Record]:
    """The board's records so far; none before the first night.

    Raises:
        RecordError: the file cannot be read.
    """
    file = board.folder / RECORDS
    return read_records(file) if file.is_file() else []


def settled(plan: Plan, known: Iterable[Record], store: Store) -> list[Cell]:
    """The cells that need no store: the board holds their record, made under the key that they have today.

    A store is on one machine and may be thinned out; the board's records are in its repository. So a night
    in a fresh clone computes what is new, and the recheck finds where this machine gives other numbers.

    Args:
        plan: of the board.
        known: records of the board so far.
        store: cells that it holds are left to the run, which takes them from there.
    """
    keys = {record.cell: record.keys.get("measure") for record in known if record.status == "ok"}
    return [
        cell
        for cell in plan.cells
        if cell.measure and keys.get(cell.id) == cell.measure and not store.contains(cell.measure)
    ]


def kept(
    plan: Plan,
    fresh: Iterable[Record],
    known: Iterable[Record],
    failures: Mapping[str, Failure],
    device: torch.device,
) -> list[Record]:
    """The records of a plan's cells in plan order; a cell that was never measured has none.

    Args:
        plan: of the whole board.
        fresh: of this night.
        known: of the board before it.
        failures: by name of the cell, of those that were not tried again.
        device: of the night.
    """
    by_cell = {record.cell: record for record in fresh}
    before = {record.cell: record for record in known}
    by_place = {_place_of_record(record): record for record in known}
    found = []
    for cell in plan.cells:
        if cell.id in by_cell:
            found.append(by_cell[cell.id])
        elif cell.id in failures:
            found.append(failed_record(plan, cell, failures[cell.id], device))
        elif (same := before.get(cell.id)) is not None:
            # it was stale where an entry changed and changed back before a night had time for it
            found.append(dataclasses.replace(same, flags=tuple(flag for flag in same.flags if flag != STALE)))
        elif (older := by_place.get(_place(cell))) is not None and older.status == "ok":
            found.append(dataclasses.replace(older, flags=tuple(dict.fromkeys((*older.flags, STALE)))))
    return with_comparisons(found)


def _place(cell: Cell) -> tuple[str, str, str, int]:
    return cell.attack.label, cell.defense.label, cell.view, cell.seed


def _place_of_record(record: Record) -> tuple[str, str, str, int]:
    return str(record.attack.get("label")), str(record.defense.get("label")), record.view, record.seed


def read_costs(file: Path) -> dict[Key, Json]:
    """The lines of a costs.jsonl by key; what cannot be read is left out, for times are no results."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[Key, Json] = {}
    for line in lines:
        try:
            cost = json.loads(line)
            float(cost["wall_s"])
            found[str(cost["key"])] = cost
        except (ValueError, KeyError, TypeError):
            continue
    return found


def write_board(board: Board, plan: Plan, records: Sequence[Record], costs: Mapping[Key, Json]) -> None:
    """Replace the board's records and costs; of the costs those of this plan are kept.

    Raises:
        RecordError: a file cannot be written.
    """
    write_records(board.folder / RECORDS, records)
    lines = [json.dumps(costs[key], sort_keys=True) for key in plan.tasks if key in costs]
    write_lines(board.folder / COSTS, lines)
