"""Plans: a suite as a graph of keyed tasks and a list of cells; only image folders are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from mibench.adaptive import Weakness
from mibench.attack import Attack
from mibench.compose import Composition
from mibench.defense import Defense
from mibench.errors import BlockedError, SuiteError
from mibench.graph import Graph
from mibench.key import Key
from mibench.registry import loaded_files
from mibench.ruler import measure
from mibench.suite import Entry, Suite
from mibench.targets import Targets
from mibench.task import Cell, Model, Seen, Task
from mibench.victim import WhiteBoxVictim
from mibench.zoo import in_zoo

Status = Literal["hit", "run", "zoo", "idle"]
Labels = tuple[int, ...]


class _Shelf(Protocol):
    """What a plan asks of a store."""

    def present(self, keys: Iterable[Key]) -> set[Key]:
        """Those keys under which artifacts lie."""
        ...


@dataclass(frozen=True)
class Plan:
    """All tasks by key, inputs before what reads them, and all cells in table order.

    Args:
        suite: what was planned.
        tasks: every task, shared ones once.
        cells: in table order.
        zoo: whether ready-made priors may be used.
        plugin_files: single-file plugins, for worker processes to load.
        wanted: keys of tasks that are asked for beside the measurements of the cells.
    """

    suite: Suite
    tasks: Mapping[Key, Task]
    cells: tuple[Cell, ...]
    zoo: bool = True
    plugin_files: tuple[Path, ...] = ()
    wanted: tuple[Key, ...] = ()

    def status(self, store: _Shelf) -> dict[Key, Status]:
        """For each task: its result is there, will be made, or is taken from the zoo.

        A missing result that nothing missing depends on is `idle`: the records do not need it, so it is
        not made again. Only the measurements are always needed.
        """
        present = store.present(self.tasks)
        needed = self.needed(present)
        return {key: self._status(task, present, needed) for key, task in self.tasks.items()}

    def needed(self, present: set[Key]) -> set[Key]:
        """Keys of the tasks that have to run where the results in `present` are there."""
        needed: set[Key] = set()
        open_keys = [*self.wanted, *(cell.measure for cell in self.cells if cell.measure)]
        while open_keys:
            key = open_keys.pop()
            if key not in present and key not in needed:
                needed.add(key)
                if not self.is_ready_made(key):
                    open_keys.extend(self.tasks[key].inputs.values())
        return needed

    @cached_property
    def weights(self) -> dict[str, str]:
        """SHA-256 of each weights file that a net of the suite starts from or is, by the net's table."""
        found: dict[str, str] = {}
        for task in self.tasks.values():
            digest = task.params.get("start", {}).get("weights")
            if task.stage == "embedder":
                digest = task.params.get("weights")
            if digest is not None:
                found[{"train": "victim"}.get(task.stage, task.plugin)] = digest
        return dict(sorted(found.items()))

    def ancestors(self, key: Key) -> set[Key]:
        """Keys of all tasks that a task depends on."""
        found: set[Key] = set()
        open_keys = list(self.tasks[key].inputs.values())
        while open_keys:
            one = open_keys.pop()
            if one not in found:
                found.add(one)
                open_keys.extend(self.tasks[one].inputs.values())
        return found

    def is_ready_made(self, key: Key) -> bool:
        """Whether the task is a prior that lies in the zoo."""
        return self.zoo and self.tasks[key].stage == "prior" and in_zoo(key)

    def _status(self, task: Task, present: set[Key], needed: set[Key]) -> Status:
        if task.key in present:
            return "hit"
        if task.key not in needed:
            return "idle"
        return "zoo" if self.is_ready_made(task.key) else "run"


def build_plan(suite: Suite, *, zoo: bool = True) -> Plan:
    """The tasks and cells of a suite.

    Args:
        suite: what to plan.
        zoo: whether ready-made priors may be used.

    Raises:
        DataError: the suite's image folder cannot be read.
        SuiteError: an attack has adaptive options that could do nothing for it.
    """
    graph = Graph(suite)
    cells = []
    for seed in suite.seeds:
        for defense in suite.defenses:
            for attack in (one for one in suite.attacks if suite.meet(one, defense)):
                views = _views(suite, attack.plugin)
                cells += [_cell(graph, attack, defense, view, seed) for view in views]
    return Plan(suite, graph.tasks, tuple(cells), zoo, loaded_files())


def _views(suite: Suite, attack: Attack[Any]) -> tuple[str, ...]:
    return suite.white_box if issubclass(attack.needed_access, WhiteBoxVictim) else ("black-box",)


def _cell(graph: Graph, attack: Entry[Attack[Any]], defense: Entry[Defense], view: str, seed: int) -> Cell:
    """One cell and its tasks; a cell that makes no sense is blocked with the reason."""
    attack = _met(graph.suite, attack, defense.plugin, view)
    protected, others = graph.suite.targets.draw(graph.suite.data.private, seed)
    cell = Cell(attack=attack, defense=defense, view=view, seed=seed, protected=protected)
    try:
        models = tuple(
            _model(graph, cell, protects, targets)
            for protects, targets in divide(
                graph.suite.targets, protected, others, per_target=defense.plugin.per_target
            )
        )
    except BlockedError as error:
        return dataclasses.replace(cell, blocked=str(error))
    key = measure(graph, f"{attack.label} on {defense.label}", models, seed)
    return dataclasses.replace(cell, models=models, measure=key)


def _met(suite: Suite, attack: Entry[Attack[Any]], defense: Defense, view: str) -> Entry[Attack[Any]]:
    """The attack with the adaptive options with which it meets this defense in this view."""
    held: tuple[Defense, ...] = (defense,)
    if isinstance(defense, Composition) and view == "stripped":
        held = tuple(one for one in defense.parts if one.acts != "output")  # as if alone: its runs are shared
    weaknesses = frozenset[Weakness]().union(*(one.weaknesses for one in held))
    try:
        plugin = attack.plugin.against(weaknesses, held[0].acts, view)
    except ValueError as error:
        raise SuiteError(f"suite {suite.name}, attacks.{attack.label}: {error}") from error
    return dataclasses.replace(attack, plugin=plugin)


def divide(
    targets: Targets, protected: Labels, others: Labels, *, per_target: bool
) -> list[tuple[Labels, Labels]]:
    """Protected and attacked labels of each model; the bystanders of single-label models take turns."""
    if not per_target:
        return [(protected, (*protected, *others[: targets.attacked - targets.protected]))]
    count = targets.bystanders
    return [
        ((label,), (label, *(others[(i * count + j) % len(others)] for j in range(count))))
        for i, label in enumerate(protected)
    ]


def _model(graph: Graph, cell: Cell, protects: Labels, targets: Labels) -> Model:
    """The tasks of one protected model and of the attack on it."""
    attack, defense, seed = cell.attack.plugin, cell.defense.plugin, cell.seed
    train, output = graph.victim(attack, defense, cell.protected, protects, seed)
    if output is None:
        # without an output step the two white-box views are one, and so are their keys
        seen = Seen({"train": train}, "stripped" if cell.view == "deployed" else cell.view)
    else:
        seen = Seen(
            {"train": train} if cell.view == "stripped" else {"train": train, "output": output}, cell.view
        )
    prior = graph.attack_prior(attack, seed)
    adapt = graph.adapt(attack, prior, seen, seed)
    invert = graph.invert(attack, adapt or prior, seen, targets, seed)
    return Model(train=train, output=output, adapt=adapt, invert=invert, protects=protects, targets=targets)
