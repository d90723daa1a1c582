"""One night of a board: plan, run what changed, look again at what did not, compare, and add a line.

The line of the history is what makes a night: before it is written, nothing of the night counts but what lies
in the store, so a night that is killed at any moment is gone on with, and is one night.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from mibench.atomic import write_atomically
from mibench.boards.adding import trust
from mibench.boards.assembling import Assembled, assemble
from mibench.boards.board import Board
from mibench.boards.history import Night, append_night, read_history, software_of
from mibench.boards.keeping import COSTS, kept, read_costs, read_known, settled, write_board
from mibench.boards.ledger import Ledger, Pace, read_ledger, write_ledger
from mibench.boards.locking import locked
from mibench.boards.pace import compare, learn, paces
from mibench.boards.recheck import Rechecked, of_records, recheck
from mibench.boards.regress import Evidence, Place, judge
from mibench.boards.seeing import last_seen, seen_attacks, seen_defenses, with_removed
from mibench.budget import Choice, within
from mibench.estimate import Estimates
from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Json, Record
from mibench.recording import Failure
from mibench.runner import Event, OnEvent, TaskDone, TaskFailed, ignore, run
from mibench.status import StatusFile
from mibench.store import Store
from mibench.task import Cell
from mibench.watching import FILE as STATUS


@dataclass(frozen=True, kw_only=True)
class How:
    """How a night computes.

    Args:
        store: where artifacts lie.
        jobs: worker processes.
        device: where to compute.
        budget_s: wall seconds for tasks; None for no limit.
        task_limit_s: seconds after which a task has failed.
        retry: whether tasks that failed as often as they may are tried again.
        on_event: told of everything that happens while tasks run.
        on_recheck: told of each cell before it is computed again from nothing.
    """

    store: Store
    jobs: int
    device: torch.device
    budget_s: float | None = None
    task_limit_s: float | None = None
    retry: bool = False
    on_event: OnEvent = ignore
    on_recheck: Callable[[Cell], None] = lambda _cell: None


@dataclass(frozen=True)
class Told:
    """What became of a board's night.

    Args:
        board: it was of.
        night: its line.
        failed: tasks that failed and entries that could not be used this night, a sentence each.
    """

    board: Board
    night: Night
    failed: tuple[str, ...] = ()


@dataclass
class _Work:
    """What is at hand during a night."""

    board: Board
    how: How
    folder: Path
    ledger: Ledger
    found: Assembled
    history: list[Night]
    known: list[Record]
    settled: list[Cell]
    began: float = field(default_factory=time.monotonic)
    hits: set[Key] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    def left_s(self) -> float:
        """Seconds that are left of the budget."""
        return math.inf if self.how.budget_s is None else self.began + self.how.budget_s - time.monotonic()

    def watch(self, event: Event) -> None:
        """Note what the next start of this night, or the next night, must know; it may come at any moment."""
        match event:
            case TaskDone(task, "hit"):
                self.hits.add(task.key)
            case TaskDone(task, "ran"):
                self.ledger.ran.append(task.key)
                self.ledger.failures.pop(task.key, None)
                write_ledger(self.folder, self.ledger)
            case TaskFailed(task, failure):
                self.failed.append(failure.message)
                self.ledger.failed(task.key, failure)
                write_ledger(self.folder, self.ledger)
        self.how.on_event(event)


def run_night(board: Board, how: How) -> Told:
    """Run the next night of a board.

    Args:
        board: to run.
        how: to compute.

    Raises:
        LockedError: another process updates the board.
        MibenchError: the board cannot be used, or the store or the board's folder not be read or written.
        KeyboardInterrupt: the next start goes on with this night.
    """
    with locked(board) as folder:
        ledger, history = read_ledger(folder), read_history(board)
        ledger.open(len(history) + 1, datetime.now(UTC).isoformat(timespec="seconds"))
        imported = set(ledger.imported)
        found = assemble(board, imported)
        ledger.imported = sorted(imported)
        write_ledger(folder, ledger)
        known = read_known(board)
        done = settled(found.plan, known, how.store)
        work = _Work(board, how, folder, ledger, found, history, known, done)
        work.hits.update(cell.measure for cell in done)
        work.failed += found.failed.values()
        return _finish(work, _compute(work))


def _compute(work: _Work) -> tuple[list[Record], dict[str, Failure]]:
    """Run what is missing: the records that came of it, and by cell why it was not tried."""
    how = work.how
    todo = _without(work.found.plan, {cell.id for cell in work.settled})
    known = {} if how.retry else _given_up(todo, work.ledger, how.store)
    todo = _without(todo, known)
    choice = _choose(todo, how)
    todo = todo if choice is None else choice.plan
    status = StatusFile(
        todo,
        work.board.folder,
        jobs=how.jobs,
        device=str(how.device),
        todo={key for key, state in todo.status(how.store).items() if state in {"run", "zoo"}},
        budget_s=how.budget_s,
        left_out=0 if choice is None else len(choice.left_out),
    )

    def watch(event: Event) -> None:
        status(event)
        work.watch(event)

    with status:
        records = run(
            todo,
            how.store,
            jobs=how.jobs,
            device=how.device,
            on_event=watch,
            results=work.folder,
            until=work.began + how.budget_s if how.budget_s is not None else math.inf,
            task_limit_s=how.task_limit_s,
            served=work.board.is_served,
        )
    return records, known


def _without(plan: Plan, cells: Collection[str]) -> Plan:
    return dataclasses.replace(plan, cells=tuple(cell for cell in plan.cells if cell.id not in cells))


def _given_up(plan: Plan, ledger: Ledger, store: Store) -> dict[str, Failure]:
    """By cell the failure of a task that it needs, that is not there, and that is not tried this night."""
    lost = {key: why for key in plan.tasks if (why := ledger.given_up(key)) and not store.contains(key)}
    found = {}
    for cell in plan.cells if lost else ():
        if cell.measure and not store.contains(cell.measure):
            needs = {cell.measure, *plan.ancestors(cell.measure)}
            if (first := next((key for key in lost if key in needs), None)) is not None:
                found[cell.id] = lost[first]
    return found


def _choose(plan: Plan, how: How) -> Choice | None:
    """What of a plan fits the budget."""
    if how.budget_s is None:
        return None
    present = {key for key in plan.tasks if how.store.contains(key)}
    return within(plan, present, _seconds(plan, how), how.budget_s, how.jobs)


def _seconds(plan: Plan, how: How) -> Callable[..., float]:
    estimates = Estimates.of_store(how.store, device=how.device.type, tasks=plan.tasks)
    return lambda task: estimates.expect(task).seconds


def _finish(work: _Work, came: tuple[list[Record], dict[str, Failure]]) -> Told:
    """From the records of a night to its line."""
    fresh, known = came
    plan, board, ledger, how = work.found.plan, work.board, work.ledger, work.how
    records = kept(plan, fresh, work.known, known, how.device)
    costs = {**read_costs(board.folder / COSTS), **read_costs(work.folder / COSTS)}
    have = {record.cell for record in fresh} | known.keys() | {cell.id for cell in work.settled}
    late = {cell.id for cell in plan.cells if cell.id not in have}
    again = _recheck(work, records)
    defenses = seen_defenses(board, work.found, records, ran=ledger.ran, costs=costs, left_out=late)
    attacks = seen_attacks(work.found, records)
    old_defenses, old_attacks = last_seen(work.history)
    defenses, attacks = with_removed(defenses, old_defenses), with_removed(attacks, old_attacks)
    tonight = _paces(plan, ledger, costs, again)
    more: dict[Place, Evidence] = compare(ledger.paces, tonight, board.rules.alarms)
    more |= of_records(work.history, again, {cell.id for cell in plan.cells})
    last = len(work.history)
    accepted = tuple(sorted(name for name, night in ledger.accepted.items() if night == last))
    verdict = judge(work.history, defenses, attacks, rules=board.rules.alarms, accepted=accepted, more=more)
    night = Night(
        night=ledger.night,
        started=ledger.started,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        software=_software(fresh or records),
        cells=len(plan.cells),
        hits=len(work.hits - set(ledger.ran)),
        ran=len(set(ledger.ran)),
        failed=sum(record.status == "failed" for record in records),
        left_out=len(late),
        entries=defenses,
        alarms=verdict.alarms,
        suspicions=verdict.suspicions,
        accepted=accepted,
        attacks=attacks,
        rechecked=tuple(one.cell.id for one in again),
    )
    write_board(board, plan, records, costs)
    append_night(board, night)
    rows = (*defenses.items(), *attacks.items())
    trust(board, {name: seen.digest for name, seen in rows if seen.status == "ok"})
    slow = {one.entry for one in (*verdict.alarms, *verdict.suspicions) if one.what in ("wall_s", "peak_mib")}
    learn(ledger.paces, tonight, slow)
    ledger.close()
    write_ledger(work.folder, ledger)
    _tell(board, night)
    return Told(board, night, tuple(work.failed))


def _recheck(work: _Work, records: list[Record]) -> list[Rechecked]:
    """Compute some cells of earlier nights again, as far as the budget goes."""
    count, how, last = work.board.rules.recheck, work.how, work.history[-1:]
    if not count or not last:
        return []
    known: list[Rechecked] = []

    def compute(plan: Plan, place: Path) -> tuple[Record, Mapping[Key, Json]]:
        results = place.with_name("rechecked")
        how.on_recheck(plan.cells[0])
        (record,) = run(
            plan,
            Store(place),
            jobs=how.jobs,
            device=how.device,
            results=results,
            task_limit_s=how.task_limit_s,
            served=work.board.is_served,
        )
        return record, read_costs(results / COSTS)

    for one in recheck(
        work.found.plan,
        {record.cell: record for record in records},
        work.ledger,
        count=count,
        folder=work.folder,
        device=how.device.type,
        suspected=last[0].suspicions,
        seconds=_seconds(work.found.plan, how),
        left_s=work.left_s,
        compute=compute,
    ):
        known.append(one)
        if one.evidence.is_worse:
            offered = work.ledger.offered.setdefault(one.cell.defense.label, {})
            offered[one.cell.measure] = one.level
        write_ledger(work.folder, work.ledger)
    return known


def _paces(
    plan: Plan, ledger: Ledger, costs: Mapping[Key, Json], again: list[Rechecked]
) -> dict[str, dict[str, Pace]]:
    """What tonight's tasks took; of one that was computed twice the recheck, which is the later."""
    tonight = paces(plan, ledger.ran, costs)
    for one in again:
        for row, own in paces(plan, one.costs, one.costs).items():
            tonight.setdefault(row, {}).update(own)
    return tonight


def _software(records: list[Record]) -> dict[str, str]:
    """Versions, from a measured record where there is one."""
    measured = [record for record in records if record.status == "ok"] or records
    return software_of(vars(measured[0])) if measured else {}


def _tell(board: Board, night: Night) -> None:
    """Add to status.json what the night came to."""
    file = board.folder / STATUS
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it could not be written either
        return
    status["night"] = night.night
    status["alarms"] = [dataclasses.asdict(one) for one in night.alarms]
    status["suspicions"] = [dataclasses.asdict(one) for one in night.suspicions]
    status["ran"], status["failed"], status["left_out"] = night.ran, night.failed, night.left_out
    write_atomically(file, json.dumps(status).encode())
