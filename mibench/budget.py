"""Which cells of a plan fit a budget of time: whole ones, in an order in which every budget compares."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from mibench.errors import BudgetError
from mibench.key import Key
from mibench.plan import Plan
from mibench.schedule import makespan
from mibench.task import Cell, Task

_UNITS = {"h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_FORM = re.compile(r"(?:\d+(?:\.\d+)?(?:h|min|m|s))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|min|m|s)")
_TIER = 4.0  # cells of up to so many times the cost stand in one tier

_Name = tuple[int, str, str]  # seed, attack, defense


@dataclass(frozen=True)
class LeftOut:
    """A cell that a run leaves out.

    Args:
        cell: of the full plan.
        why: a few words, for people.
    """

    cell: Cell
    why: str


@dataclass(frozen=True)
class Choice:
    """What of a plan fits a budget.

    Args:
        plan: with the chosen cells alone.
        left_out: the others, in plan order.
        seconds: what the chosen ones will take, by estimates.
        budget_s: the budget.
    """

    plan: Plan
    left_out: tuple[LeftOut, ...]
    seconds: float
    budget_s: float


@dataclass(frozen=True)
class _Unit:
    """The cells of one attack on one defense with one seed, in all views: none of them stands alone."""

    cells: tuple[int, ...]
    todo: frozenset[Key]
    tier: int
    is_baseline: bool
    place: tuple[int, int, int]  # of seed, attack, defense


def parse_duration(text: str, *, of: str = "budget") -> float:
    """Seconds of a duration such as `2h`, `90m`, `45s`, `1h30m`.

    >>> parse_duration("1h30m"), parse_duration("1.5h"), parse_duration("45s")
    (5400.0, 5400.0, 45.0)

    Args:
        text: what was given.
        of: what it is the duration of, for the message.

    Raises:
        BudgetError: it is none, or not above 0.
    """
    plain = text.strip().lower().replace(" ", "")
    found = _PART.findall(plain) if _FORM.fullmatch(plain) else []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in found)
    if not 0 < seconds < math.inf:
        raise BudgetError(f"{of} '{text}': is no duration above 0. Write 2h, 90m, 45s or 1h30m.")
    return seconds


def within(
    plan: Plan, present: Collection[Key], seconds: Callable[[Task], float], budget_s: float, jobs: int = 1
) -> Choice:
    """The part of a plan that fits a budget; a larger budget never drops what a smaller one has.

    Cells are taken in a fixed order until one does not fit. Cheap ones come first, by powers of four of
    what each would cost alone with its undefended baseline, so that a single huge one cannot block all. Among
    those of about one cost each attack's baseline comes first, then the defenses take turns: all of them
    against the first attack, then against the second, so that columns stay comparable. No defended cell
    comes without its baseline. What costs nothing is always in.

    Args:
        plan: all cells.
        present: keys of the results that are there.
        seconds: estimate of a task.
        budget_s: wall time, > 0.
        jobs: tasks that run at once.
    """
    there = set(present)
    cost = _Costs(plan, seconds, jobs)
    needs = [frozenset(dataclasses.replace(plan, cells=(c,)).needed(there)) for c in plan.cells]
    chosen = {i for i, need in enumerate(needs) if not need}
    taken: set[Key] = set(dataclasses.replace(plan, cells=()).needed(there))
    spent, missed, first = cost.wall(taken), "", True
    for unit in sorted(_units(plan, needs, cost), key=_order):
        wall = cost.wall(taken | unit.todo) if first else math.inf
        if wall <= budget_s:
            taken |= unit.todo
            spent = wall
            chosen |= set(unit.cells)
        elif first:
            first, missed = False, _missed(plan, unit, wall, budget_s)
    chosen |= {i for i, need in enumerate(needs) if need <= taken and _has_baseline(plan, i, needs, taken)}
    left = tuple(LeftOut(cell, missed) for i, cell in enumerate(plan.cells) if i not in chosen)
    cells = tuple(cell for i, cell in enumerate(plan.cells) if i in chosen)
    return Choice(dataclasses.replace(plan, cells=cells), left, spent, budget_s)


class _Costs:
    """Seconds of tasks, asked for once each."""

    def __init__(self, plan: Plan, seconds: Callable[[Task], float], jobs: int) -> None:
        self.plan, self.jobs = plan, jobs
        self.of = {key: 0.0 if plan.is_ready_made(key) else seconds(task) for key, task in plan.tasks.items()}

    def total(self, keys: Collection[Key]) -> float:
        return math.fsum(self.of[key] for key in keys)

    def wall(self, keys: Collection[Key]) -> float:
        return makespan(self.plan.tasks, keys, self.of, self.jobs)


def _units(plan: Plan, needs: list[frozenset[Key]], cost: _Costs) -> Iterator[_Unit]:
    """The cells by attack, defense and seed; each unit needs what its baseline needs too."""
    groups: dict[_Name, list[int]] = {}
    for i, cell in enumerate(plan.cells):
        groups.setdefault(_name(cell), []).append(i)
    seeds, attacks, defenses = ({name: i for i, name in enumerate(names)} for names in _names(plan))
    for (seed, attack, defense), cells in groups.items():
        base = _baseline(plan, seed, attack)
        todo = frozenset[Key]().union(*(needs[i] for i in {*cells, *base}))
        tier = math.ceil(math.log(max(1.0, cost.total(todo)), _TIER))
        place = (seeds[seed], attacks[attack], defenses[defense])
        yield _Unit(tuple(cells), todo, tier, set(cells) == set(base), place)


def _order(unit: _Unit) -> tuple[int, int, bool, int, int]:
    seed, attack, defense = unit.place
    return unit.tier, seed, not unit.is_baseline, attack, defense


def _name(cell: Cell) -> _Name:
    return cell.seed, cell.attack.label, cell.defense.label


def _names(plan: Plan) -> tuple[list[int], list[str], list[str]]:
    cells = plan.cells
    return (
        list(dict.fromkeys(cell.seed for cell in cells)),
        list(dict.fromkeys(cell.attack.label for cell in cells)),
        list(dict.fromkeys(cell.defense.label for cell in cells)),
    )


def _baseline(plan: Plan, seed: int, attack: str) -> list[int]:
    """Indices of the cells of the first column without a defense; none where the suite has no such column."""
    plain = [
        (cell.defense.label, i)
        for i, cell in enumerate(plan.cells)
        if (cell.seed, cell.attack.label) == (seed, attack) and cell.defense.plugin.acts == "nothing"
    ]
    return [i for label, i in plain if label == plain[0][0]]


def _has_baseline(plan: Plan, index: int, needs: list[frozenset[Key]], taken: set[Key]) -> bool:
    cell = plan.cells[index]
    same = [i for i, other in enumerate(plan.cells) if _name(other) == _name(cell)]
    return all(needs[i] <= taken for i in [*same, *_baseline(plan, cell.seed, cell.attack.label)])


def _missed(plan: Plan, unit: _Unit, wall: float, budget_s: float) -> str:
    """Why the first unit that does not fit, and all after it, are left out."""
    cell = plan.cells[unit.cells[0]]
    return (
        f"with {cell.attack.label} on {cell.defense.label}, the next in order, the run would take about "
        f"{wall:.0f} s of a budget of {budget_s:.0f} s"
    )
