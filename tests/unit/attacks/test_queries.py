"""What a trail shows: of each row, at each point, what the row held when it had spent no more."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.gan import StylePrior
from mibench.latent import checkpoints
from mibench.plugin import Context

queries: Any = importlib.import_module("mibench.attacks._queries")


@settings(deadline=None, max_examples=40)
@given(
    planned=st.integers(0, 300),
    spends=st.lists(st.lists(st.integers(1, 40), max_size=12), min_size=1, max_size=4),
)
def test_each_point_shows_what_each_row_held_by_then(planned: int, spends: list[list[int]]) -> None:
    count = len(spends)
    trail = queries.Trail(torch.full((count, 2), -1.0), planned)
    history: list[list[tuple[int, float]]] = [[(0, -1.0)] for _ in spends]
    for turn in range(max(len(row) for row in spends)):
        for row, steps in enumerate(spends):
            spent = sum(steps[: turn + 1])
            if turn < len(steps) and spent <= planned:
                held = torch.full((1, 2), float(turn))
                trail.hold(torch.tensor([row]), held, torch.tensor([spent]), float(turn))
                history[row].append((spent, float(turn)))
    assert trail.queries.tolist() == checkpoints(planned)
    for point, limit in enumerate(trail.queries.tolist()):
        for row in range(count):
            wanted = [value for spent, value in history[row] if spent <= limit][-1]
            assert trail._latents[point, row].tolist() == [wanted] * 2
    assert [row[0] for row in trail.latents.tolist()] == [row[-1][1] for row in history]


def test_images_and_curve_belong_together_in_any_chunks(cube_prior: StylePrior) -> None:
    space = cube_prior.load({}, (6, 1, 1), Context())
    generator = torch.Generator().manual_seed(0)
    start, later = torch.rand(3, 6, generator=generator), torch.rand(2, 6, generator=generator)
    trail = queries.Trail(start, 10)
    trail.hold(torch.tensor([2, 0]), later, torch.tensor([4, 10]), torch.tensor([0.5, 0.25]))
    got = trail.collect(space, torch.tensor([5, 6, 7]), Context(max_batch=2))
    assert torch.equal(got.images.flatten(1), torch.stack([later[1], start[1], later[0]]))
    assert torch.equal(got.effort.images[0].flatten(1), (start * 255).round().to(torch.uint8))
    changed = [bool(torch.equal(one[2], got.effort.images[-1][2])) for one in got.effort.images]
    assert changed == [count >= 4 for count in got.effort.queries.tolist()]
    assert got.effort.loss[-1].tolist()[::2] == [0.25, 0.5]
    assert bool(got.effort.loss[:, 1].isnan().all())


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_answers_come_in_order_and_in_chunks(chunk: int, cube_prior: StylePrior) -> None:
    space = cube_prior.load({}, (6, 1, 1), Context())
    latents = torch.rand(7, 6, generator=torch.Generator().manual_seed(0))
    sizes: list[int] = []

    def ask(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return images.flatten(1).sum(1)

    got = queries.answers(latents, space, ask, Context(max_batch=chunk))
    torch.testing.assert_close(got, latents.sum(1))
    assert sum(sizes) == 7
    assert max(sizes) <= chunk
