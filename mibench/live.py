"""What a run looks like while it runs: bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Task as Line
from rich.text import Text

from mibench.estimate import Estimates
from mibench.key import Key
from mibench.plan import Plan
from mibench.record import Record
from mibench.report.escape import printable
from mibench.runner import CellDone, Event, TaskDone, TaskElsewhere, TaskFailed, TaskProgress, TaskStarted
from mibench.task import Task

_SURE = 0.05  # below this share of its steps a task's pace says little about its end
_ADDING = 20  # times what adding up all that is left took, until it is added up again


@dataclass
class _Running:
    """A task at work: since when, how far, its losses, its line on the screen."""

    task: Task
    since: float = field(default_factory=time.monotonic)
    share: float = 0.0
    losses: str = ""
    line: TaskID | None = None


class Live:
    """Watches a run; call it with every event, use it as a context manager.

    Args:
        plan: what is run.
        console: where to show it; bars if it is a terminal, lines if not.
        jobs: tasks that run at once.
        estimates: what earlier tasks took.
        todo: keys of the tasks that will run.
    """

    def __init__(
        self, plan: Plan, console: Console, *, jobs: int, estimates: Estimates, todo: set[Key]
    ) -> None:
        self.plan, self.console, self.jobs, self.estimates = plan, console, jobs, estimates
        estimates.meet(plan.tasks)
        self.todo = {key: plan.tasks[key] for key in plan.tasks if key in todo}
        self.total = len(self.todo)
        self.running: dict[Key, _Running] = {}
        self.cells = dict.fromkeys(("ok", "failed", "blocked"), 0)
        self.since = time.monotonic()
        self._left: float | None = None
        self._next = -math.inf
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Info(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.overall = self.progress.add_task("", total=1.0, info=self._times)

    def __enter__(self) -> Self:
        self.progress.start()
        self._show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Take an event in and show what it changes."""
        match event:
            case TaskStarted(task):
                self._started(task)
            case TaskElsewhere(task, owner):
                self._say(f"    wait  {task.title} ({owner} is at it)")
            case TaskProgress(task, done, total, values):
                self._moved(task, done, total, values)
            case TaskDone(task, how, wall_s):
                self._ended(task, how, wall_s)
            case TaskFailed(task, failure):
                self._forget(task)
                self._say(f"failed  {task.title}: {failure.type}: {failure.message}", style="red")
            case CellDone(_, record):
                self.cells[record.status] += 1
                self._say(self._cell_text(record), style="" if record.status == "ok" else "yellow")
        self._show()

    @property
    def title(self) -> str:
        """Cells done and in all, and how many of them failed."""
        failed = f", {self.cells['failed']} failed" if self.cells["failed"] else ""
        if not self.plan.cells:
            return f"{self.total - len(self.todo)} of {self.total} tasks"
        return f"{sum(self.cells.values())} of {len(self.plan.cells)} cells{failed}"

    def left_s(self) -> float | None:
        """Seconds that are probably left; None while nothing is known."""
        # a list of its own, because the screen asks from a thread of its own
        parts = [self._task_left(task) for task in list(self.todo.values())]
        if any(part is None for part in parts):
            return None
        known = [part for part in parts if part is not None]
        return max(sum(known) / self.jobs, max(known, default=0.0))

    def _task_left(self, task: Task) -> float | None:
        at_work = self.running.get(task.key)
        expected = self.estimates.seconds(task)
        if at_work is None:
            return expected
        spent = time.monotonic() - at_work.since
        if at_work.share > _SURE:
            return spent * (1 / at_work.share - 1)
        return None if expected is None else max(0.0, expected - spent)

    def _started(self, task: Task) -> None:
        one = _Running(task)
        if self.console.is_terminal:
            title = escape(printable(task.title))
            one.line = self.progress.add_task(title, total=1.0, info=lambda: one.losses)
        self.running[task.key] = one

    def _moved(self, task: Task, done: int, total: int, values: dict[str, float]) -> None:
        one = self.running.get(task.key)
        if one is None:
            return
        one.share = done / max(1, total)
        one.losses = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        if one.line is not None:
            self.progress.update(one.line, completed=one.share)

    def _ended(self, task: Task, how: str, wall_s: float) -> None:
        self._forget(task)
        if how == "ran":
            self.estimates.learn(task, wall_s)
            self._say(f"{wall_s:6.1f} s  {task.title}")
        elif how == "zoo":
            self._say(f"     zoo  {task.title}")
        elif how == "elsewhere":
            self._say(f"   there  {task.title}")

    def _forget(self, task: Task) -> None:
        self.todo.pop(task.key, None)
        one = self.running.pop(task.key, None)
        if one is not None and one.line is not None:
            self.progress.remove_task(one.line)

    def _show(self) -> None:
        if self.progress.disable:
            return
        left, spent = self._left_lately(), time.monotonic() - self.since
        share = spent / (spent + left) if left is not None and spent + left > 0 else 0.0
        self.progress.update(self.overall, description=self.title, completed=share)

    def _left_lately(self) -> float | None:
        """`left_s` of a moment ago: with each of many tasks it would take longer, and each asks for it."""
        began = time.monotonic()
        if began >= self._next:
            self._left = self.left_s()
            ended = time.monotonic()
            self._next = ended + _ADDING * (ended - began)
        return self._left

    def _times(self) -> str:
        left = self._left_lately()
        spent = f"{duration(time.monotonic() - self.since)} spent"
        return spent if left is None else f"{spent}, about {duration(left)} left"

    def _cell_text(self, record: Record) -> str:
        place = f"{record.attack['label']} on {record.defense['label']}"
        if len(self.plan.suite.white_box) > 1 and record.view != "black-box":
            place += f" ({record.view})"
        accuracy = (record.estimates.get("aa") or {}).get("value")
        if record.status != "ok":
            return f"{record.status:>8}  {place}: {(record.error or {}).get('message', '')}"
        found = "" if accuracy is None else f": AA {100 * accuracy:.1f} %"
        return f"    cell  {place}{found}  ({self.title})"

    def _say(self, text: str, *, style: str = "") -> None:
        # what a plugin raises may be anything, and a terminal obeys control characters
        text = "\n".join(map(printable, text.splitlines()))
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class _Info(ProgressColumn):
    """What stands behind a bar, asked anew at every refresh: a clock must not wait for an event."""

    def render(self, task: Line) -> Text:
        """The words of a line."""
        return Text(printable(task.fields["info"]()), style="dim")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    >>> duration(8), duration(150), duration(9000)
    ('8 s', '2.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
