"""Too little memory: chunks are halved to equal results, and what cannot shrink ends in a sentence."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mibench.errors import OutOfRoomError
from mibench.memory import halved, in_chunks, is_out_of_memory, must_fit, pieces, watched

SHORT = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB."


def fits(most: int, seen: list[int]) -> Callable[[slice], list[int]]:
    def ask(rows: slice) -> list[int]:
        here = list(range(rows.start, rows.stop))
        seen.append(len(here))
        if len(here) > most:
            raise torch.OutOfMemoryError(SHORT)
        return here

    return ask


def test_what_the_allocators_say_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(10**15)
    with pytest.raises(RuntimeError) as other:
        torch.ones(2) @ torch.ones(3)
    assert is_out_of_memory(cpu.value)
    assert is_out_of_memory(torch.OutOfMemoryError(SHORT))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(other.value)
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


@pytest.mark.parametrize(("most", "asked"), [(10, [10]), (5, [10, 5, 5]), (3, [10, 5, 3, 3, 3, 1])])
def test_pieces_are_halved_from_where_they_do_not_fit(most: int, asked: list[int]) -> None:
    seen: list[int] = []
    parts = pieces(fits(most, seen), 10, rows=64, what="rows")
    assert [one for part in parts for one in part] == list(range(10))
    assert seen == asked


def test_what_did_not_fit_once_is_not_tried_again_in_the_same_task_and_stands_among_its_costs() -> None:
    with watched() as room:
        for expected in ([8, 4, 4], [4, 4]):
            seen: list[int] = []
            pieces(fits(4, seen), 8, rows=8, what="some rows")
            assert seen == expected
        assert room.costs() == {"rows_of_some_rows": 4.0}
    seen = []
    pieces(fits(4, seen), 8, rows=8, what="some rows")
    assert seen == [8, 4, 4]


def test_nothing_is_noted_where_everything_fits() -> None:
    with watched() as room:
        in_chunks(lambda x: x + 1, torch.zeros(9), rows=4, what="rows")
    assert room.costs() == {}


def test_no_rows_give_no_rows() -> None:
    got = in_chunks(lambda x: x[:, :1], torch.zeros(0, 3), rows=4, what="rows")
    assert got.shape == (0, 1)


def test_one_row_that_does_not_fit_ends_in_one_sentence() -> None:
    said = r"^rows: does not fit into memory \(CUDA out of memory\)\. Take .*\.$"
    with pytest.raises(OutOfRoomError, match=said):
        pieces(fits(0, []), 5, rows=4, what="rows")


def test_a_whole_attempt_is_repeated_with_half_the_rows() -> None:
    asked: list[int] = []

    def attempt(rows: int) -> int:
        asked.append(rows)
        if rows > 60:
            raise MemoryError
        return rows

    assert halved(attempt, 256, what="stage", advice="Rest.") == 32
    assert asked == [256, 128, 64, 32]


def test_other_errors_pass_at_once() -> None:
    def broken(_rows: int) -> int:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        halved(broken, 8, what="stage", advice="Rest.")
    with pytest.raises(ValueError, match="mine"), must_fit("it", "Rest."):
        broken(1)


def test_tensors_of_a_failed_attempt_are_gone_before_the_next_one() -> None:
    held: list[weakref.ref[Tensor]] = []

    def attempt(rows: int) -> bool:
        gc.collect()
        alive = [one for one in held if one() is not None]
        large = torch.zeros(rows)
        held.append(weakref.ref(large))
        if rows > 1:
            raise torch.OutOfMemoryError(SHORT)
        return not alive

    assert halved(attempt, 4, what="stage", advice="Rest.")


def test_what_may_not_shrink_says_what_to_do() -> None:
    said = r"^training: does not fit into memory \(CUDA out of memory\)\. Lower the batch\.$"
    with pytest.raises(OutOfRoomError, match=said), must_fit("training", "Lower the batch."):
        raise torch.OutOfMemoryError(SHORT)
