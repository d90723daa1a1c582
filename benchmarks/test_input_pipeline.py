"""What it buys that images are decoded once and augmented as bytes, a batch at once.

    OMP_NUM_THREADS=1 pytest benchmarks/test_input_pipeline.py --benchmark-enable --benchmark-json FILE

The timed body makes a batch as `fit` does: gather, mirror, shift, floats, jitter. In its `extra_info` stand
images a second of it (`batch`), of it in the order of memory that convolutions take (`channels_last`), of
the same from floats in memory by indexing each number (`indexed`), and of the same from JPEG files image by
image (`decoded`); `ratio` is how many times as long the last one takes. All take turns of the same length in
one run on one thread. Times are seconds of this process's CPU time, and of the fastest turn, which what else
the machine does moves least. That all make the same numbers is checked too.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.data.synthfaces import SynthFaces
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.store import Artifact, Store
from mibench.training import Recipe, augment, fit

SIZE, BATCH, IMAGES, CLASSES = 64, 64, 128, 200
# by jitter: with less, something runs image by image; the sums of jitter take both ways their time, so that
# it narrows the gap, to a ratio of 17 to 22 as measured on a busy machine
LEAST_RATIO = {0.0: 20.0, 0.2: 10.0}
TURN_S, TURNS = 0.05, 20
STORED = 5000


@dataclass(frozen=True)
class Shape:
    """Of the JPEG files, and the side of the middle square that is taken of them; 0 takes all."""

    width: int
    height: int
    crop: int = 0


SHAPES = {"64x64": Shape(64, 64), "178x218": Shape(178, 218, crop=108)}


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch, image by image."""

    mirrored: list[bool]
    moves: list[tuple[int, int]]
    bright: list[float]
    contrast: list[float]


def drawn(recipe: Recipe, generator: torch.Generator) -> Draws:
    """Those that `augment` draws, so that both make the same batch."""
    mirrored = torch.rand(BATCH, generator=generator) < 0.5
    moves = torch.randint(0, 2 * recipe.shift + 1, (2, BATCH), generator=generator)
    tints = torch.zeros(2, BATCH)
    if recipe.jitter > 0:
        tints = (torch.rand(2, BATCH, generator=generator) * 2 - 1) * recipe.jitter
    pairs = [(i, j) for i, j in moves.T.tolist()]
    return Draws(mirrored.tolist(), pairs, tints[1].tolist(), tints[0].tolist())


