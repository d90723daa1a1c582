"""A task that runs for longer than it may: it alone fails, and what ran beside it is not lost."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.plan import build_plan
from mibench.runner import Event, TaskDone, TaskFailed, run
from mibench.store import Store
from mibench.suite import Suite
from mibench.time_limit import KIND

MakeSuite = Callable[..., Suite]
_LIMIT_S = 15.0


@pytest.mark.parametrize("jobs", [1, 2])
def test_task_over_its_limit_fails_alone(make_suite: MakeSuite, tmp_path: Path, jobs: int) -> None:
    hung = {"file": str(tmp_path / "pid"), "steps": 100_000}
    plan = build_plan(make_suite(attacks={"toy_slow": hung, "toy_scores": {}}))
    events: list[Event] = []
    records = run(plan, Store(tmp_path / "store"), jobs=jobs, on_event=events.append, task_limit_s=_LIMIT_S)
    assert {record.attack["label"]: record.status for record in records} == {
        "toy_slow": "failed",
        "toy_scores": "ok",
    }
    (failed,) = [event for event in events if isinstance(event, TaskFailed)]
    assert failed.task.stage == "invert"
    assert failed.failure.type == KIND
    assert failed.failure.message.startswith(f"{failed.task.title}: ran for longer than 15s, the time limit")
    with pytest.raises(ProcessLookupError):  # nothing of it goes on
        os.kill(int((tmp_path / "pid").read_text("ascii")), 0)
    # the other cell is the one of a run without the hung attack and without a limit
    alone = build_plan(make_suite(attacks={"toy_scores": {}}))
    assert run(alone, Store(tmp_path / "alone")) == [records[1]]
    assert not list((tmp_path / "store" / "progress").glob("*.json"))


def test_task_within_its_limit_is_left_alone(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    events: list[Event] = []
    limited = run(plan, Store(tmp_path / "limited"), on_event=events.append, task_limit_s=120.0)
    assert limited == run(plan, Store(tmp_path / "free"))
    assert sum(isinstance(event, TaskDone) for event in events) == len(plan.tasks)
