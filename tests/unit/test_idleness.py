"""The share of time that a device waits: of a task that computes, sleeps, reports or does not."""

from __future__ import annotations

import time

import pytest
import torch

from mibench import idleness
from mibench.idleness import Progress, covered, watched

CPU = torch.device("cpu")


def compute(seconds: float) -> None:
    one, until = torch.ones(400, 400), time.perf_counter() + seconds
    while time.perf_counter() < until:
        torch.mm(one, one)


@pytest.mark.parametrize(
    ("spans", "length"),
    [([], 0), ([(1, 2)], 1), ([(0, 4), (1, 2)], 4), ([(3, 5), (0, 2), (1, 4)], 5), ([(0, 1), (2, 3)], 2)],
)
def test_covered_is_the_length_of_the_union(spans: list[tuple[float, float]], length: float) -> None:
    assert covered(spans) == length


def test_a_task_that_sleeps_is_idle_and_one_that_computes_is_not() -> None:
    asleep = watched(lambda _: time.sleep(0.1), CPU)
    busy = watched(lambda _: compute(0.3), CPU)
    assert asleep is not None
    assert busy is not None
    assert asleep.share > 0.95
    assert busy.share < 0.5
    assert asleep.window_s >= 0.1


def test_the_window_begins_at_the_first_report_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idleness, "WINDOW_S", 0.1)
    calls = []

    def task(report: Progress) -> None:
        calls.append(1)
        time.sleep(0.3)  # before the first report: not looked at
        report(0, 3, {})
        compute(0.2)
        report(1, 3, {})
        calls.append(2)

    found = watched(task, CPU)
    assert found is not None
    assert calls == [1]  # and not its end, since what it gives is not wanted
    assert 0.15 < found.window_s < 0.5
    assert found.share < 0.5


def test_a_task_that_reports_once_is_watched_as_a_whole() -> None:
    calls = []

    def task(report: Progress) -> None:
        calls.append(1)
        compute(0.1)
        report(1, 1, {})

    found = watched(task, CPU)
    assert found is not None
    assert len(calls) == 2
    assert found.window_s >= 0.1


def test_a_task_that_is_over_at_once_tells_nothing() -> None:
    assert watched(lambda _: None, CPU) is None


def test_a_failing_task_leaves_no_profiler_behind() -> None:
    def task(report: Progress) -> None:
        report(0, 2, {})
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        watched(task, CPU)
    assert watched(lambda _: compute(0.05), CPU) is not None
