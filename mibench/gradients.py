"""The gradients of a batch, in smaller parts where the whole does not fit and the sum stays the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mibench.memory import at_once, free, is_out_of_memory, learn, no_room, told_of
from mibench.precision import autocast

WHAT = "training batch"


class Gradients:
    """Fills the gradients of a net's weights from a batch.

    The mean over a batch is the mean over its parts, each weighted by its rows. That holds where the loss is
    a mean of the losses of single rows and the net looks at each row by itself. Batch norm takes its
    statistics from the part, and dropout draws for the part, so such nets are never split: the result would
    be another method's under the same name.

    Args:
        net: whose weights ask for gradients.
        loss: (x, y) -> scalar.
        device: where it computes.
        clear: drops the gradients of the step before.
        is_row_mean: whether the loss is a mean over rows, each by itself.
        advice: what the user may do where the batch does not fit and may not be split, as a sentence.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        device: torch.device,
        *,
        clear: Callable[[], None],
        is_row_mean: bool,
        advice: str,
    ) -> None:
        self.net, self.loss, self.device, self.clear, self.advice = net, loss, device, clear, advice
        self.obstacle = "" if is_row_mean else "its loss is no mean over single images"
        self.obstacle = self.obstacle or obstacle_of(net)

    def fill(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch x (N, ...), y (N, ...), detached; the weights' gradients are its gradients.

        Raises:
            OutOfRoomError: the batch does not fit, and may not be split or holds one row.
        """
        rows = at_once(len(x), WHAT)
        while True:
            told = self._tried(x, y, rows)
            if isinstance(told, Tensor):
                return told
            if self.obstacle or rows <= 1:
                why = f"; it may not be split, because {self.obstacle}" if self.obstacle else ""
                raise no_room(f"training with batches of {len(x)}", told + why, self.advice)
            free()
            rows = (min(rows, len(x)) + 1) // 2
            learn(WHAT, rows)

    def _tried(self, x: Tensor, y: Tensor, rows: int) -> Tensor | str:
        """The loss, or what the allocator said; it returns before the next attempt, which frees the graph."""
        try:
            return self._whole(x, y) if rows >= len(x) else self._summed(x, y, rows)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return told_of(error)

    def _whole(self, x: Tensor, y: Tensor) -> Tensor:
        self.clear()
        with autocast(self.device):
            value = self.loss(x, y)
        value.backward()
        return value.detach()

    def _summed(self, x: Tensor, y: Tensor, rows: int) -> Tensor:
        self.clear()
        total = torch.zeros((), device=self.device)
        for some, told in zip(x.split(rows), y.split(rows)):
            with autocast(self.device):
                value = self.loss(some, told) * (len(some) / len(x))
            value.backward()
            total = total + value.detach()
        return total


def obstacle_of(net: nn.Module) -> str:
    """Why the batches of a net may not be split, as a clause; empty where they may."""
    if any(isinstance(module, _BatchNorm) and module.training for module in net.modules()):
        return "batch norm takes its statistics from the whole batch"
    if any(isinstance(module, _DropoutNd) and module.training for module in net.modules()):
        return "dropout draws for the whole batch"
    return ""
