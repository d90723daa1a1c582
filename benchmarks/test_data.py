"""Speed of making prepared sets from image files: files each second stand in `extra_info`."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture

from mibench.data.layouts import get_layout
from mibench.data.preparing import Done, Request, prepare
from mibench.data.split import quantize
from mibench.data.synthfaces import SynthFaces

PEOPLE, IMAGES = 50, 8


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of 178 x 218 pixels, as CelebA's aligned ones have, in folders of people."""
    root, world = tmp_path_factory.mktemp("photos"), SynthFaces(size=64)
    draw = np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = root / f"p{person}"
        folder.mkdir()
        faces = quantize(world.render(torch.full((IMAGES,), person), torch.arange(IMAGES)))
        for image, pixels in enumerate(faces.permute(0, 2, 3, 1).numpy()):
            photo = np.asarray(Image.fromarray(pixels).resize((178, 218)), dtype=np.int64)
            # grain, without which a JPEG is far smaller, and faster, than one from a camera
            grain = draw.normal(0, 6, photo.shape).round().astype(np.int64)
            whole = Image.fromarray((photo + grain).clip(0, 255).astype(np.uint8))
            whole.save(folder / f"{image}.jpg", quality=90)
    return root


@pytest.mark.parametrize("jobs", [1, 2])
def test_prepare_photos(benchmark: BenchmarkFixture, photos: Path, tmp_path: Path, jobs: int) -> None:
    number = itertools.count()

    def work() -> Done:
        target = tmp_path / str(next(number))
        layout = get_layout("image_folder")
        request = Request(layout=layout, source=photos, target=target, name="p", crop=108, jobs=jobs)
        return prepare(request)

    done = benchmark(work)
    if benchmark.enabled:
        benchmark.extra_info["images_per_s"] = PEOPLE * IMAGES / benchmark.stats.stats.median
    assert done.info.images == PEOPLE * IMAGES
