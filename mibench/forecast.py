"""What a run would do, as a table: tasks by stage, their state, and the time that they will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mibench.attack import Attack
from mibench.estimate import Estimates
from mibench.live import duration
from mibench.plan import Plan, Status
from mibench.power import sight_line
from mibench.store import Store
from mibench.task import Cell

_STATES: tuple[Status, ...] = ("hit", "zoo", "run", "idle")


def forecast(plan: Plan, store: Store) -> RenderableType:
    """The tasks of a plan by stage, its cells, and the seconds that similar tasks took before."""
    status = plan.status(store)
    estimates = Estimates.of_store(store)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for heading in (*_STATES, "seconds"):
        table.add_column(heading, justify="right")
    counts = Counter((task.stage, status[key]) for key, task in plan.tasks.items())
    total, unknown = 0.0, 0
    for stage in dict.fromkeys(task.stage for task in plan.tasks.values()):
        runs = [task for key, task in plan.tasks.items() if task.stage == stage and status[key] == "run"]
        known = [seconds for task in runs if (seconds := estimates.known(task)) is not None]
        total, unknown = total + sum(known), unknown + len(runs) - len(known)
        cells = [str(counts[stage, state] or "") for state in _STATES]
        table.add_row(stage, *cells, _seconds(sum(known), len(runs), len(known)))
    return Group(table, Text(), Text(_cells(plan)), Text(_time(total, unknown)), Text(sight(plan)))


def sight(plan: Plan) -> str:
    """The smallest difference in AA that the plan's paired comparison can see, in one line.

    Compared under each attack are the defenses whose runs are not the very run of no defense, as in
    `mibench.report.paired`, and in the worst case over attacks all.
    """
    cells = [cell for cell in plan.cells if cell.models and _finds_people(cell.attack.plugin)]
    plain = {_runs(cell) for cell in cells if cell.defense.plugin.acts == "nothing"}
    rivals: dict[tuple[str, str], set[str]] = defaultdict(set)
    for cell in cells:
        if plain and cell.defense.plugin.acts != "nothing":
            if _runs(cell) not in plain:
                rivals[cell.attack.label, cell.view].add(cell.defense.label)
            rivals["", ""].add(cell.defense.label)
    people = sum({cell.seed: len(cell.protected) for cell in plan.cells}.values())
    return sight_line(people, plan.suite.targets.images, (len(names) for names in rivals.values()))


def _finds_people(attack: Attack[Any]) -> bool:
    """Whether its hits are compared: it is no control, and looks for people and not for single images."""
    return not attack.control and attack.params().get("goal") != "instance"


def _runs(cell: Cell) -> tuple[str, ...]:
    """Keys of the inversions of a cell."""
    return tuple(model.invert for model in cell.models)


def _seconds(seconds: float, runs: int, known: int) -> str:
    if runs == 0:
        return ""
    if known == 0:
        return "?"
    return f"{seconds:.0f}" if known == runs else f"{seconds:.0f} + ?"


def _cells(plan: Plan) -> str:
    blocked = [cell for cell in plan.cells if cell.blocked]
    suite = plan.suite
    seeds = "1 seed" if len(suite.seeds) == 1 else f"{len(suite.seeds)} seeds"
    lines = [
        f"{len(plan.cells)} cells: {len(suite.attacks)} attacks, {len(suite.defenses)} defenses, {seeds}; "
        f"{len(blocked)} blocked."
    ]
    lines += [f"  {cell.attack.label} on {cell.defense.label}: {cell.blocked}" for cell in blocked]
    return "\n".join(lines)


def _time(seconds: float, unknown: int) -> str:
    if unknown and not seconds:
        return f"How long is not known: none of the kinds of the {unknown} tasks ever ran here."
    rest = f"; {unknown} tasks are of a kind that never ran here" if unknown else ""
    return f"About {duration(seconds)} on one worker, judged by earlier runs{rest}."
