"""Messages between the process that holds a victim and the one that attacks it: a fixed header, then bytes.

Nothing is unpickled, so what comes from the other side is data and never code. Sizes are checked before
memory is taken for them.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mibench.errors import PluginError

STALL_S = 300.0  # within a message, for a machine that is busy or swaps; between messages nothing hurries
MOST_HEAD = 2**20  # bytes of numbers, names, notes and errors
_SIGN = b"MW"
_HEADER = struct.Struct("<2sBxIQ")  # sign, kind, bytes of the head, bytes of the body
_DIMS = 8
_TENSOR = struct.Struct(f"<BBH{_DIMS}Q{_DIMS}Q")  # type, dimensions, place, sizes, strides
_TYPES = (torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ALIGNED = 64  # bytes; torch's allocator of the CPU begins tensors at multiples of it


class Kind(IntEnum):
    """What a message is."""

    JOB = 1
    ASK = 2
    ANSWER = 3
    REFUSAL = 4
    PROGRESS = 5
    RESULT = 6
    FAILURE = 7


class MessageError(PluginError):
    """What came is no message that may come here."""


@dataclass(frozen=True)
class Message:
    """One message.

    Args:
        kind: what it is.
        head: a tensor's shape, or JSON.
        body: a tensor's values, or several tensors as a file of safetensors.
    """

    kind: Kind
    head: bytearray
    body: bytearray

    def read(self) -> dict[str, Any]:
        """The head as a JSON object; MessageError where it is none."""
        try:
            value = json.loads(self.head)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"message {self.kind.name}: is no JSON ({error}).") from error
        if not isinstance(value, dict):
            raise MessageError(f"message {self.kind.name}: is no JSON object but {type(value).__name__}.")
        return value

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the body by name; MessageError where it holds none."""
        try:
            found: dict[str, Tensor] = load(bytes(self.body))
        except (SafetensorError, ValueError, KeyError) as error:
            raise MessageError(f"message {self.kind.name}: holds no tensors ({error}).") from error
        return found