def write_faces(folder: Path, shape: Shape) -> list[Path]:
    side = max(shape.width, shape.height)
    people = torch.arange(IMAGES)
    files = []
    for first in range(0, IMAGES, 16):
        some = people[first : first + 16]
        for i, face in zip(some.tolist(), SynthFaces(size=side).render(some, some % 4)):
            pixels = (face * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
            left = (side - shape.width) // 2
            image = Image.fromarray(pixels).crop((left, 0, left + shape.width, shape.height))
            files.append(folder / f"{i}.jpg")
            image.save(files[-1], quality=90)
    return files


def decode(file: Path, shape: Shape) -> Tensor:
    """An image (3, SIZE, SIZE), uint8."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    if shape.crop:
        left, top = (shape.width - shape.crop) // 2, (shape.height - shape.crop) // 2
        image = image.crop((left, top, left + shape.crop, top + shape.crop))
        image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def by_image(files: list[Path], shape: Shape, recipe: Recipe, draws: Draws) -> Tensor:
    """A batch as a training loop makes it that reads image files: each decoded and augmented by itself."""
    s, images = recipe.shift, []
    for i, file in enumerate(files):
        x = decode(file, shape).float() / 255
        if draws.mirrored[i]:
            x = x.flip(2)
        down, right = draws.moves[i]
        x = F.pad(x, (s, s, s, s), mode="replicate")[:, down : down + SIZE, right : right + SIZE]
        if recipe.jitter > 0:
            mean = x.mean()
            x = ((x - mean) * (1 + draws.contrast[i]) + mean * (1 + draws.bright[i])).clamp(0, 1)
        images.append(x)
    return torch.stack(images)


def by_index(images: Tensor, rows: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """A batch from floats (N, 3, SIZE, SIZE) in memory, each number of it looked up by itself."""
    x, s = images[rows], recipe.shift
    mirrored = torch.rand(BATCH, generator=generator) < 0.5
    x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    moves = torch.randint(0, 2 * s + 1, (2, BATCH, 1), generator=generator)
    padded = F.pad(x, (s, s, s, s), mode="replicate")
    down, right = torch.arange(SIZE) + moves[0], torch.arange(SIZE) + moves[1]
    image, channel = torch.arange(BATCH)[:, None, None, None], torch.arange(3)[:, None, None]
    x = padded[image, channel, down[:, None, :, None], right[:, None, None, :]]
    if recipe.jitter > 0:
        draws = (torch.rand(2, BATCH, 1, 1, 1, generator=generator) * 2 - 1) * recipe.jitter
        mean = x.mean((1, 2, 3), keepdim=True)
        x = ((x - mean) * (1 + draws[0]) + mean * (1 + draws[1])).clamp(0, 1)
    return x


def cpu_s(*works: Callable[[], object], turns: int) -> list[float]:
    """CPU time of a call of each, in its fastest turn."""
    least = [math.inf for _ in works]
    for _ in range(turns):
        for i, work in enumerate(works):
            calls, start = 0, time.process_time()
            while (spent := time.process_time() - start) < TURN_S:
                work()
                calls += 1
            least[i] = min(least[i], spent / calls)
    return least


@pytest.mark.parametrize("jitter", LEAST_RATIO)
@pytest.mark.parametrize("name", SHAPES)
def test_a_batch(benchmark: BenchmarkFixture, tmp_path: Path, name: str, jitter: float) -> None:
    shape, recipe = SHAPES[name], Recipe(jitter=jitter)
    files = write_faces(tmp_path, shape)
    data = Labeled(torch.stack([decode(file, shape) for file in files]), torch.arange(IMAGES))
    rows = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(0))[:BATCH]
    chosen, floats = [files[row] for row in rows.tolist()], data.images
    generator = torch.Generator()

    def ours() -> Tensor:
        return augment(data.taken(rows), recipe, generator)

    def in_order() -> Tensor:
        return ours().contiguous(memory_format=torch.channels_last)

    def indexed() -> Tensor:
        return by_index(floats, rows, recipe, generator)

    def decoded() -> Tensor:
        return by_image(chosen, shape, recipe, drawn(recipe, generator))

    made = []
    for work in (ours, in_order, indexed, decoded):
        generator.manual_seed(1)
        made.append(work())
    assert torch.equal(made[0], made[1])
    assert torch.equal(made[0], made[2])
    assert torch.allclose(made[0], made[3], atol=1e-6)  # the mean of an image is summed in another order
    benchmark.pedantic(ours, rounds=200, warmup_rounds=5)
    if not benchmark.enabled:
        return
    kinds = ("batch", "channels_last", "indexed", "decoded")
    found = dict(zip(kinds, cpu_s(ours, in_order, indexed, decoded, turns=TURNS)))
    ratio = found["decoded"] / found["batch"]
    benchmark.extra_info.update({f"{kind}_images_per_s": BATCH / seconds for kind, seconds in found.items()})
    benchmark.extra_info.update({"ratio": ratio, "ratio_indexed": found["indexed"] / found["batch"]})
    assert ratio >= LEAST_RATIO[jitter]


def test_share_of_a_training_step(benchmark: BenchmarkFixture) -> None:
    """`share` is what making its batch takes of a step of the smallest victim of suites of 64 pixels."""
    generator, rows = torch.Generator().manual_seed(0), torch.arange(BATCH)
    pixels = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    data, recipe = Labeled(pixels, rows), Recipe(batch=BATCH)
    net = build(NetSpec(name="small_vgg", width=16, size=SIZE, num_classes=CLASSES), generator)

    def train() -> None:
        fit(net.requires_grad_(True), data, Context(), recipe=recipe, steps=2)

    def batch() -> Tensor:
        x = augment(data.taken(rows), recipe, generator)
        return x.contiguous(memory_format=torch.channels_last)

    benchmark.pedantic(train, rounds=3, warmup_rounds=1)
    batch_s, two_steps_s = cpu_s(batch, train, turns=5)
    step_s = two_steps_s / 2
    benchmark.extra_info.update({"share": batch_s / step_s, "batch_cpu_s": batch_s, "step_cpu_s": step_s})
    assert 0 < batch_s < step_s


def images() -> Artifact:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (STORED, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return Artifact({"train_images": pixels, "train_labels": torch.arange(STORED)})


def test_put_images(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    artifact, places = images(), iter(range(10**9))

    def put() -> Store:
        store = Store(tmp_path / str(next(places)))  # a store keeps what it has, so each round takes its own
        store.put("0" * 64, artifact)
        return store

    assert benchmark.pedantic(put, rounds=3).contains("0" * 64)
    rate(benchmark)


def test_get_images_and_take_a_batch(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    store, rows = Store(tmp_path), torch.arange(0, STORED, STORED // BATCH)[:BATCH]
    store.put("0" * 64, images())

    def get() -> Tensor:
        found = store.get("0" * 64)
        assert found is not None
        return Labeled(found.tensors["train_images"], found.tensors["train_labels"]).rows(rows)

    assert benchmark.pedantic(get, rounds=5, warmup_rounds=1).shape == (BATCH, 3, SIZE, SIZE)
    rate(benchmark)


def rate(benchmark: BenchmarkFixture) -> None:
    """Leave images a second beside the times."""
    if benchmark.enabled:
        benchmark.extra_info["images_per_s"] = STORED / benchmark.stats.stats.median
