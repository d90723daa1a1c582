"""The runner: walks a plan over worker processes, resumes, and turns failures into records."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file

from mibench.errors import StoreError
from mibench.executors import Executor, InProcess, MakeExecutor, Pool
from mibench.flags import with_comparisons
from mibench.key import Key
from mibench.lease_objects import leases_of
from mibench.plan import Plan
from mibench.record import Record, write_lines, write_records
from mibench.recording import Failure, failed_record, measured_record
from mibench.serving_jobs import maker_of
from mibench.store import Artifact, Store
from mibench.task import Cell, Task
from mibench.waiting import Waiting, ranks
from mibench.worker import Job, Outcome, find_device
from mibench.workload import WORK_VERSION, work_of
from mibench.zoo import zoo_file

_WRITE_EVERY_S = 1.0
_WRITING = 20  # times what the last writing of all records took, until the next one
# pauses between looks at other processes grow: short tasks are seen soon, long ones leave the disk alone
_LOOK_S, _LONGEST_LOOK_S, _SLOWER = 0.1, 1.0, 1.2


@dataclass(frozen=True)
class TaskStarted:
    """A task was handed to a worker."""

    task: Task


@dataclass(frozen=True)
class TaskElsewhere:
    """Another process is at a task that this one could start; told once."""

    task: Task
    owner: str


@dataclass(frozen=True)
class TaskProgress:
    """How far a task is: steps done, steps in all, named losses."""

    task: Task
    done: int
    total: int
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskDone:
    """A task's artifact is there: it was before, was made here or elsewhere, or was taken from the zoo."""

    task: Task
    how: Literal["hit", "ran", "zoo", "elsewhere"]
    wall_s: float = 0.0


@dataclass(frozen=True)
class TaskFailed:
    """A task raised, or its worker process was killed twice."""

    task: Task
    failure: Failure


@dataclass(frozen=True)
class CellDone:
    """A cell has its record."""

    cell: Cell
    record: Record


