"""Which tasks do the same work: equal but for their seeds, and for who is protected and attacked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mibench.defense import Defense
from mibench.graph import BASELINE
from mibench.key import Key, canonical
from mibench.registry import get_defense
from mibench.task import Task

_LABELS = frozenset({"targets", "protects"})  # of which only their number is work


class Kinds:
    """The kind of each task of a plan, as canonical JSON.

    A victim counts for whoever attacks or measures it as its net alone, unless its defense reshaped that.

    Args:
        tasks: by key, inputs before what reads them.
    """

    def __init__(self, tasks: Mapping[Key, Task]) -> None:
        self._tasks = tasks
        self._found: dict[Key, str] = {}

    def of(self, key: Key) -> str:
        """The kind of a task; tasks of one kind have the same."""
        if key not in self._found:
            task = self._tasks[key]
            inputs = {role: self._read(read) for role, read in task.inputs.items()}
            params = {name: _count(one) if name in _LABELS else one for name, one in task.params.items()}
            parts = [task.stage, task.plugin, task.version, params, inputs]
            self._found[key] = canonical(parts)
        return self._found[key]

    def _read(self, key: Key) -> str:
        task = self._tasks[key]
        if task.stage != "train" or _reshapes(task):
            return self.of(key)
        return canonical(["net", task.params["net"]])


def _reshapes(task: Task) -> bool:
    if "onto" in task.params:
        return True
    return task.plugin != BASELINE and get_defense(task.plugin).prepare is not Defense.prepare


def _count(labels: list[Any]) -> int | list[Any]:
    """The number of labels, at any depth.

    >>> _count([[3, 4], [5]])
    [2, 1]
    """
    return [_count(one) for one in labels] if labels and isinstance(labels[0], list) else len(labels)
