"""Time and memory of a board's rows: what tonight's tasks took against what such tasks took before, here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from mibench.boards.board import Alarms
from mibench.boards.ledger import Pace
from mibench.boards.regress import Evidence, Place
from mibench.key import Key
from mibench.plan import Plan

Costs = Mapping[Key, Mapping[str, Any]]
"""Lines of costs.jsonl by key."""
Paces = dict[str, dict[str, Pace]]


def rows_of_tasks(plan: Plan) -> dict[Key, set[str]]:
    """For each task the labels of the defenses whose cells need it."""
    found: dict[Key, set[str]] = defaultdict(set)
    for cell in plan.cells:
        if cell.measure:
            for key in {cell.measure, *plan.ancestors(cell.measure)}:
                found[key].add(cell.defense.label)
    return found


def own_tasks(plan: Plan) -> dict[str, list[Key]]:
    """By defense the tasks that it alone needs, in plan order."""
    found: dict[str, list[Key]] = defaultdict(list)
    rows = rows_of_tasks(plan)
    for key in plan.tasks:
        if len(names := rows.get(key, set())) == 1:
            found[next(iter(names))].append(key)
    return found


def spent(keys: Iterable[Key], costs: Costs) -> tuple[float | None, float | None]:
    """Seconds of tasks together, and the largest memory in MiB of any; None where nothing is known."""
    known = [costs[key] for key in keys if key in costs]
    peaks = [float(one.get("peak_mib") or 0.0) for one in known]
    return (sum(float(one["wall_s"]) for one in known), max(peaks)) if known else (None, None)


def paces(plan: Plan, ran: Iterable[Key], costs: Costs) -> Paces:
    """By row and by name of the task what the given tasks took, those alone that one row alone needs.

    A task's name is its stage and its title: its key changes with its plugin's source. The seeds of one
    name are summed.
    """
    fresh = set(ran)
    found: Paces = {}
    for row, keys in own_tasks(plan).items():
        for key in keys:
            cost = costs.get(key)
            if key not in fresh or cost is None:
                continue
            task = plan.tasks[key]
            own = found.setdefault(row, {})
            name = f"{task.stage}: {task.title}"
            own[name] = _sum(own.get(name), cost)
    return found


def _sum(known: Pace | None, cost: Mapping[str, Any]) -> Pace:
    """One more task of a name."""
    work = cost.get("work")
    one = Pace(
        wall_s=float(cost["wall_s"]),
        work=None if work is None else float(work),
        peak_mib=float(cost.get("peak_mib") or 0.0),
    )
    if known is None:
        return one
    both = None if one.work is None or known.work is None else one.work + known.work
    return Pace(wall_s=one.wall_s + known.wall_s, work=both, peak_mib=max(one.peak_mib, known.peak_mib))


def compare(levels: Paces, tonight: Paces, rules: Alarms) -> dict[Place, Evidence]:
    """For each row that was timed tonight whether it was slower, or took more memory, than the level.

    Only tasks of a name that both have are compared; seconds of tasks of another size are scaled by work.

    Args:
        levels: by row and name what earlier tasks took.
        tonight: likewise, of tonight's tasks.
        rules: factors, and what is too little to count.
    """
    found: dict[Place, Evidence] = {}
    for row, own in tonight.items():
        both = levels.get(row, {}).keys() & own.keys()
        if not both:
            continue
        pairs = [(levels[row][name], own[name]) for name in sorted(both)]
        before = sum(old.wall_s * _growth(old, new) for old, new in pairs)
        now = sum(new.wall_s for _, new in pairs)
        slower = now > rules.slower * before and max(before, now) >= rules.least_s
        found["defense", row, "wall_s"] = Evidence(is_worse=slower, before=before, now=now)
        old_mib, new_mib = (max(pair[i].peak_mib for pair in pairs) for i in (0, 1))
        larger = new_mib > rules.larger * old_mib and new_mib - old_mib >= rules.least_mib
        found["defense", row, "peak_mib"] = Evidence(
            is_worse=larger and old_mib > 0, before=old_mib, now=new_mib
        )
    return found


def _growth(old: Pace, new: Pace) -> float:
    return new.work / old.work if old.work and new.work else 1.0


def learn(levels: Paces, tonight: Paces, suspicious: set[str]) -> None:
    """Take what tonight's tasks took as the new level, but for suspicious rows, which keep theirs."""
    for row, own in tonight.items():
        known = levels.setdefault(row, {})
        for name, pace in own.items():
            if row not in suspicious or name not in known:
                known[name] = pace