Event = TaskStarted | TaskElsewhere | TaskProgress | TaskDone | TaskFailed | CellDone
OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Drop an event: nobody watches."""


def run(
    plan: Plan,
    store: Store,
    *,
    jobs: int = 1,
    device: str | torch.device = "cpu",
    on_event: OnEvent = ignore,
    results: Path | None = None,
    executor: MakeExecutor | None = None,
    until: float = math.inf,
    task_limit_s: float | None = None,
    served: bool = False,
) -> list[Record]:
    """Make what is missing, and return the record of every cell in plan order.

    Only measurements have to be there. A missing intermediate result is made again where something that is
    missing itself depends on it, and not otherwise. What another process on the same store is at, this one
    waits for, and does itself where the other fails or dies.

    Args:
        plan: what to do.
        store: where artifacts lie.
        jobs: worker processes of one thread each; 1 works in this process. Results do not depend on it.
        device: where to compute.
        on_event: told of everything that happens, in this process.
        results: folder of `records.jsonl` and `costs.jsonl`, rewritten as cells close; None writes nothing.
        executor: makes what runs the tasks in place of `jobs` workers of this machine.
        until: time of `time.monotonic` after which no task starts; cells that are open then have no record.
        task_limit_s: seconds after which a task that still runs is stopped and has failed; None for no limit.
        served: whether attacks without weights run apart from their victims; see `mibench.serving_jobs`.

    Raises:
        StoreError: the store cannot be read or written.
        DeviceError: the device is not there.
        KeyboardInterrupt: after the workers were stopped; the next run goes on from the last whole artifact.
    """
    where = find_device(device)
    executor = maker_of(executor, jobs, served=served, is_limited=task_limit_s is not None)
    walk = _Run(plan, store, jobs=jobs, device=where, on_event=on_event, results=results, executor=executor)
    walk.until, walk.task_limit_s = until, task_limit_s
    return walk.go()


class _Run:
    """The state of one walk."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        *,
        jobs: int,
        device: torch.device,
        on_event: OnEvent,
        results: Path | None,
        executor: MakeExecutor | None,
    ) -> None:
        self.plan, self.store, self.device = plan, store, device
        self.on_event, self.results = on_event, results
        local: MakeExecutor = partial(Pool, jobs) if jobs > 1 else InProcess
        self.executor: Executor = (executor or local)(self.progress)
        if not isinstance(self.executor, InProcess):
            store.check_shared()
        # one worker goes through the plan cell by cell, several start with the longest chain
        self.rank = ranks(plan) if self.executor.jobs > 1 else dict.fromkeys(plan.tasks, 0)
        self.number = {key: i for i, key in enumerate(plan.tasks)}
        self.cells_of: dict[Key, list[int]] = defaultdict(list)
        for i, cell in enumerate(plan.cells):
            self.cells_of[cell.measure].append(i)
        self.present: set[Key] = set()
        self.waiting = Waiting(plan, (), (), self.rank)
        self.flying: set[Key] = set()
        self.leases = leases_of(store.root, store.files)
        self.elsewhere: set[Key] = set()  # of which others hold the leases, or held them
        self.suspects: set[Key] = set()
        self.raised: dict[Key, Failure] = {}
        self.failures: dict[Key, Failure] = {}
        self.closed: set[int] = set()  # cells without a record that can have one
        self.records: dict[int, Record] = {}
        self.costs: dict[Key, str] = {}  # lines of costs.jsonl
        self.written, self.took_s = -math.inf, 0.0
        self.until = math.inf
        self.task_limit_s: float | None = None

    def go(self) -> list[Record]:
        """Walk to the end."""
        self.store.sweep()
        self.present, needed = self.survey()
        for key in self.plan.tasks:
            if key in self.present:
                self.on_event(TaskDone(self.plan.tasks[key], "hit"))
        self.waiting = Waiting(self.plan, needed, self.present, self.rank)
        self.closed = {i for i, cell in enumerate(self.plan.cells) if self.is_closed(cell)}
        self.close_cells()
        pause = _LOOK_S
        try:
            while self.waiting or self.flying:
                if self.start() or self.flying:
                    pause = _LOOK_S
                else:
                    time.sleep(pause)
                    pause = min(pause * _SLOWER, _LONGEST_LOOK_S)
                for job, outcome in self.executor.poll():
                    self.finish(job.task, outcome)
                self.close_cells()
        except BaseException:
            self.executor.stop()
            # a full disk or a service that is gone, of which the first error tells
            with contextlib.suppress(OSError, StoreError):
                self.write()
            raise
        finally:
            self.leases.close()  # after the workers were stopped
        # which of two failures came first depends on the workers, the first in the plan does not
        for i, cell in enumerate(self.plan.cells):
            if cell.measure in self.failures:
                self.records[i] = self.record(cell)
        self.write()
        return self.compared()

    def survey(self) -> tuple[set[Key], set[Key]]:
        """Keys of what is there and of the tasks to run; all that will be read is verified."""
        present = self.store.present(self.plan.tasks)
        verified: set[Key] = set()
        while True:
            needed = self.plan.needed(present)
            reads = {key for task in needed for key in self.plan.tasks[task].inputs.values()}
            reads |= {cell.measure for cell in self.plan.cells}
            unsure = (reads & present) - verified
            if not unsure:
                return present, needed
            present -= {key for key in unsure if not self.store.verify(key)}
            verified |= unsure

    def start(self) -> bool:
        """Hand out ready tasks, those with most work behind them first; whether there was any to have."""
        if time.monotonic() >= self.until:
            self.waiting.clear()
        before = len(self.waiting)
        self.waiting.turn()
        while (task := self.waiting.first()) is not None:
            # a task whose worker died runs alone, so that another death is surely its own
            is_suspect = task.key in self.suspects
            is_full = len(self.flying) >= self.executor.jobs
            if is_full or (self.flying and (is_suspect or self.flying & self.suspects)):
                break
            if not self.is_ours(task):
                self.waiting.pass_over(task)
                continue
            self.waiting.remove(task.key)
            self.on_event(TaskStarted(task))
            if self.plan.is_ready_made(task.key):
                self.take_from_zoo(task)
                continue
            self.flying.add(task.key)
            self.executor.submit(
                Job(
                    task,
                    self.store.place,
                    str(self.device),
                    plugin_files=self.plan.plugin_files,
                    limit_s=self.task_limit_s,
                )
            )
        return len(self.waiting) < before

    def is_ours(self, task: Task) -> bool:
        """Whether this process shall do a task, and holds its lease now; else another is at it or did it."""
        if self.plan.is_ready_made(task.key):
            return True
        if self.leases.take(task.key) is None:
            if task.key not in self.elsewhere:
                self.elsewhere.add(task.key)
                self.on_event(TaskElsewhere(task, str(self.leases.holder(task.key) or "another process")))
            return False
        # somebody may have ended it after this process had looked
        if not (self.store.contains(task.key) and self.store.verify(task.key)):
            return True
        self.leases.drop(task.key)
        self.waiting.remove(task.key)
        self.made(task.key)
        self.on_event(TaskDone(task, "elsewhere"))
        return False

    def made(self, key: Key) -> None:
        """Note that an artifact is there now: what reads it has one thing less to wait for."""
        self.present.add(key)
        self.waiting.made(key)
        self.closed.update(self.cells_of.get(key, ()))

    def take_from_zoo(self, task: Task) -> None:
        """Store a ready-made prior."""
        tensors = load_file(zoo_file(task.key))
        self.store.put(task.key, Artifact(tensors, {"notes": {}}, task.description()))
        self.made(task.key)
        self.on_event(TaskDone(task, "zoo"))

    def finish(self, task: Task, outcome: Outcome | None) -> None:
        """Note what became of a task; a killed one is tried once more."""
        self.flying.discard(task.key)
        self.leases.drop(task.key)
        if outcome is None and task.key not in self.suspects:
            self.suspects.add(task.key)
            self.waiting.put_last(task)
            return
        self.suspects.discard(task.key)
        if outcome is None:
            killed = "its worker process was killed twice, perhaps for lack of memory. Use fewer jobs."
            outcome = Outcome(task.key, Failure(task.stage, "WorkerKilled", f"{task.title}: {killed}"))
        self.costs.pop(task.key, None)
        if outcome.failure is None:
            self.made(task.key)
            self.on_event(TaskDone(task, "ran", outcome.wall_s))
        elif outcome.stops:
            raise StoreError(outcome.failure.message)  # nothing else could be stored either
        else:
            self.on_event(TaskFailed(task, outcome.failure))
            self.raised[task.key] = outcome.failure
            self.give_up(task.key)

    def give_up(self, key: Key) -> None:
        """Give up a task and all that waits for it; each keeps the first failure in plan order."""
        open_keys, met = [key], {key}
        while open_keys:
            one = open_keys.pop()
            causes = self.raised.keys() & {one, *self.plan.ancestors(one)}
            self.failures[one] = self.raised[min(causes, key=self.number.__getitem__)]
            self.closed.update(self.cells_of.get(one, ()))
            for reader in self.waiting.readers(one):
                if reader not in met and (reader in self.waiting or reader in self.failures):
                    self.waiting.remove(reader)
                    met.add(reader)
                    open_keys.append(reader)

    def progress(self, job: Job, done: int, total: int, values: dict[str, float]) -> None:
        """Pass a worker's report on."""
        self.on_event(TaskProgress(job.task, done, total, values))

    def close_cells(self) -> None:
        """Write the records of the cells that have just become whole."""
        fresh = sorted(self.closed - self.records.keys())
        self.closed.clear()
        for i in fresh:
            cell = self.plan.cells[i]
            self.records[i] = self.record(cell)
            self.on_event(CellDone(cell, self.records[i]))
        # rewriting grows with the number of cells; the store holds what a kill takes from the last second
        if fresh and time.monotonic() - self.written > max(_WRITE_EVERY_S, _WRITING * self.took_s):
            self.write()

    def is_closed(self, cell: Cell) -> bool:
        """Whether a cell was measured before, or is blocked."""
        return bool(cell.blocked) or cell.measure in self.present

    def record(self, cell: Cell) -> Record:
        """The record of a closed cell."""
        if cell.blocked:
            return failed_record(self.plan, cell, Failure("plan", "BlockedError", cell.blocked), self.device)
        if cell.measure in self.failures:
            return failed_record(self.plan, cell, self.failures[cell.measure], self.device)
        artifact = self.store.get(cell.measure)
        if artifact is None:
            raise StoreError(f"measurement {cell.measure[:12]} is gone from the store. Run again.")
        return measured_record(self.plan, cell, artifact)

    def compared(self) -> list[Record]:
        """The records so far in plan order, with the flags that a comparison of cells shows."""
        return with_comparisons([self.records[i] for i in sorted(self.records)])

    def write(self) -> None:
        """Rewrite the files of the results folder, in plan order."""
        if self.results is None:
            return
        began = time.monotonic()
        write_records(self.results / "records.jsonl", self.compared())
        write_lines(self.results / "costs.jsonl", self.cost_lines())
        self.written = time.monotonic()
        self.took_s = self.written - began

    def cost_lines(self) -> list[str]:
        """For each task whose cost is known: key, stage, plugin, title, work, seconds, memory, device."""
        for key, task in self.plan.tasks.items():
            if key in self.present and key not in self.costs and (cost := self.store.cost(key)):
                head = {"key": key, "stage": task.stage, "plugin": task.plugin, "title": task.title}
                work = work_of(task.description(), lambda read: self.plan.tasks[read].description())
                works = {"work": work, "work_version": WORK_VERSION}
                self.costs[key] = json.dumps({**head, **works, **cost}, sort_keys=True)
        return [self.costs[key] for key in self.plan.tasks if key in self.costs]


__all__ = [
    "CellDone",
    "Event",
    "OnEvent",
    "TaskDone",
    "TaskElsewhere",
    "TaskFailed",
    "TaskProgress",
    "TaskStarted",
    "run",
]
