import json
import socket
import struct
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from mibench import wire
from mibench.wire import (
    _HEADER,
    _TENSOR,
    MOST_HEAD,
    Kind,
    Line,
    Message,
    MessageError,
    is_dense,
    pack,
    unpack,
)

ASKS = {Kind.ASK: 2**20}


@pytest.fixture
def lines() -> Iterator[tuple[Line, Line]]:
    ends = [Line(end) for end in socket.socketpair()]
    yield ends[0], ends[1]
    for end in ends:
        end.close()


def ask(*, number: int = 4, shape: list[int], strides: list[int], body: bytes = b"") -> Message:
    sizes, steps = ([*one, *[0] * (8 - len(one))] for one in (shape, strides))
    return Message(Kind.ASK, bytearray(_TENSOR.pack(number, len(shape), 0, *sizes, *steps)), bytearray(body))


@pytest.mark.parametrize(
    "x",
    [
        torch.rand(3, 2, 4, 5),
        torch.rand(3, 2, 4, 5).to(memory_format=torch.channels_last),
        torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8),
        torch.rand(2, 3, dtype=torch.float64).T,
        torch.rand(5, 2, 3)[1:4],
        torch.rand(4, 1, 2, 2).half(),
        torch.rand(4, 4).bfloat16(),
        torch.empty(0, 3, 4, 4),
        torch.tensor(3),
    ],
)
def test_tensors_come_over_as_they_lay_in_memory(x: Tensor, lines: tuple[Line, Line]) -> None:
    lines[0].send(Kind.ASK, *pack(x))
    got = unpack(lines[1].receive(ASKS))
    assert (got.dtype, got.shape, got.stride()) == (x.dtype, x.shape, x.stride())
    assert torch.equal(got, x)
    assert got.numel() == 0 or got.data_ptr() % 64 == x.data_ptr() % 64


@pytest.mark.parametrize("x", [torch.rand(1, 3).expand(4, 3), torch.rand(4, 6)[:, ::2]])
def test_values_come_over_from_memory_with_gaps_or_repeats(x: Tensor, lines: tuple[Line, Line]) -> None:
    lines[0].send(Kind.ASK, *pack(x))
    assert torch.equal(unpack(lines[1].receive(ASKS)), x)


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="complex64 with 1 dimensions from no other process"):
        pack(torch.zeros(2, dtype=torch.complex64))


@pytest.mark.parametrize(
    "message",
    [
        ask(shape=[2], strides=[1], body=b"1234"),
        ask(shape=[2**62], strides=[1], body=b"1234"),
        ask(shape=[1, 2], strides=[2**50, 1], body=b"12345678"),
        ask(shape=[2, 2], strides=[0, 1], body=bytes(16)),
        ask(shape=[2, 2], strides=[4, 1], body=bytes(16)),
        ask(number=77, shape=[1], strides=[1], body=b"1234"),
        Message(Kind.ASK, bytearray(_TENSOR.pack(4, 200, 0, *[1] * 16)), bytearray(b"1234")),
        Message(Kind.ASK, bytearray(b"short"), bytearray()),
    ],
)
def test_shapes_that_do_not_fit_their_bytes_are_refused(message: Message) -> None:
    with pytest.raises(MessageError, match=r"^message ASK: "):
        unpack(message)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x80\x04K\x01.garbage...!", "begins with"),
        (_HEADER.pack(b"MW", Kind.RESULT, 0, 0), "begins with b'MW.x06'"),
        (_HEADER.pack(b"MW", Kind.ASK, MOST_HEAD + 1, 0), "says that it has"),
        (_HEADER.pack(b"MW", Kind.ASK, 0, 2**60), "says that it has"),
    ],
)
def test_what_may_not_come_is_refused_before_memory_is_taken(raw: bytes, words: str) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(raw)
        with pytest.raises(MessageError, match=words):
            Line(here).receive(ASKS)


def test_a_message_that_stops_is_refused_and_a_silence_before_it_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "STALL_S", 0.05)
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"MW")
        with pytest.raises(MessageError, match="stopped in the middle"):
            Line(here).receive(ASKS)


def test_an_end_that_closes_is_the_end(lines: tuple[Line, Line]) -> None:
    lines[0].close()
    with pytest.raises(EOFError, match="has closed its end"):
        lines[1].receive(ASKS)
    with pytest.raises(EOFError, match="does not read"):
        lines[1].say(Kind.ASK, {})


def test_values_and_tensors_come_over_together(lines: tuple[Line, Line]) -> None:
    shared = torch.arange(6.0)
    lines[0].say(Kind.ASK, {"notes": {"a": 0.1}}, {"one": shared, "two": shared[2:]})
    got = lines[1].receive(ASKS)
    assert got.read() == {"notes": {"a": 0.1}}
    assert {name: one.tolist() for name, one in got.tensors().items()} == {
        "one": shared.tolist(),
        "two": shared[2:].tolist(),
    }


@pytest.mark.parametrize("head", [b"[1]", b"{", b"\xff", b"[" * 10**5])
def test_heads_that_are_no_object_are_refused(head: bytes) -> None:
    with pytest.raises(MessageError, match=r"^message RESULT: is no JSON"):
        Message(Kind.RESULT, bytearray(head), bytearray()).read()


@pytest.mark.parametrize("body", [b"", b"\x80\x04.", struct.pack("<Q", 2**40), struct.pack("<Q", 2) + b"{}x"])
def test_bodies_that_hold_no_tensors_are_refused(body: bytes) -> None:
    with pytest.raises(MessageError, match=r"^message RESULT: holds no tensors"):
        Message(Kind.RESULT, bytearray(), bytearray(body)).tensors()


def test_a_head_that_is_too_long_is_not_sent(lines: tuple[Line, Line]) -> None:
    value = {"x": "y" * MOST_HEAD}
    with pytest.raises(MessageError, match=f"has {len(json.dumps(value))} bytes"):
        lines[0].say(Kind.ASK, value)


def test_strides_of_dimensions_of_one_do_not_matter() -> None:
    assert is_dense([1, 3], [77, 1])
    assert not is_dense([1, 3], [2**40, 1])
    assert not is_dense([3], [1, 1])
