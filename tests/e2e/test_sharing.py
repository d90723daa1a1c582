"""A run on a store on which another process is at work: what it waits for, and what it does itself."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.lease import Leases
from mibench.plan import Plan, build_plan
from mibench.runner import Event, TaskDone, TaskElsewhere, TaskStarted, run
from mibench.store import Store
from mibench.suite import Suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]


def done(events: list[Event]) -> dict[str, str]:
    """How each stage's task came to be there."""
    return {event.task.stage: event.how for event in events if isinstance(event, TaskDone)}


def first_of(plan: Plan, stage: str) -> Task:
    return next(task for task in plan.tasks.values() if task.stage == stage)


def walk_beside(plan: Plan, store: Store, judge: Task, ends: Callable[[], None]) -> list[Event]:
    """Run while somebody else is at the judge, who ends when this run has nothing else to do."""
    events: list[Event] = []

    def watch(event: Event) -> None:
        events.append(event)
        if isinstance(event, TaskDone) and event.task.stage == "invert":
            threading.Timer(0.5, ends).start()

    records = run(plan, store, on_event=watch)
    assert [record.status for record in records] == ["ok"]
    (told,) = [event for event in events if isinstance(event, TaskElsewhere)]
    assert told.task == judge
    assert told.owner.startswith("process ")
    assert not list((store.root / "leases").glob("*.json"))
    return events


def test_what_another_process_ends_is_not_done_again(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    judge = first_of(plan, "judge")
    finished, store = Store(tmp_path / "finished"), Store(tmp_path / "store")
    run(plan, finished)
    artifact = finished.get(judge.key)
    assert artifact is not None
    with Leases(store.root) as other:
        assert other.take(judge.key) is not None

        def ends() -> None:
            store.put(judge.key, artifact)
            other.drop(judge.key)

        events = walk_beside(plan, store, judge, ends)
    how = done(events)
    assert how.pop("judge") == "elsewhere"
    assert set(how.values()) == {"ran"}
    assert judge not in [event.task for event in events if isinstance(event, TaskStarted)]


def test_what_another_process_gives_up_is_done_here(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    judge, store = first_of(plan, "judge"), Store(tmp_path / "store")
    with Leases(store.root) as other:
        assert other.take(judge.key) is not None
        events = walk_beside(plan, store, judge, lambda: other.drop(judge.key))
    assert set(done(events).values()) == {"ran"}


def test_interrupt_gives_the_leases_back(make_suite: MakeSuite, tmp_path: Path) -> None:
    held: list[int] = []
    folder = tmp_path / "store" / "leases"

    def interrupt(event: Event) -> None:
        if isinstance(event, TaskStarted):
            held.append(len(list(folder.glob("*.json"))))
            if len(held) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(build_plan(make_suite()), Store(tmp_path / "store"), on_event=interrupt)
    assert held == [1, 1, 1]
    assert not list(folder.glob("*.json"))


def test_store_that_holds_everything_need_not_be_writable(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    records = run(plan, Store(tmp_path / "store"))
    (tmp_path / "store" / "leases" / "lock").unlink()
    (tmp_path / "store" / "leases").rmdir()
    assert run(plan, Store(tmp_path / "store")) == records
    assert not (tmp_path / "store" / "leases").exists()
