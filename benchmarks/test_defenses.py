"""What a query costs behind each defense of the released vector.

    OMP_NUM_THREADS=1 pytest benchmarks/test_defenses.py --benchmark-enable --benchmark-json FILE

The timed body answers a batch; `ms_per_query` in its `extra_info` is its share of an image, and `ratio` how
many times as long the plain release takes it. Both are seconds of this process's CPU time, and of the fastest
round, which what else the machine does moves least. Times enter no record, which would not repeat with them.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from mibench.data.split import Labeled, dequantize
from mibench.defense import DefenderView, Defense, Released
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense, list_defenses
from mibench.training import Recipe
from mibench.victim import freeze

CLASSES, IMAGES, ROUNDS = 240, 64, 5
SURROGATE = {"width": 16, "epochs": 1, "batch": 16}
ALIGN = {"steps": 50, "queries": 32, "batch": 16}
SETTINGS: dict[str, dict[str, Any]] = {
    "ad_mi": SURROGATE,
    "lpa": {"surrogate": SURROGATE, "align": ALIGN},
    "lfp": {"surrogate": SURROGATE, "align": ALIGN, "rate": 0.25},
    "purifier": {"epochs": 1, "batch": 16},
}
CASES = [
    *[(name, SETTINGS.get(name, {})) for name, plugin in list_defenses().items() if plugin.acts == "output"],
    ("lpa", {**SETTINGS["lpa"], "mode": "vae", "vae": {"epochs": 1}}),
]


@cache
def victim() -> Classifier:
    """An untrained net of the suite `quick`: a query costs the same whatever it says."""
    net = build(NetSpec(name="small_vgg", width=16, size=32, num_classes=CLASSES), torch.Generator())
    freeze(net)
    return net


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return dequantize(torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8))


def cpu_s(module: nn.Module, x: Tensor) -> float:
    before = time.process_time()
    with torch.no_grad():
        module(x)
    return time.process_time() - before


@pytest.mark.parametrize(("name", "params"), CASES, ids=lambda one: one if isinstance(one, str) else "")
def test_a_query(benchmark: BenchmarkFixture, name: str, params: dict[str, Any]) -> None:
    data = Labeled(images(IMAGES, 0), torch.arange(IMAGES) % CLASSES)
    view = DefenderView(private_train=data, public=data, targets=torch.arange(CLASSES), recipe=Recipe())
    defense: Defense = get_defense(name).from_params(params)
    module = defense.protect(victim(), defense.learn_output(victim(), view, Context()), Context())
    x, times = images(IMAGES, 1), list[float]()

    def answer() -> None:
        times.append(cpu_s(module, x))

    benchmark.pedantic(answer, rounds=ROUNDS, warmup_rounds=1)
    plain_s = min(cpu_s(Released(victim()), x) for _ in range(4 * ROUNDS))
    defended_s = min(times)
    benchmark.extra_info.update(
        {"ms_per_query": 1000 * defended_s / IMAGES, "ratio": defended_s / plain_s, "plain_cpu_s": plain_s}
    )
    with torch.no_grad():
        released = module(x)
    assert not torch.equal(released, Released(victim())(x))  # what was timed is a defense at work
    assert torch.allclose(released.sum(1), torch.ones(IMAGES), atol=1e-5)
