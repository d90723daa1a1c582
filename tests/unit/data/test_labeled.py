"""Labeled images held as bytes: floats where they are asked for, with the bits that floats always had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mibench.data.split import Labeled, dequantize, quantize
from mibench.data.split import _levels as levels
from mibench.errors import DataError

COUNT, SHAPE = 12, (3, 6, 5)
LABELS = torch.arange(COUNT) % 4


def pixels() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (COUNT, *SHAPE), generator=generator, dtype=torch.uint8)


def test_bytes_and_floats_give_the_same_everywhere() -> None:
    as_bytes = Labeled(pixels(), LABELS, ("a", "b", "c", "d"))
    as_floats = Labeled(pixels().float() / 255, LABELS, ("a", "b", "c", "d"))
    rows = torch.tensor([3, 3, 0, 11])
    for part, same in (
        (as_bytes, as_floats),
        (as_bytes.of(1, 3), as_floats.of(1, 3)),
        (as_bytes.subset(rows), as_floats.subset(rows)),
        (as_bytes.to(torch.device("cpu")), as_floats),
    ):
        assert part.pixels.dtype == torch.uint8
        assert part.images.dtype == torch.float32
        assert torch.equal(part.images, same.images)
        assert torch.equal(part.stored, same.stored)
        assert torch.equal(part.labels, same.labels)
        assert part.identities == same.identities
        assert (len(part), part.shape) == (len(same), SHAPE)
    assert torch.equal(as_bytes.rows(rows), as_floats.images[rows])
    assert torch.equal(as_floats.rows(rows), as_floats.images[rows])
    assert torch.equal(as_bytes.in_turn(LABELS), as_floats.in_turn(LABELS))
    with pytest.raises(DataError, match="none shows label 7"):
        as_bytes.in_turn(torch.tensor([7]))


def test_floats_stay_what_they_are_and_are_stored_as_bytes() -> None:
    images = pixels().float() / 255
    data = Labeled(images, LABELS)
    assert data.images is images
    assert torch.equal(data.stored, pixels())


def test_floats_are_made_once_and_only_when_asked_for() -> None:
    data = Labeled(pixels(), LABELS)
    assert data.rows(LABELS).dtype == torch.float32
    assert [len(y) for _, y in data.chunks(5)] == [5, 5, 2]
    assert "images" not in vars(data)
    assert data.images is data.images


def test_chunks_hold_each_image_once_and_in_order() -> None:
    data = Labeled(pixels(), LABELS)
    x, y = (torch.cat(column) for column in zip(*data.chunks(5)))
    assert torch.equal(x, data.images)
    assert torch.equal(y, LABELS)


def test_images_and_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(12, 3, 6, 5\) images and \(3,\) labels do not fit"):
        Labeled(pixels(), LABELS[:3])


def test_every_byte_survives_and_is_divided_exactly() -> None:
    every = torch.arange(256, dtype=torch.uint8)[:, None, None, None]
    exact = torch.tensor([torch.tensor(float(level)).div(255).item() for level in range(256)])
    assert torch.equal(dequantize(every).flatten(), exact)
    assert torch.equal(quantize(dequantize(every)), every)
    # what stands for the division where a device has another one
    assert torch.equal(levels(torch.device("cpu")), exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_bits() -> None:
    data = Labeled(pixels(), LABELS)
    there = data.to(torch.device("cuda"))
    assert there.pixels.dtype == torch.uint8
    assert torch.equal(there.images.cpu(), data.images)
    assert torch.equal(there.rows(LABELS).cpu(), data.rows(LABELS))


def test_bytes_may_lie_in_a_file_that_is_gone(tmp_path: Path) -> None:
    save_file({"x": pixels()}, tmp_path / "x")
    with safe_open(tmp_path / "x", framework="pt") as opened:
        data = Labeled(opened.get_tensor("x"), LABELS)
    (tmp_path / "x").unlink()
    assert torch.equal(data.rows(torch.arange(COUNT)), dequantize(pixels()))
    assert torch.equal(data.of(2).images, dequantize(pixels()[LABELS == 2]))
