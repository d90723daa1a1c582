"""What a descent moves: pixels, or the code of an auto-encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from mibench.prior import Shape

from ._autoencoder import Code

Process = Callable[[Tensor, int], Tensor]


class Canvas(Protocol):
    """What is searched: pixels, or the code of an auto-encoder. `shape` is that of one state."""

    shape: tuple[int, ...]

    def enter(self, images: Tensor) -> Tensor:
        """States (N, *shape) of images (N, C, H, W)."""
        ...

    def draw(self, states: Tensor) -> Tensor:
        """Images (N, C, H, W) of states (N, *shape), differentiable."""
        ...

    def bounded(self, states: Tensor) -> Tensor:
        """States (..., *shape) moved into the box that they may lie in."""
        ...

    def settle(self, states: Tensor, iteration: int) -> Tensor:
        """PROCESS of states (N, *shape) that step number `iteration`, from 1, led to."""
        ...


class Pixels:
    """Pixels themselves; see Canvas.

    Args:
        shape: (C, H, W).
        process: images (N, C, H, W), number of the step -> images.
        is_boxed: whether pixels stay in [0, 1].
    """

    def __init__(self, shape: Shape, process: Process, *, is_boxed: bool) -> None:
        self.shape: tuple[int, ...] = shape
        self._process, self._is_boxed = process, is_boxed

    def enter(self, images: Tensor) -> Tensor:
        """The images."""
        return images

    def draw(self, states: Tensor) -> Tensor:
        """The states."""
        return states

    def bounded(self, states: Tensor) -> Tensor:
        """Pixels in [0, 1], unless they are free."""
        return states.clamp(0, 1) if self._is_boxed else states

    def settle(self, states: Tensor, iteration: int) -> Tensor:
        """See Canvas."""
        return self._process(states, iteration)


class Codes:
    """The code of an auto-encoder, each unit in [0, 1]; see Canvas.

    Args:
        code: the auto-encoder.
        process: images (N, C, H, W), number of the step -> images.
        every: steps from one turn of PROCESS to the next.
    """

    def __init__(self, code: Code, process: Process, *, every: int) -> None:
        self.shape: tuple[int, ...] = (code.units,)
        self._code, self._process, self._every = code, process, every

    def enter(self, images: Tensor) -> Tensor:
        """Codes of images."""
        return self._code.encode(images)

    def draw(self, states: Tensor) -> Tensor:
        """Images of codes."""
        return self._code.decode(states)

    def bounded(self, states: Tensor) -> Tensor:
        """Units in [0, 1], the range of the sigmoid."""
        return states.clamp(0, 1)

    def settle(self, states: Tensor, iteration: int) -> Tensor:
        """enc(PROCESS(dec(h))) when it is due; between, the code alone is kept in its range."""
        states = self.bounded(states)
        if iteration % self._every:
            return states
        return self.enter(self._process(self.draw(states), iteration))