class Line:
    """One end of a connection, on which whole messages go both ways.

    Args:
        end: connected; both ends are streams on one machine.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def close(self) -> None:
        """Close this end; the other one then meets the end of the stream."""
        self._end.close()

    def send(self, kind: Kind, head: bytes = b"", body: bytes | memoryview = b"") -> None:
        """Send a message; EOFError where nobody reads any more or the reader stands still."""
        self._end.settimeout(STALL_S)
        try:
            for part in (_HEADER.pack(_SIGN, kind, len(head), len(body)) + head, body):
                rest = memoryview(part)
                while rest:
                    rest = rest[self._end.send(rest) :]
        except (OSError, TimeoutError) as error:
            raise EOFError(f"the other process does not read ({error})") from error

    def say(self, kind: Kind, value: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
        """Send a JSON object, and tensors by name, which are copied to the CPU.

        Raises:
            TypeError: the value is no JSON.
            MessageError: it is too long.
            EOFError: see `send`.
        """
        head = json.dumps(value).encode()
        if len(head) > MOST_HEAD:
            raise MessageError(f"message {kind.name}: has {len(head)} bytes, more than {MOST_HEAD}.")
        # copies, because several may lie in one piece of memory, which a file of safetensors cannot hold
        own = {name: one.detach().cpu().contiguous().clone() for name, one in (tensors or {}).items()}
        self.send(kind, head, save(own) if own else b"")

    def receive(self, allowed: Mapping[Kind, int]) -> Message:
        """The next message, however long it takes to come.

        Args:
            allowed: the kinds that may come, with the most bytes of their bodies.

        Raises:
            EOFError: the other end is closed.
            MessageError: it is another kind, is larger, or stops in the middle.
        """
        head = self._read(_HEADER.size, waits=True)
        sign, number, head_size, body_size = _HEADER.unpack(head)
        kinds = {int(kind): kind for kind in allowed}
        if sign != _SIGN or number not in kinds:
            raise MessageError(
                f"message: begins with {bytes(head[:3])!r}, which none does that may come now."
            )
        kind = kinds[number]
        if head_size > MOST_HEAD or body_size > allowed[kind]:
            raise MessageError(
                f"message {kind.name}: says that it has {head_size} and {body_size} bytes, more than "
                f"{MOST_HEAD} and {allowed[kind]}."
            )
        return Message(kind, self._read(head_size), self._read(body_size))

    def _read(self, size: int, *, waits: bool = False) -> bytearray:
        """So many bytes; with `waits`, the first of them may take any time."""
        found = bytearray(size)
        rest = memoryview(found)
        try:
            while rest:
                self._end.settimeout(None if waits and len(rest) == size else STALL_S)
                count = self._end.recv_into(rest)
                if not count:
                    raise EOFError("the other process has closed its end")
                rest = rest[count:]
        except TimeoutError as error:
            raise MessageError(f"message: stopped in the middle for {STALL_S:.0f} s.") from error
        except OSError as error:
            raise EOFError(f"the other process is gone ({error})") from error
        return found


def pack(x: Tensor) -> tuple[bytes, memoryview]:
    """Head and body of one tensor: its values as they lie in memory, and how.

    The order of dimensions in memory goes along, and where on a line of 64 bytes it begins: libraries choose
    their kernels by both, and the other side shall compute the same bits.

    Raises:
        ValueError: a tensor of a type or with more dimensions than can be sent.
    """
    own = x.detach().cpu()
    if own.dtype not in _TYPES or own.ndim > _DIMS:
        raise ValueError(
            f"victim: takes images of {own.dtype} with {own.ndim} dimensions from no other process. "
            "Pass float32 images (N, C, H, W)."
        )
    if not is_dense(own.shape, own.stride()):
        own = own.clone()  # dense, in the same order of dimensions
        if not is_dense(own.shape, own.stride()):
            own = own.contiguous()
    flat = torch.as_strided(own, (own.numel(),), (1,), own.storage_offset())
    sizes, strides = ([*one, *[0] * (_DIMS - own.ndim)] for one in (own.shape, own.stride()))
    place = own.data_ptr() % _ALIGNED
    head = _TENSOR.pack(_TYPES.index(own.dtype), own.ndim, place, *sizes, *strides)
    return head, flat.view(torch.uint8).numpy().data


def unpack(message: Message) -> Tensor:
    """The tensor of a message, as it lay in memory on the other side.

    Raises:
        MessageError: head and body do not fit each other.
    """
    try:
        number, dims, place, *numbers = _TENSOR.unpack(message.head)
        dtype = _TYPES[number]
    except (struct.error, IndexError) as error:
        raise MessageError(
            f"message {message.kind.name}: begins with no tensor's shape ({error})."
        ) from error
    shape, strides = numbers[:dims], numbers[_DIMS : _DIMS + dims]
    count = 1
    for size in shape:
        count *= size
    if dims > _DIMS or count * dtype.itemsize != len(message.body) or not is_dense(shape, strides):
        raise MessageError(
            f"message {message.kind.name}: says that it holds {dtype} {shape} with strides {strides}, and "
            f"has {len(message.body)} bytes."
        )
    place = place % _ALIGNED if place % dtype.itemsize == 0 else 0
    room = torch.empty(len(message.body) + _ALIGNED, dtype=torch.uint8)
    raw = room[place : place + len(message.body)]
    if count:
        raw.copy_(torch.frombuffer(message.body, dtype=torch.uint8))
    typed = raw.view(dtype)
    return torch.as_strided(typed, shape, strides, typed.storage_offset())


def is_dense(shape: torch.Size | list[int], strides: tuple[int, ...] | list[int]) -> bool:
    """Whether these strides lead to each value of a memory without gaps once.

    >>> is_dense([2, 3], [3, 1]), is_dense([2, 3], [1, 2]), is_dense([2, 3], [0, 1])
    (True, True, False)
    """
    if len(shape) != len(strides) or any(stride >= 2**40 for stride in strides):
        return False
    if 0 in shape:
        return True
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(strides, shape) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True


__all__ = ["MOST_HEAD", "STALL_S", "Kind", "Line", "Message", "MessageError", "is_dense", "pack", "unpack"]
