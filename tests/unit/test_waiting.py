"""Tasks that wait: in which order they become ready, and how often the runner looks at them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mibench import runner, waiting
from mibench.plan import Plan, build_plan
from mibench.runner import run
from mibench.store import Artifact, Store
from mibench.suite import Suite
from mibench.task import Task
from mibench.waiting import Waiting
from mibench.worker import Job, Outcome

MEASURED: dict[str, Any] = {
    "estimates": {"aa": {"value": 0.5, "low": 0.1, "high": 0.9, "count": 2}},
    "judge_accuracy": 1.0,
    "audit_accuracy": None,
    "queries": {},
    "notes": {},
    "scrutiny": {
        "hits": {"0": "01"},
        "effort": [],
        "restarts": None,
        "rise": None,
        "silent_gradients": None,
    },
    "provenance": {},
}


class Nothing:
    """An executor whose tasks do nothing but leave an artifact."""

    jobs = 1

    def __init__(self, store: Store) -> None:
        self.store, self.ended = store, list[tuple[Job, Outcome | None]]()

    def submit(self, job: Job) -> None:
        value = MEASURED if job.task.stage == "measure" else {}
        self.store.put(job.task.key, Artifact({}, value, job.task.description()))
        self.ended.append((job, Outcome(job.task.key)))

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        ended, self.ended = self.ended, []
        return ended

    def stop(self) -> None:
        self.ended.clear()


@pytest.fixture
def plan(make_suite: Callable[..., Suite]) -> Plan:
    return build_plan(make_suite(attacks={"mean_face": {}}, seeds=[0]))


def line(plan: Plan, *, present: set[str] | None = None, **ranks: int) -> Waiting:
    """All tasks of a plan, ranked by stage."""
    rank = {key: ranks.get(task.stage, 0) for key, task in plan.tasks.items()}
    there = present or set()
    return Waiting(plan, plan.tasks.keys() - there, there, rank)


def ready(tasks: Waiting) -> list[Task]:
    """What could start in this turn; all of it stays for the next one."""
    tasks.turn()
    found = []
    while (task := tasks.first()) is not None:
        found.append(task)
        tasks.pass_over(task)
    return found


def test_only_what_reads_nothing_is_ready_at_first(plan: Plan) -> None:
    assert ready(line(plan)) == [task for task in plan.tasks.values() if not task.inputs]


def test_a_task_is_ready_once_all_that_it_reads_is_there(plan: Plan) -> None:
    tasks, done = line(plan), set[str]()
    while len(tasks):
        (task, *_) = found = ready(tasks)
        assert found == [
            one for one in plan.tasks.values() if one.key in tasks and done.issuperset(one.inputs.values())
        ]
        tasks.remove(task.key)
        tasks.made(task.key)
        done.add(task.key)
    assert done == set(plan.tasks)


def test_what_was_there_before_is_not_waited_for(plan: Plan) -> None:
    measure = plan.cells[0].measure
    assert [task.key for task in ready(line(plan, present=plan.tasks.keys() - {measure}))] == [measure]


def test_what_becomes_ready_meanwhile_waits_for_the_next_turn(plan: Plan) -> None:
    judge = next(key for key, task in plan.tasks.items() if task.stage == "judge")
    tasks = line(plan, judge=9)
    tasks.turn()
    for read in plan.tasks[judge].inputs.values():
        tasks.remove(read)
        tasks.made(read)
    first = tasks.first()
    assert first is not None
    assert first.key != judge
    assert ready(tasks)[0].key == judge


def test_higher_ranks_go_first_and_who_was_killed_last(plan: Plan) -> None:
    free = [task for task in plan.tasks.values() if not task.inputs]
    assert len(free) > 1
    rank = {key: number for number, key in enumerate(plan.tasks)}
    tasks = Waiting(plan, plan.tasks, (), rank)
    assert ready(tasks) == free[::-1]
    tasks.remove(free[-1].key)
    tasks.put_last(free[-1])
    assert ready(tasks) == [*free[-2::-1], free[-1]]


def test_what_is_given_up_is_not_ready(plan: Plan) -> None:
    tasks = line(plan)
    first = ready(tasks)[0]
    tasks.remove(first.key)
    assert first.key not in tasks
    assert first not in ready(tasks)
    assert first.key in {read for key in tasks.readers(first.key) for read in plan.tasks[key].inputs.values()}
    tasks.clear()
    assert ready(tasks) == []


class Steps:
    """Counts the steps of the interpreter in some files."""

    def __init__(self, *files: str) -> None:
        self.files, self.count = files, 0

    def __call__(self, frame: FrameType, event: str, _value: object) -> Steps | None:
        if frame.f_code.co_filename not in self.files:
            return None
        frame.f_trace_opcodes = True
        self.count += event == "opcode"
        return self


def steps_of(plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Steps within the runner and its queue for a run whose tasks do nothing."""
    monkeypatch.setattr("os.fsync", lambda _: None)
    store, steps = Store(folder), Steps(runner.__file__, waiting.__file__)
    before = sys.gettrace()
    sys.settrace(steps)
    try:
        run(plan, store, executor=lambda _: Nothing(store))
    finally:
        sys.settrace(before)
    return steps.count


def test_the_runner_takes_as_long_for_the_last_task_as_for_the_first(
    make_suite: Callable[..., Suite], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (
        build_plan(make_suite(attacks={"mean_face": {}}, seeds=list(range(seeds)))) for seeds in (4, 16)
    )
    few, many = (
        steps_of(plan, tmp_path / str(len(plan.tasks)), monkeypatch) / len(plan.tasks)
        for plan in (small, large)
    )
    assert len(large.tasks) > 3 * len(small.tasks)
    assert 0 < many < 1.05 * few
