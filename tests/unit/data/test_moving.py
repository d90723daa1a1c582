"""Images that are mirrored and shifted in memory: the bits of the formula that indexes each number."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.data.moving import moved

SHAPES = [(9, 3, 8, 8), (1, 1, 8, 8), (4, 1, 7, 5), (5, 2, 3, 9), (3, 3, 4, 1), (0, 3, 8, 8)]


def by_index(x: Tensor, mirrored: Tensor | None, moves: Tensor | None, most: int) -> Tensor:
    """The images, each number looked up by itself."""
    count, channels, height, width = x.shape
    if mirrored is not None:
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
    if moves is None:
        return x
    padded = F.pad(x, (most,) * 4, mode="replicate")
    rows = (torch.arange(height) + moves[0][:, None])[:, None, :, None]
    columns = (torch.arange(width) + moves[1][:, None])[:, None, None, :]
    image, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    return padded[image, channel, rows, columns]


def draws(count: int, most: int) -> tuple[list[Tensor | None], list[Tensor | None]]:
    generator = torch.Generator().manual_seed(most)
    some = torch.rand(count, generator=generator) < 0.5
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=generator)
    return [None, some, torch.ones(count, dtype=torch.bool)], [None, moves if most else None]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_gives_the_numbers_and_the_order_of_memory_of_indexing(
    shape: tuple[int, int, int, int], most: int, layout: torch.memory_format
) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(7)).contiguous(memory_format=layout)
    for mirrored, moves in itertools.product(*draws(len(x), most)):
        expected, got = by_index(x, mirrored, moves, most), moved(x, mirrored, moves, most=most)
        assert torch.equal(got, expected)
        assert got.stride() == expected.stride()  # sums run in the order of memory
        in_bytes = (x * 255).to(torch.uint8)
        of_bytes = moved(in_bytes, mirrored, moves, most=most)
        assert of_bytes.dtype == torch.uint8
        assert torch.equal(of_bytes, by_index(in_bytes, mirrored, moves, most))


def test_gradients_are_those_of_indexing() -> None:
    mirrored, moves = torch.tensor([True, False, True]), torch.tensor([[0, 4, 2], [3, 1, 2]])
    weights = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    slopes: list[Tensor] = []
    for formula in (by_index, lambda *args: moved(*args[:3], most=args[3])):
        x = torch.rand(3, 2, 5, 6, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        slopes += torch.autograd.grad((formula(x, mirrored, moves, 2) * weights).sum(), x)
    assert torch.equal(*slopes)


def test_nothing_to_move_is_no_copy() -> None:
    x = torch.zeros(2, 1, 3, 3)
    assert moved(x, None) is x


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_gpu_gives_the_same_bits(dtype: torch.dtype) -> None:
    x = torch.randint(0, 256, (9, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(dtype)
    for mirrored, moves in itertools.product(*draws(len(x), 2)):
        there = moved(x.cuda(), mirrored, moves, most=2)
        assert torch.equal(there.cpu(), moved(x, mirrored, moves, most=2))
