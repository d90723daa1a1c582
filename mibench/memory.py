"""What to do when memory is too small: smaller chunks where that changes no result, else a sentence.

Sizes of chunks (`max_batch` of a suite) decide how much is held at once, not what comes out, up to the last
digits where a library takes another kernel for another number of rows. They are halved until they fit. The
batch of a training is part of its method; `mibench.gradients` splits it where the gradients stay the same.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from mibench.errors import OutOfRoomError

T = TypeVar("T")

# what torch 2.6 and later say in a plain RuntimeError: the allocator of the CPU, and CUDA's libraries
_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


@dataclass
class Room:
    """What a task learned about the memory that it has.

    Args:
        fitting: by what was computed, the rows that fitted where the rows asked for did not.
    """

    fitting: dict[str, int] = field(default_factory=dict)

    def costs(self) -> dict[str, float]:
        """What was halved, as it stands among a task's costs."""
        return {f"rows_of_{what.replace(' ', '_')}": float(rows) for what, rows in self.fitting.items()}


_ROOM: ContextVar[Room | None] = ContextVar("room", default=None)


@contextmanager
def watched() -> Iterator[Room]:
    """A room that all halvings inside are kept in, so that what did not fit once is not tried again."""
    room = Room()
    token = _ROOM.set(room)
    try:
        yield room
    finally:
        _ROOM.reset(token)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device or this machine has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def halved(attempt: Callable[[int], T], rows: int, *, what: str, advice: str) -> T:
    """What `attempt` gives for the most rows that fit: `rows`, or half, a quarter, ... of them.

    Args:
        attempt: number of rows to hold at once -> result. It is called anew from the start, so it must leave
            nothing behind where it runs out of memory.
        rows: wanted, >= 1.
        what: name of what is computed, for errors and costs.
        advice: what the user may do where not even one row fits, as a sentence.

    Raises:
        OutOfRoomError: one row does not fit.
    """
    rows = at_once(rows, what)
    while True:
        done, value, told = _tried(attempt, rows)
        if done:
            return value[0]
        if rows <= 1:
            raise no_room(what, told, advice)
        rows = (rows + 1) // 2
        learn(what, rows)


def pieces(ask: Callable[[slice], T], count: int, *, rows: int, what: str) -> list[T]:
    """The results for rows 0 to `count` in pieces of at most `rows`, smaller ones from where they do not fit.

    Args:
        ask: rows of a piece -> its result; asked once about no rows if there are none.
        count: of all rows, >= 0.
        rows: of a piece, >= 1.
        what: name of what is computed, for errors and costs.

    Raises:
        OutOfRoomError: one row does not fit.
    """
    rows, first = at_once(rows, what), 0
    found: list[T] = []
    while first < count or not found:
        done, value, told = _tried(ask, slice(first, min(first + rows, count)))
        if done:
            found.append(value[0])
            first += rows
            continue
        rows = min(rows, count - first)
        if rows <= 1:
            raise no_room(what, told, "Take a smaller net or smaller images, or another device.")
        rows = (rows + 1) // 2
        learn(what, rows)
    return found


def in_chunks(ask: Callable[[Tensor], Tensor], x: Tensor, *, rows: int, what: str) -> Tensor:
    """What `ask` gives for x (N, ...), joined over its rows, of which at most `rows` are held at once.

    Args:
        ask: a part of x -> a tensor with as many rows; each row by itself.
        x: (N, ...).
        rows: of a chunk, >= 1; halved where they do not fit.
        what: name of what is computed, for errors and costs.

    Raises:
        OutOfRoomError: not even one row fits.
    """
    return torch.cat(pieces(lambda part: ask(x[part]), len(x), rows=rows, what=what))


@contextmanager
def must_fit(what: str, advice: str) -> Iterator[None]:
    """Turns running out of memory into OutOfRoomError: of something whose size is part of the method.

    Args:
        what: name of what is computed.
        advice: what the user may do, as a sentence.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise no_room(what, told_of(error), advice) from None


def no_room(what: str, told: str, advice: str) -> OutOfRoomError:
    """The error for what does not fit, with the allocator's own words."""
    return OutOfRoomError(f"{what}: does not fit into memory ({told}). {advice}")


def told_of(error: BaseException) -> str:
    """The first sentence of an allocator's message; the rest is advice on settings that are not ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0].rstrip(".")


def at_once(rows: int, what: str) -> int:
    """Rows to begin with: as many as asked for, or as fitted before in the same task."""
    room = _ROOM.get()
    return rows if room is None else min(rows, room.fitting.get(what, rows))


def learned() -> dict[str, int]:
    """By what was computed, the rows that fitted so far in this task where more did not."""
    room = _ROOM.get()
    return {} if room is None else dict(room.fitting)


def learn(what: str, rows: int) -> None:
    """Remember that no more than `rows` fitted, for the rest of the task."""
    room = _ROOM.get()
    if room is not None:
        room.fitting[what] = rows


def _tried(attempt: Callable[..., T], argument: int | slice) -> tuple[bool, list[T], str]:
    """Whether an attempt fitted, its value in a list, and what the allocator said where it did not.

    The next attempt starts after this returned: an exception that is still being handled keeps every
    tensor of the frames that it came through.
    """
    try:
        return True, [attempt(argument)], ""
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        told = told_of(error)
    free()
    return False, [], told


def free() -> None:
    """Give cached memory back to the device, after garbage that only the collector finds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
