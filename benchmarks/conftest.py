"""How long something takes as it grows: the same work at several sizes, and the exponent of its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

torch.set_num_threads(1)

ROUNDS = 3
LEAST_S = 0.005  # of what is timed at once, far above what a clock and a call take
Work = Callable[[], object]
Make = Callable[[int], Work]
Grow = Callable[..., None]


@pytest.fixture
def grow(benchmark: BenchmarkFixture) -> Grow:
    """Times what `make(size)` gives at each size; see `measure` within."""

    def measure(
        make: Make, sizes: Sequence[int], *, most: float, of: str, unit: str = "", rounds: int = ROUNDS
    ) -> None:
        """Leave seconds by size and their exponent beside the benchmark, and hold the exponent to a bound.

        Times are seconds of CPU time of this process, of the fastest of `rounds` rounds, in which the sizes
        take turns; what else the machine does moves them least so.

        Args:
            make: what is to be timed at a size; that itself is not timed.
            sizes: rising.
            most: the exponent above which the work is done in a wrong way.
            of: what the sizes count.
            unit: what is done a second: `images` leaves `images_per_s`; empty leaves no rate.
            rounds: how often each size is timed, >= 1.
        """
        if not benchmark.enabled:
            benchmark(make(sizes[0]))
            return
        works = {size: make(size) for size in sizes}
        works[sizes[0]]()  # a first call loads libraries
        taken: dict[int, list[float]] = {size: [] for size in sizes}

        def turn() -> None:
            for size, work in works.items():
                taken[size].append(cpu_s(work))

        benchmark.pedantic(turn, rounds=rounds)
        seconds = {size: min(own) for size, own in taken.items()}
        exponent = slope(seconds)
        info: dict[str, Any] = {"cpu_s": {str(size): one for size, one in seconds.items()}, "of": of}
        if unit:
            info[f"{unit}_per_s"] = sizes[-1] / seconds[sizes[-1]]
        benchmark.extra_info.update({**info, "exponent": exponent, "most": most})
        assert exponent <= most, f"{exponent:.2f} > {most}: {seconds}"

    return measure


def cpu_s(work: Work) -> float:
    """Seconds of this process's CPU time that a call takes, over as many calls as fill LEAST_S."""
    calls, began = 0, time.process_time()
    while (spent := time.process_time() - began) < LEAST_S:
        work()
        calls += 1
    return spent / calls


def slope(seconds: dict[int, float]) -> float:
    """The exponent b of time ~ size^b: least squares of log time over log size."""
    x, y = np.log(list(seconds)), np.log(list(seconds.values()))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
