"""Tasks that wait for what they read, so that the end of one is told to those alone that read it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from mibench.key import Key
from mibench.plan import Plan
from mibench.task import Task

# rough shares of time, only to start the longest chain of tasks first; judge and measure come before
# everything, because they are short and bring the first records early
_WEIGHTS = {
    "judge": 1000,
    "embedder": 1000,
    "measure": 1000,
    "answer": 1000,
    "prior": 30,
    "train": 10,
    "adapt": 10,
    "invert": 10,
    "public_net": 8,
    "output": 3,
}


class _Place(NamedTuple):
    """Where a ready task stands in the queue; the number is its own, so that keys are never compared."""

    is_last: bool
    minus_rank: int
    number: int
    key: Key


class Waiting:
    """The tasks of a plan that have not started, and in which order those that could start do.

    Each counts what it reads and is not there yet. Looking at all of them whenever one ends would take time
    that grows as the square of their number.

    Args:
        plan: of the run.
        needed: keys of the tasks to do; they are numbered in plan order.
        present: keys of what is there.
        rank: of each key; higher ones start first, and of equal ones the earlier number.
    """

    def __init__(
        self, plan: Plan, needed: Collection[Key], present: Collection[Key], rank: Mapping[Key, int]
    ) -> None:
        self.rank = rank
        self._tasks = {key: task for key, task in plan.tasks.items() if key in needed}
        self._numbers = itertools.count()
        self._readers: dict[Key, list[Key]] = {}
        self._unmet: dict[Key, int] = {}
        self._queue: list[_Place] = []
        self._next: list[_Place] = []  # what the next turn adds
        for key, task in self._tasks.items():
            # a prior from the zoo reads nothing
            reads = set() if plan.is_ready_made(key) else set(task.inputs.values())
            missing = [read for read in reads if read not in present]
            self._unmet[key] = len(missing)
            for read in missing:
                self._readers.setdefault(read, []).append(key)
        self._places = {key: _Place(False, -rank[key], next(self._numbers), key) for key in self._tasks}
        self._next += [self._places[key] for key, count in self._unmet.items() if not count]

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: object) -> bool:
        return key in self._tasks

    def turn(self) -> None:
        """Let what has become ready since the last turn join the queue."""
        for place in self._next:
            heapq.heappush(self._queue, place)
        self._next.clear()

    def first(self) -> Task | None:
        """The first ready task of this turn, which stays where it is; None where there is none."""
        while self._queue and not self._is_valid(self._queue[0]):
            heapq.heappop(self._queue)
        return self._tasks[self._queue[0].key] if self._queue else None

    def pass_over(self, task: Task) -> None:
        """Leave the first task of this turn to the next one, unless it has been removed."""
        if task.key in self._tasks:
            self._next.append(heapq.heappop(self._queue))

    def remove(self, key: Key) -> None:
        """Forget a task if it waits: it has started, is done elsewhere, or is given up."""
        self._tasks.pop(key, None)

    def clear(self) -> None:
        """Forget all tasks."""
        self._tasks.clear()

    def put_last(self, task: Task) -> None:
        """Take back a task that had started, behind all others."""
        place = _Place(True, -self.rank[task.key], next(self._numbers), task.key)
        self._tasks[task.key], self._places[task.key] = task, place
        self._next.append(place)

    def made(self, key: Key) -> None:
        """Tell those that read an artifact that it is there now."""
        for reader in self._readers.pop(key, ()):
            self._unmet[reader] -= 1
            if not self._unmet[reader]:
                self._next.append(self._places[reader])

    def readers(self, key: Key) -> Sequence[Key]:
        """Keys of the tasks that read what is not there yet, in plan order; some may have been removed."""
        return self._readers.get(key, ())

    def _is_valid(self, place: _Place) -> bool:
        """Whether a task still waits, and in this place."""
        return place.key in self._tasks and self._places[place.key] is place


def ranks(plan: Plan) -> dict[Key, int]:
    """For each task its own weight and that of the longest chain of tasks that waits for it."""
    rank = {key: _WEIGHTS.get(task.stage, 1) for key, task in plan.tasks.items()}
    for key in reversed(list(plan.tasks)):  # readers stand after what they read
        if plan.tasks[key].stage != "measure":  # every chain ends in one
            for read in plan.tasks[key].inputs.values():
                own = _WEIGHTS.get(plan.tasks[read].stage, 1)
                rank[read] = max(rank[read], own + rank[key])
    return rank
