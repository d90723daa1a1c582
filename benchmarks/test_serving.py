"""What it costs to ask a victim in another process: images a second here and there, and to start one.

    OMP_NUM_THREADS=1 pytest benchmarks/test_serving.py --benchmark-enable

Images a second stand in `extra_info` (`--benchmark-json FILE`). The victim and the socket are those of a run;
what answers is a thread of this process, so that CPU time counts both ends. All times are CPU time, which
what else the machine does moves least.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from mibench.defense import Released
from mibench.fresh_process import start
from mibench.nets import NetSpec, build
from mibench.served_attack import Remote
from mibench.serving import _FROM_ATTACK, _Counter
from mibench.stages.attacking import Held
from mibench.victim import ScoreVictim, freeze
from mibench.wire import Line

torch.set_num_threads(1)

CLASSES, ROWS = 200, 256
SIZES = {"mlp": 32, "small_vgg": 32, "small_resnet": 64}


def victim(name: str) -> tuple[Released, tuple[int, int, int]]:
    size = SIZES[name]
    net = build(NetSpec(name=name, size=size, num_classes=CLASSES), torch.Generator().manual_seed(0))
    freeze(net)
    return Released(net), (3, size, size)


def images(shape: tuple[int, int, int]) -> Tensor:
    return torch.rand(ROWS, *shape, generator=torch.Generator().manual_seed(1))


@contextlib.contextmanager
def served(released: Callable[[Tensor], Tensor], shape: tuple[int, int, int]) -> Iterator[Remote]:
    """What asks a victim over a socket; a thread answers as the process with the victim does."""
    ours, theirs = socket.socketpair()
    holder = ScoreVictim(released, shape=shape, num_classes=CLASSES)
    counter = _Counter(cast(Held, SimpleNamespace(victim=holder, released=released)), "score")
    line = Line(ours)

    def answer() -> None:
        with contextlib.suppress(EOFError):
            while True:
                counter.answer(line.receive(_FROM_ATTACK), line)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    asks = Line(theirs)
    try:
        yield Remote(asks, CLASSES)
    finally:
        asks.close()
        thread.join()
        line.close()


def cpu_s_of_children() -> float:
    """CPU seconds of the processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def tell(benchmark: BenchmarkFixture) -> None:
    if benchmark.enabled:
        benchmark.extra_info["images_per_s"] = ROWS / benchmark.stats.stats.min


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", SIZES)
def test_ask_a_victim_in_this_process(benchmark: BenchmarkFixture, name: str) -> None:
    released, shape = victim(name)
    asked = ScoreVictim(released, shape=shape, num_classes=CLASSES)
    x = images(shape)
    assert benchmark(lambda: asked.scores(x)).shape == (ROWS, CLASSES)
    tell(benchmark)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", SIZES)
def test_ask_a_served_victim(benchmark: BenchmarkFixture, name: str) -> None:
    released, shape = victim(name)
    x = images(shape)
    with served(released, shape) as remote:
        asked = ScoreVictim(remote, shape=shape, num_classes=CLASSES)
        told = benchmark(lambda: asked.scores(x))
    assert torch.equal(told, released(x))
    tell(benchmark)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("size", [32, 64, 224])
def test_way_there_and_back(benchmark: BenchmarkFixture, size: int) -> None:
    """A victim that does nothing, so that the way alone is timed."""
    shape, told = (3, size, size), torch.full((ROWS, CLASSES), 1 / CLASSES)
    x = images(shape)
    with served(lambda _x: told, shape) as remote:
        asked = ScoreVictim(remote, shape=shape, num_classes=CLASSES)
        assert torch.equal(benchmark(lambda: asked.scores(x)), told)
    tell(benchmark)


@pytest.mark.benchmark(timer=cpu_s_of_children)
def test_start_the_other_process(benchmark: BenchmarkFixture) -> None:
    def begin() -> int:
        ours, theirs = socket.socketpair()
        with tempfile.TemporaryDirectory() as folder, ours:
            with theirs:
                process = start("mibench.served_attack", theirs, folder)
            ours.shutdown(socket.SHUT_WR)  # no job comes, so it ends when it is ready for one
            return process.wait()

    assert benchmark.pedantic(begin, rounds=3 if benchmark.enabled else 1) == 1
