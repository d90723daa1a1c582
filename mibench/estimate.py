"""How long tasks take, judged by what such tasks took before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

from mibench.key import canonical
from mibench.store import Store
from mibench.task import Task

# rough shares of time where nothing is known: only ratios count, and only until the first tasks are done
_GUESS = {
    "data": 1,
    "judge": 20,
    "prior": 60,
    "train": 20,
    "adapt": 10,
    "invert": 15,
    "public_net": 10,
    "embedder": 15,
}


class Estimates:
    """Seconds by kind of task; grows with every task that is learned."""

    def __init__(self) -> None:
        self._exact: dict[tuple[str, ...], list[float]] = {}
        self._kind: dict[tuple[str, ...], list[float]] = {}
        self._spent = 0.0
        self._shares = 0.0

    @classmethod
    def of_store(cls, store: Store) -> Estimates:
        """What all tasks in a store took."""
        estimates = cls()
        for task, seconds in _past(store):
            estimates._learn(task["stage"], task["plugin"], task["params"], seconds)
        return estimates

    def learn(self, task: Task, seconds: float) -> None:
        """Take a finished task into account."""
        self._learn(task.stage, task.plugin, task.params, seconds)

    def known(self, task: Task) -> float | None:
        """Seconds that such tasks took: with equal parameters, else of the same plugin; None if unknown."""
        exact, kind = _names(task.stage, task.plugin, task.params)
        found = self._exact.get(exact) or self._kind.get(kind)
        return mean(found) if found else None

    def seconds(self, task: Task) -> float | None:
        """As `known`, or a guess by the stage; None while no task at all is known."""
        known = self.known(task)
        if known is not None or self._shares == 0:
            return known
        return _GUESS.get(task.stage, 1) * self._spent / self._shares

    def _learn(self, stage: str, plugin: str, params: dict[str, Any], seconds: float) -> None:
        exact, kind = _names(stage, plugin, params)
        self._exact.setdefault(exact, []).append(seconds)
        self._kind.setdefault(kind, []).append(seconds)
        self._spent += seconds
        self._shares += _GUESS.get(stage, 1)


def _names(stage: str, plugin: str, params: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (stage, plugin, canonical(params)), (stage, plugin)


def _past(store: Store) -> Iterator[tuple[dict[str, Any], float]]:
    """Description and seconds of every task in the store whose cost is known."""
    for file in store.root.glob("*/*/cost.json"):
        try:
            task = json.loads((file.parent / "artifact.json").read_text(encoding="utf-8"))["task"]
            yield task, float(json.loads(file.read_text(encoding="utf-8"))["wall_s"])
        except (OSError, ValueError, KeyError, TypeError):  # being written, or set aside just now
            continue
