"""List scheduling: what bounds it, and a graph whose end is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mibench.plan import build_plan
from mibench.schedule import makespan
from mibench.suite import Suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]


def chain(*reads: tuple[int, ...]) -> list[Task]:
    """Tasks that read earlier ones by their places."""
    tasks: list[Task] = []
    for i, places in enumerate(reads):
        inputs = {f"in{at}": tasks[at].key for at in places}
        tasks.append(
            Task(stage="train", plugin=f"p{i}", params={}, inputs=inputs, seed=0, noise="", title=str(i))
        )
    return tasks


def test_a_chain_gains_nothing_from_workers_and_branches_do() -> None:
    tasks = chain((), (0,), (0,), (1, 2))
    by_key = {task.key: task for task in tasks}
    seconds = {task.key: cost for task, cost in zip(tasks, (1.0, 5.0, 3.0, 2.0), strict=True)}
    assert makespan(by_key, seconds, seconds, 1) == 11.0
    assert makespan(by_key, seconds, seconds, 2) == 8.0  # 1 + 5 + 2, and the 3 beside the 5
    assert makespan(by_key, {tasks[3].key}, seconds, 2) == 2.0  # all else is there
    assert makespan(by_key, set(), seconds, 2) == 0.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(data=st.data(), jobs=st.integers(1, 5))
def test_it_lies_between_the_bounds_of_any_list_schedule(
    make_suite: MakeSuite, data: st.DataObject, jobs: int
) -> None:
    plan = build_plan(make_suite(attacks={"toy_scores": {}, "toy_gradient": {}}))
    costs = data.draw(st.lists(st.floats(0.1, 100), min_size=len(plan.tasks), max_size=len(plan.tasks)))
    seconds = dict(zip(plan.tasks, costs, strict=True))
    total = sum(costs)
    longest: dict[str, float] = {}
    for key, task in plan.tasks.items():
        longest[key] = seconds[key] + max((longest[read] for read in task.inputs.values()), default=0.0)
    least = max(total / jobs, *longest.values())
    found = makespan(plan.tasks, set(plan.tasks), seconds, jobs)
    assert found >= least * (1 - 1e-9)
    assert found <= (total / jobs + (1 - 1 / jobs) * max(longest.values())) * (1 + 1e-9)
    assert found == pytest.approx(makespan(plan.tasks, set(plan.tasks), seconds, jobs))
