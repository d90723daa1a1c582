"""Batches that do not fit: split where the gradients stay the same, refused with a sentence elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.data.split import Labeled
from mibench.errors import OutOfRoomError
from mibench.gradients import obstacle_of
from mibench.memory import watched
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.training import Recipe, fit

ShortMemory = Callable[[int], Any]
PEOPLE = 3


def data(count: int = 24) -> Labeled:
    generator = torch.Generator().manual_seed(1)
    return Labeled(torch.rand(count, 1, 16, 16, generator=generator), torch.arange(count) % PEOPLE)


def net(name: str) -> Classifier:
    spec = NetSpec(name=name, width=8, channels=1, size=16, num_classes=PEOPLE)
    return build(spec, torch.Generator().manual_seed(0))


def weights(trained: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trained.parameters()])


RECIPE = Recipe(epochs=3, batch=24, shift=0, flip=False, lr=0.1)
BATCH_BYTES = 24 * 16 * 16 * 4


def test_a_mean_over_rows_is_accumulated_to_the_same_gradients() -> None:
    whole = weights(fit(net("mlp"), data(), Context(), recipe=RECIPE))
    limit = {"most": 9}

    def loss(one: Classifier, x: Tensor, y: Tensor) -> Tensor:
        if len(x) > limit["most"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried more.")
        return RECIPE.loss(one, x, y)

    with watched() as room:
        parts = weights(fit(net("mlp"), data(), Context(), recipe=RECIPE, loss=loss, is_row_mean=True))
    assert room.costs() == {"rows_of_training_batch": 6.0}
    assert float((whole - parts).abs().max()) < 1e-6
    assert not torch.equal(whole, weights(net("mlp")))


def test_a_loss_that_nobody_calls_a_mean_over_rows_is_not_split() -> None:
    def loss(_net: Classifier, _x: Tensor, _y: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried more.")

    said = r"batches of 24: .* its loss is no mean over single images\)\. Lower"
    with pytest.raises(OutOfRoomError, match=said):
        fit(net("mlp"), data(), Context(), recipe=RECIPE, loss=loss)


def test_one_row_that_does_not_fit_ends_in_one_sentence() -> None:
    def loss(_net: Classifier, _x: Tensor, _y: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried more.")

    with pytest.raises(OutOfRoomError, match=r"^training with batches of 24: does not fit .*\. Lower .*\.$"):
        fit(net("mlp"), data(), Context(), recipe=RECIPE, loss=loss, is_row_mean=True)


def test_batch_norm_is_never_split_in_silence(short_memory: ShortMemory) -> None:
    untrained, images = net("small_vgg"), data()
    largest_weights = max(p.nbytes for p in untrained.parameters())
    first_map = 24 * 8 * 16 * 16 * 4  # bytes
    assert largest_weights < first_map // 2
    said = r"may not be split, because batch norm .*\)\. Lower the recipe's batch"
    with short_memory(first_map // 2), pytest.raises(OutOfRoomError, match=said):
        fit(untrained, images, Context(), recipe=RECIPE)


def test_a_batch_that_cannot_even_be_drawn_is_told_the_same_way(short_memory: ShortMemory) -> None:
    start, images = net("mlp"), data()
    short = short_memory(BATCH_BYTES // 2)
    with short, pytest.raises(OutOfRoomError, match=r"^training: does not fit .*\. Lower the recipe's batch"):
        fit(start, images, Context(), recipe=RECIPE)
    assert short.refused > 0


@pytest.mark.parametrize(
    ("module", "word"),
    [(nn.Linear(2, 2), ""), (nn.BatchNorm1d(2), "batch norm"), (nn.Dropout(0.1), "dropout")],
)
def test_obstacles_are_those_that_look_at_the_batch(module: nn.Module, word: str) -> None:
    assert obstacle_of(nn.Sequential(module)).startswith(word)
    assert bool(obstacle_of(nn.Sequential(module))) == bool(word)
    assert obstacle_of(nn.Sequential(module).eval()) == ""
