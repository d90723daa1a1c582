"""How long a device waits while a task runs: torch's profiler over a window of it.

On CUDA a device is busy while one of its kernels or copies runs. A CPU is taken for busy while an operation
of torch runs, and for idle in what lies between: Python, reading, drawing. Watching costs time by itself,
nearly all of it between operations, so that a share is an upper bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
Progress = Callable[[int, int, dict[str, float]], None]
WINDOW_S = 1.0  # a window of many steps, whose events still fit into memory
_LEAST_S = 0.02  # a shorter window begins where a task reports for the last time: the whole is taken then


class _SeenEnoughError(Exception):
    """Ends a task whose window is over."""


@dataclass(frozen=True)
class Idle:
    """What a window showed.

    Args:
        share: of the window in which the device waited, in [0, 1].
        window_s: its length.
    """

    share: float
    window_s: float


class Window:
    """Watches from a task's first report on for WINDOW_S, or from its start where `is_whole`.

    Args:
        device: whose work is looked at.
        is_whole: whether to watch from the start to the end.
    """

    def __init__(self, device: torch.device, *, is_whole: bool = False) -> None:
        self.device, self.is_whole = device, is_whole
        self.seconds = 0.0
        self._profile: Any = None
        self._began = 0.0
        self._is_over = False

    def report(self, _done: int, _total: int, _values: dict[str, float]) -> None:
        """Take a task's report: begin, go on, or end, which ends the task too: its result is not wanted."""
        if self.is_whole or self._is_over:
            return
        if self._profile is None:
            self.begin()
        elif time.perf_counter() - self._began >= WINDOW_S:
            self.end()
            raise _SeenEnoughError

    def begin(self) -> None:
        """Begin to watch, once what was asked for before is done."""
        self._wait()
        kinds = [ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=kinds)
        self._profile.start()
        self._began = time.perf_counter()

    def end(self) -> None:
        """End the window, if it is open."""
        if self._profile is None or self._is_over:
            return
        self._wait()
        self.seconds = time.perf_counter() - self._began
        self._profile.stop()
        self._is_over = True

    def idle(self) -> Idle | None:
        """What was seen; None where the window was too short to see anything."""
        if not self._is_over or self.seconds < _LEAST_S:
            return None
        spans = _spans(self._profile.events(), self.device)
        busy_s = covered(spans) / 1e6  # the profiler counts microseconds
        return Idle(max(0.0, 1 - busy_s / self.seconds), self.seconds)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def watched(work: Callable[[Progress], T], device: torch.device) -> Idle | None:
    """The share of time that a device waits in a task; None where the task is too short to tell.

    Args:
        work: does the task, given what it shall report to; it may be called twice.
        device: where it computes.
    """
    for is_whole in (False, True):
        window = Window(device, is_whole=is_whole)
        if is_whole:
            window.begin()
        try:
            with suppress(_SeenEnoughError):
                work(window.report)
        finally:
            window.end()
        if (found := window.idle()) is not None:
            return found
    return None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end).

    >>> covered([(0, 2), (1, 3), (5, 6)])
    4.0
    """
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def _spans(events: Iterable[Any], device: torch.device) -> list[tuple[float, float]]:
    """When work of a device ran; marks that libraries set around Python code have no '::' in their names."""
    is_cuda = device.type == "cuda"
    of = "CUDA" if is_cuda else "CPU"
    return [
        (one.time_range.start, one.time_range.end)
        for one in events
        if one.device_type.name == of and (is_cuda or "::" in one.name)
    ]
