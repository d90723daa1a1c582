"""Speed of the parts that a run waits for. Not part of the tests: they run each body once, untimed.

    OMP_NUM_THREADS=1 pytest benchmarks --benchmark-enable --benchmark-columns=median,iqr,rounds

Compare with an earlier commit by `--benchmark-autosave` there and `--benchmark-compare` here. Images each
second, where a benchmark is about images, stand in its `extra_info` (`--benchmark-json FILE`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from mibench.data.split import Labeled
from mibench.data.synthfaces import SynthFaces
from mibench.frechet import frechet_distance
from mibench.gan import StylePrior, WganPrior
from mibench.latent import Search, identity_loss, search_latents
from mibench.nets import Classifier, NetSpec, build
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import PriorSpec
from mibench.store import Artifact, Store
from mibench.training import Recipe, fit
from mibench.victim import freeze

SIZE, CLASSES, ROWS = 32, 200, 64
T = TypeVar("T")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def victim() -> Classifier:
    return build(NetSpec(name="small_vgg", width=16, size=SIZE, num_classes=CLASSES), generator())


def run(benchmark: BenchmarkFixture, work: Callable[[], T], *, images: int = 0) -> T:
    """Time `work` and leave images a second beside it; the result of its last call."""
    result: T = benchmark(work)
    if images and benchmark.enabled:
        benchmark.extra_info["images_per_s"] = images / benchmark.stats.stats.median
    return result


@pytest.mark.parametrize("size", [32, 64])
def test_render_synthetic_faces(benchmark: BenchmarkFixture, size: int) -> None:
    world, people = SynthFaces(size=size), torch.arange(64)
    images = run(benchmark, lambda: world.render(people, people % 4), images=64)
    assert images.shape == (64, 3, size, size)


def test_train_a_victim_for_one_step(benchmark: BenchmarkFixture) -> None:
    net, batch = victim(), 64
    images = torch.rand(batch, 3, SIZE, SIZE, generator=generator())
    data, recipe = Labeled(images, torch.arange(batch)), Recipe(batch=batch)
    trained = run(benchmark, lambda: fit(net, data, Context(), recipe=recipe, steps=1), images=batch)
    assert trained is net


@pytest.mark.parametrize(
    "spec",
    [
        WganPrior(latent_dim=64, width=24, critic_width=24, steps=0),
        StylePrior(latent_dim=64, w_dim=64, steps=0),
    ],
    ids=["dmi", "mirror"],
)
def test_search_latents_for_one_step(benchmark: BenchmarkFixture, spec: PriorSpec) -> None:
    # a search of one step asks the victim twice, at the start and after it
    shape, net, labels = (3, SIZE, SIZE), freeze(victim()), torch.arange(ROWS)
    space = spec.load(spec.fit(torch.zeros(1, *shape), Context()), shape, Context())
    start = space.start(Noise.of_targets(0, labels))

    def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
        images = space.decode(latents)
        loss = space.realism(images) + identity_loss(net(images), labels, "max_margin")
        return loss, loss.detach()

    search = Search(steps=1, lr=0.05)
    latents, _ = run(
        benchmark,
        lambda: search_latents(start, objective, search, Context(), project=space.project),
        images=ROWS,
    )
    assert latents.shape == start.shape


def test_put_an_artifact(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    artifact, places = Artifact({"images": torch.zeros(1000, 3, SIZE, SIZE)}), iter(range(10**9))

    def put() -> Store:
        store = Store(tmp_path / str(next(places)))  # a store keeps what it has, so each round takes its own
        store.put("0" * 64, artifact)
        return store

    assert run(benchmark, put, images=1000).contains("0" * 64)


def test_get_an_artifact(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("0" * 64, Artifact({"images": torch.zeros(1000, 3, SIZE, SIZE)}))
    artifact = run(benchmark, lambda: store.get("0" * 64), images=1000)
    assert artifact is not None
    assert artifact.tensors["images"].shape == (1000, 3, SIZE, SIZE)


def test_draw_normal_noise(benchmark: BenchmarkFixture) -> None:
    noise = Noise.of_targets(0, torch.arange(256))
    assert run(benchmark, lambda: noise.normal("draw", 64)).shape == (256, 64)


@pytest.mark.parametrize("count", [100, 1000])
def test_measure_a_frechet_distance(benchmark: BenchmarkFixture, count: int) -> None:
    real, got = torch.randn(2, count, 128, generator=generator())
    assert run(benchmark, lambda: frechet_distance(got, real), images=count) >= 0
