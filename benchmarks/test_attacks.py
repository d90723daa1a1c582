"""What it buys that an attack searches all targets and restarts at once, and not one after the other.

    OMP_NUM_THREADS=1 pytest benchmarks/test_attacks.py --benchmark-enable --benchmark-json FILE

The timed body is the batch; `ratio` in its `extra_info` is how many times as long the same searches take one
by one. Both are measured in the same run and in seconds of this process's CPU time, so that what else the
machine does moves neither.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from mibench.attack import Attack, Reconstructions
from mibench.data.split import quantize
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import WhiteBoxVictim, freeze

TARGETS, RESTARTS, STEPS, CLASSES = 20, 5, 10, 240
LEAST_RATIO = 5.0  # what batching is there for; a smaller one means that something runs row by row


@dataclass(frozen=True)
class Nets:
    """Sizes of the victim and of the untrained generators that the searches run in."""

    size: int
    victim: int
    latent: int
    wgan: int
    style: int
    critic: int


SIZES = {
    "small": Nets(size=16, victim=8, latent=16, wgan=8, style=8, critic=8),
    "quick": Nets(size=32, victim=16, latent=64, wgan=24, style=64, critic=32),
}


Make = Callable[[Nets, int], Attack[WhiteBoxVictim]]


def gmi(nets: Nets, restarts: int) -> Attack[WhiteBoxVictim]:
    prior = {"latent_dim": nets.latent, "width": nets.wgan, "critic_width": nets.wgan, "steps": 0}
    search = {"steps": STEPS, "lr": 0.05}
    return get_attack("gmi").from_params({"prior": prior, "search": search, "restarts": restarts})


def mirror(nets: Nets, restarts: int) -> Attack[WhiteBoxVictim]:
    widths = {"w_dim": nets.latent, "width": nets.style, "critic_width": nets.critic}
    prior = {"latent_dim": nets.latent, **widths, "steps": 0, "p_samples": 100}
    params = {"prior": prior, "search": {"steps": STEPS, "lr": 0.05}, "candidates": restarts}
    return get_attack("mirror").from_params({**params, "presamples": 32, "keep": RESTARTS})


def victim(nets: Nets) -> WhiteBoxVictim:
    spec = NetSpec(name="small_vgg", width=nets.victim, size=nets.size, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(0))
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net)


def prior_of(attack: Attack[WhiteBoxVictim], nets: Nets) -> Prior:
    public, ctx = torch.zeros(1, 3, nets.size, nets.size), Context()
    return attack.adapt_prior(attack.learn_prior(public, ctx), victim(nets), public, ctx)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("make", [gmi, mirror])
def test_batched_targets_and_restarts(benchmark: BenchmarkFixture, make: Make, size: str) -> None:
    nets, labels = SIZES[size], torch.arange(TARGETS)
    together, alone = make(nets, RESTARTS), make(nets, 1)
    prior, held, batches = prior_of(together, nets), victim(nets), list[float]()

    def at_once() -> Reconstructions:
        before = time.process_time()
        got = together.invert(held, prior, labels, Context())
        batches.append(time.process_time() - before)
        return got

    got = benchmark.pedantic(at_once, rounds=3, warmup_rounds=1)
    before = time.process_time()
    singles = [
        alone.invert(held, prior, label, Context(seed=seed))
        for seed in range(RESTARTS)
        for label in labels.split(1)
    ]
    singles_s, batched_s = time.process_time() - before, statistics.median(batches)
    # the first of the restarts is what a run alone finds, but for roundings, so both do the same work
    own = quantize(torch.cat([one.images for one in singles[:TARGETS]]))
    assert float((got.effort.single.float() - own.float()).abs().mean()) < 1
    benchmark.extra_info.update(
        {"ratio": singles_s / batched_s, "batched_cpu_s": batched_s, "singles_cpu_s": singles_s}
    )
    assert singles_s / batched_s >= LEAST_RATIO
