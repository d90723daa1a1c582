"""What a run looks like: plain lines for files, bars for terminals, and the time that is left."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mibench.estimate import Estimates
from mibench.live import Live, duration
from mibench.plan import Plan, build_plan
from mibench.recording import Failure, failed_record
from mibench.runner import CellDone, TaskDone, TaskElsewhere, TaskFailed, TaskProgress, TaskStarted
from mibench.store import Artifact, Store
from mibench.suite import Suite
from mibench.worker import find_device

MakeSuite = Callable[..., Suite]


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    return build_plan(make_suite())


def live(plan: Plan, *, jobs: int = 1, terminal: bool = False) -> tuple[Live, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    watch = Live(plan, console, jobs=jobs, estimates=Estimates(), todo=set(plan.tasks))
    return watch, text


def test_lines_tell_what_ran_what_failed_and_what_became_of_the_cell(plan: Plan) -> None:
    watch, text = live(plan)
    first, second, *_ = plan.tasks.values()
    failure = Failure("invert", "ValueError", "no [red]luck")
    with watch:
        watch(TaskStarted(first))
        watch(TaskProgress(first, 1, 2, {"loss": 0.5}))
        watch(TaskDone(first, "ran", 3.21))
        watch(TaskDone(second, "hit"))
        watch(TaskFailed(list(plan.tasks.values())[-1], failure))
        cell = plan.cells[0]
        watch(CellDone(cell, failed_record(plan, cell, failure, find_device("cpu"))))
    lines = text.getvalue().splitlines()
    assert lines[0] == f"   3.2 s  {first.title}"
    assert lines[1].endswith(": ValueError: no [red]luck")
    assert lines[2] == "  failed  toy_scores on none: no [red]luck"
    assert len(lines) == 3
    assert watch.title == "1 of 1 cells, 1 failed"


def test_a_terminal_gets_no_orders_from_what_a_plugin_raises(plan: Plan) -> None:
    for terminal in (False, True):
        watch, text = live(plan, terminal=terminal)
        failure = Failure("invert", "ValueError", "\x1b]0;owned\x07bad\nluck\x1b[2J")
        with watch:
            watch(TaskFailed(next(iter(plan.tasks.values())), failure))
        told = text.getvalue()
        assert "owned" in told
        assert "\x07" not in told
        assert "\x1b]0" not in told
        assert "\x1b[2J" not in told


def test_lines_tell_what_another_process_is_at(plan: Plan) -> None:
    watch, text = live(plan)
    task = next(iter(plan.tasks.values()))
    with watch:
        watch(TaskElsewhere(task, "process 7 on far"))
        left = len(watch.todo)
        watch(TaskDone(task, "elsewhere"))
    assert text.getvalue().splitlines() == [
        f"    wait  {task.title} (process 7 on far is at it)",
        f"   there  {task.title}",
    ]
    assert len(watch.todo) == left - 1


def test_a_line_names_the_view_where_there_are_two(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, white_box=["stripped", "deployed"]))
    watch, text = live(plan)
    with watch:
        for cell in plan.cells:
            failure = Failure("invert", "ValueError", "no luck")
            watch(CellDone(cell, failed_record(plan, cell, failure, find_device("cpu"))))
    assert [line.split(": ")[0].strip() for line in text.getvalue().splitlines()] == [
        "failed  toy_gradient on none (stripped)",
        "failed  toy_gradient on none (deployed)",
    ]


def test_a_terminal_shows_running_tasks_with_their_losses(plan: Plan) -> None:
    watch, text = live(plan, terminal=True)
    task = next(iter(plan.tasks.values()))
    with watch:
        watch(TaskStarted(task))
        watch(TaskProgress(task, 1, 4, {"loss": 0.123456}))
        watch.progress.refresh()
        shown = text.getvalue()
        watch(TaskDone(task, "ran", 1.0))
    assert task.title in shown
    assert "loss 0.123" in shown


def test_time_left_follows_what_was_learned_and_the_number_of_workers(plan: Plan) -> None:
    watch, _ = live(plan)
    assert watch.left_s() is None
    for task in plan.tasks.values():
        watch.estimates.learn(task, 2.0)
    count = len(plan.tasks)
    assert watch.left_s() == pytest.approx(2.0 * count)
    pair, _ = live(plan, jobs=2)
    pair.estimates = watch.estimates
    assert pair.left_s() == pytest.approx(count)
    watch(TaskDone(next(iter(plan.tasks.values())), "ran", 2.0))
    assert watch.left_s() == pytest.approx(2.0 * (count - 1))


def test_estimates_prefer_equal_parameters_then_the_plugin_then_a_guess(plan: Plan) -> None:
    train = next(task for task in plan.tasks.values() if task.stage == "train")
    other = dataclasses.replace(train, params={**train.params, "defense": {"x": 1}})
    stranger = dataclasses.replace(train, plugin="stranger")
    estimates = Estimates()
    assert estimates.seconds(train) is None
    estimates.learn(train, 4.0)
    estimates.learn(other, 8.0)
    assert estimates.known(train) == 4.0
    third = dataclasses.replace(train, params={})
    assert estimates.known(third) == 6.0
    assert estimates.known(stranger) is None
    assert estimates.seconds(stranger) == 6.0  # a training, and trainings took 6 s


def test_estimates_are_read_from_the_store(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    task = next(iter(plan.tasks.values()))
    store.put(task.key, Artifact(task=task.description()))
    store.put_cost(task.key, {"wall_s": 1.5})
    (store.folder("ab" * 32)).mkdir(parents=True)
    (store.folder("ab" * 32) / "cost.json").write_text("{", encoding="utf-8")
    assert Estimates.of_store(store).known(task) == 1.5


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 99, 150, 9000)] == ["0 s", "99 s", "2.5 min", "2.5 h"]
