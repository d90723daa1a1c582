"""What a run says of itself while it runs: `status.json` in its results folder, for `mibench watch`.

Written whole or not at all and at most once a second, less often where writing is slow: at most a thousandth
of the time goes into it. It is not flushed to the disk, since it tells of this moment alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Record
from mibench.report.frame import may_show_images
from mibench.runner import CellDone, Event, TaskDone, TaskFailed, TaskProgress, TaskStarted
from mibench.task import Task
from mibench.watching import FILE

SCHEMA = 1
State = Literal["running", "done", "stopped", "failed"]
EVERY_S = 1.0
_SHARE = 1e-3  # of the time, for writing


@dataclass
class _Running:
    """A task at work: since when, how far, its last losses."""

    task: Task
    since: float = field(default_factory=time.time)
    done: int = 0
    total: int = 0
    losses: dict[str, float] = field(default_factory=dict)


class StatusFile:
    """Keeps `status.json` of a run up to date; call it with every event, use it as a context manager.

    An error of the disk is left alone: a run must not end because nobody can see how it goes.

    Args:
        plan: what is run.
        folder: of the results.
        jobs: tasks that run at once.
        device: where it computes.
        todo: keys of the tasks that will run.
        left_s: seconds that are probably left, if known.
        budget_s: what the run may take; None where there is no budget.
        left_out: cells of the suite that are not in the plan, for the budget.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        jobs: int,
        device: str,
        todo: set[Key],
        left_s: Callable[[], float | None] | None = None,
        budget_s: float | None = None,
        left_out: int = 0,
    ) -> None:
        self.plan, self.folder, self.jobs, self.device = plan, folder, jobs, device
        self.todo, self.total = set(todo), len(todo)
        self.left_s, self.budget_s, self.left_out = left_s, budget_s, left_out
        self.running: dict[Key, _Running] = {}
        self.cells: Counter[str] = Counter()
        self.last: Record | None = None
        self.message = ""
        self.started = time.time()
        self.every_s = EVERY_S
        self.spent_s = 0.0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_on, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if kind is None:
            return self._write("stopped" if self.message else "done")
        if issubclass(kind, KeyboardInterrupt):
            return self._write("stopped")
        self.message = f"{kind.__name__}: {error}"
        return self._write("failed")

    def __call__(self, event: Event) -> None:
        """Take an event in; the next writing shows it."""
        with self._lock:
            match event:
                case TaskStarted(task):
                    self.running[task.key] = _Running(task)
                case TaskProgress(task, done, total, values):
                    if (one := self.running.get(task.key)) is not None:
                        one.done, one.total, one.losses = done, total, dict(values)
                case TaskDone(task) | TaskFailed(task):
                    self.running.pop(task.key, None)
                    self.todo.discard(task.key)
                case CellDone(_, record):
                    self.cells[record.status] += 1
                    self.last = record

    def stopped_for(self, message: str) -> None:
        """Say why the run ended before its last cell."""
        self.message = message

    def snapshot(self, state: State) -> dict[str, Any]:
        """The content of the file."""
        left = self.left_s() if self.left_s is not None and state == "running" else None
        with self._lock:
            waiting = [self.plan.tasks[key] for key in self.todo if key not in self.running]
            queue = Counter(task.stage for task in waiting)
            stages = dict.fromkeys(task.stage for task in self.plan.tasks.values())
            return {
                "schema": SCHEMA,
                "suite": self.plan.suite.name,
                "state": state,
                "message": self.message,
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "started": self.started,
                "updated": time.time(),
                "every_s": self.every_s,
                "jobs": self.jobs,
                "device": self.device,
                "cells": {"done": self.cells.total(), "total": len(self.plan.cells), **self._outcomes()},
                "tasks": {"done": self.total - len(self.todo), "total": self.total},
                "queue": {stage: queue[stage] for stage in stages if queue[stage]},
                "running": [_running(one) for one in self.running.values()],
                "eta_s": left,
                "budget": None if self.budget_s is None else self._budget(self.budget_s),
                "last_cell": None if self.last is None else _cell(self.last, self.folder),
            }

    def _outcomes(self) -> dict[str, int]:
        return {status: self.cells[status] for status in ("ok", "failed", "blocked")}

    def _budget(self, seconds: float) -> dict[str, float | int]:
        left = max(0.0, self.started + seconds - time.time())
        return {"seconds": seconds, "left_s": left, "left_out": self.left_out}

    def _keep_on(self) -> None:
        while not self._over.wait(self.every_s):
            self._write("running")

    def _write(self, state: State) -> None:
        """Write the file; what that takes decides how soon it is written again."""
        began, cpu = time.monotonic(), time.thread_time()
        # the run goes on whatever becomes of its sign of life, also where a task changes hands meanwhile
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            payload = json.dumps(_finite(self.snapshot(state))).encode()
            aside = self.folder / f"{FILE}.tmp-{os.getpid()}"
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(payload)
                aside.replace(self.folder / FILE)
            finally:
                aside.unlink(missing_ok=True)
        # a thread that waits for its turn takes nothing from the others, so its processor time counts
        took = max(time.thread_time() - cpu, 0.0) or time.monotonic() - began
        self.spent_s += took
        self.every_s = max(EVERY_S, took / _SHARE)


def _running(one: _Running) -> dict[str, Any]:
    return {
        "title": one.task.title,
        "stage": one.task.stage,
        "plugin": one.task.plugin,
        "since": one.since,
        "done": one.done,
        "total": one.total,
        "losses": one.losses,
    }


def _cell(record: Record, folder: Path) -> dict[str, Any]:
    """What became of a cell: its figures, and where its images lie if they may be shown."""
    images = Path("cells") / record.cell / "reconstructions.png"
    shows = record.status == "ok" and may_show_images(vars(record)) and (folder / images).is_file()
    return {
        "attack": record.attack["label"],
        "defense": record.defense["label"],
        "view": record.view,
        "seed": record.seed,
        "status": record.status,
        "estimates": {name: one.get("value") for name, one in record.estimates.items() if one},
        "error": (record.error or {}).get("message", ""),
        "images": images.as_posix() if shows else "",
    }


def _finite(value: object) -> object:
    """A JSON value with null in place of what JSON cannot say, such as a loss that is not a number."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
