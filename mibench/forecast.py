"""What a run would do, as a table: tasks by stage, their state, and the time that they will take."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mibench.attack import Attack
from mibench.estimate import Estimates, Expected
from mibench.live import duration
from mibench.plan import Plan, Status
from mibench.power import sight_line
from mibench.schedule import makespan
from mibench.store import Store
from mibench.task import Cell
from mibench.wording import counted

_STATES: tuple[Status, ...] = ("hit", "zoo", "run", "idle")


def forecast(
    plan: Plan, store: Store, *, jobs: int = 1, device: str = "", results: Path | None = None
) -> RenderableType:
    """The tasks of a plan by stage with seconds and memory, its cells, and the time that all will take.

    Args:
        plan: what would be run.
        store: where results may lie already.
        jobs: tasks that run at once.
        device: type of device; empty judges by the past of all.
        results: parent of the results folders, whose costs tell of what the store does not know.
    """
    status = plan.status(store)
    estimates = Estimates.of_store(store, device=device, results=results, tasks=plan.tasks)
    expected = {key: estimates.expect(task) for key, task in plan.tasks.items() if status[key] == "run"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    unit = "GPU seconds" if device == "cuda" else "seconds"
    for heading in (*_STATES, unit, "within", "peak MiB"):
        table.add_column(heading, justify="right")
    counts = Counter((task.stage, status[key]) for key, task in plan.tasks.items())
    for stage in dict.fromkeys(task.stage for task in plan.tasks.values()):
        runs = [one for key, one in expected.items() if plan.tasks[key].stage == stage]
        cells = [str(counts[stage, state] or "") for state in _STATES]
        table.add_row(stage, *cells, *_numbers(runs))
    wall = makespan(plan.tasks, expected, {key: one.seconds for key, one in expected.items()}, jobs)
    time = _time(list(expected.values()), wall, jobs)
    return Group(table, Text(), Text(_cells(plan)), Text(time), Text(sight(plan)))


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
    attacked = {(label, cell.seed) for cell in plan.cells for label in cell.protected}
    # who is protected in several seeds counts once in the test, with more images
    people = len({label for label, _ in attacked})
    images = plan.suite.targets.images * (len(attacked) // max(1, people))
    return sight_line(people, images, (len(names) for names in rivals.values()))


def _finds_people(attack: Attack[Any]) -> bool:
    """Whether its hits are compared: it is no control, and looks for people and not for single images."""
    return not attack.control and attack.params().get("goal") != "instance"


def _runs(cell: Cell) -> tuple[str, ...]:
    """Keys of the inversions of a cell."""
    return tuple(model.invert for model in cell.models)


def _numbers(runs: Sequence[Expected]) -> tuple[str, str, str]:
    """Seconds, the factor within which each task probably stays, peak memory; empty where nothing runs."""
    if not runs:
        return "", "", ""
    total = sum(one.seconds for one in runs)
    spread = sum(one.seconds * one.spread for one in runs) / total
    peak = max(one.peak_mib for one in runs)
    guessed = "?" if any(one.basis == "guess" for one in runs) else ""
    return f"{total:.0f}{guessed}", f"x {spread:.1f}", f"{peak:.0f}" if peak else "?"


def _cells(plan: Plan) -> str:
    blocked = [cell for cell in plan.cells if cell.blocked]
    suite = plan.suite
    sizes = ((suite.attacks, "attack"), (suite.defenses, "defense"), (suite.seeds, "seed"))
    told = ", ".join(counted(len(some), word) for some, word in sizes)
    lines = [f"{counted(len(plan.cells), 'cell')}: {told}; {len(blocked)} blocked."]
    lines += [f"  {cell.attack.label} on {cell.defense.label}: {cell.blocked}" for cell in blocked]
    return "\n".join(lines)


def _time(expected: Sequence[Expected], wall: float, jobs: int) -> str:
    """How long all will take, and what that is judged by."""
    if not expected:
        return "Nothing to compute: all measurements are there."
    total = duration(sum(one.seconds for one in expected))
    workers = "one worker" if jobs == 1 else f"{jobs} workers, {total} of work"
    guesses = sum(one.basis == "guess" for one in expected)
    if guesses == len(expected):
        return (
            f"How long is not known: none of the kinds of the {guesses} tasks ever ran here. "
            f"A rough guess is {duration(wall)} on {workers}."
        )
    by_stage = sum(one.basis == "stage" for one in expected)
    abroad = sum(not one.is_here for one in expected)
    asides = [
        f"{count} {'task' if count == 1 else 'tasks'} {words}"
        for count, words in (
            (by_stage, "by others of the stage alone"),
            (guesses, "guessed, since none of the kind ever ran here"),
            (abroad, "by a run on another machine"),
        )
        if count
    ]
    rest = f"; {', '.join(asides)}" if asides else ""
    return f"About {duration(wall)} on {workers}, judged by earlier runs{rest}."
