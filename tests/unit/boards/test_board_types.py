"""Boards, entries, histories and strict JSON: what is read, what is refused, and what a crash leaves."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.boards.board import Board, find_board, list_boards, read_board
from mibench.boards.entry import Entry, read_entries, read_entry, source_file
from mibench.boards.history import Alarm, Estimate, Night, Seen, append_night, read_history
from mibench.boards.standing import Measured
from mibench.boards.strict import MOST_DEPTH, parse_json, read_json
from mibench.errors import BoardError

_BOARD = 'schema = 1\ntitle = "T"\nsuite = "smoke"\naccess = "white-box"\n'
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def make(folder: Path, text: str = _BOARD) -> Board:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "board.toml").write_text(text, encoding="utf-8")
    return read_board(folder)


@given(_JSON)
def test_plain_json_is_read_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value), where="x") == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        "[Infinity]",
        "[-Infinity]",
        "[1e999]",
        "[1" + "0" * 40 + "]",
        "{",
        "",
        "\ud800".encode("utf-8", "surrogatepass"),
        "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
        "[" * 100_000 + "]" * 100_000,
    ],
)
def test_json_that_is_not_strict_is_refused_in_one_sentence(text: str | bytes) -> None:
    with pytest.raises(BoardError, match=r"^x: ") as refused:
        parse_json(text, where="x")
    assert len(str(refused.value)) < 500


def test_large_json_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(BoardError, match="has 11 bytes; at most 10"):
        parse_json("[" + " " * 9 + "]", where="x", most_bytes=10)
    (tmp_path / "a.json").write_text("[" + " " * 9 + "]", encoding="ascii")
    with pytest.raises(BoardError, match="has 11 bytes; at most 10"):
        read_json(tmp_path / "a.json", most_bytes=10)


def test_link_is_no_file_of_a_board(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="ascii")
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    assert read_json(tmp_path / "a.json") == []
    with pytest.raises(BoardError, match="is a link"):
        read_json(tmp_path / "b.json")


def test_board_is_found_by_name(tmp_path: Path) -> None:
    board = make(tmp_path / "boards" / "a-1")
    assert find_board(tmp_path / "boards", "a-1") == board
    assert list_boards(tmp_path / "boards") == [board]
    assert board.suite == "smoke"
    own = make(tmp_path / "boards" / "b", _BOARD.replace('"smoke"', '"suite.toml"'))
    assert own.suite == own.folder / "suite.toml"
    for name in ("c", "../boards/a-1", "A", ""):
        with pytest.raises(BoardError, match=r"There are: a-1, b"):
            find_board(tmp_path / "boards", name)
    with pytest.raises(BoardError, match=r"holds no board\.toml"):
        list_boards(tmp_path)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('acess = "x"', "Did you mean 'access'"),
        ("recheck = -1", "recheck must be at least 0, got -1"),
        ("[rank]\nmax_loss = 2.0", "rank.max_loss must lie in"),
        ("[alarms]\nnights = 0", "alarms.nights must be at least 1"),
        ("[alarms]\nslower = 1.0", "alarms.slower must be above 1"),
        ("[alarms]\nleast_s = -1.0", "alarms.least_s must be at least 0"),
        ("= 3", "cannot be read"),
    ],
)
def test_wrong_rules_are_told(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(BoardError, match=r"^board b: ") as refused:
        make(tmp_path / "b", _BOARD + more + "\n")
    assert said in str(refused.value)


def entry(**changes: Any) -> Entry:
    return Entry(**{"schema": 1, "kind": "defense", "plugin": "mid", **changes})


def test_entry_survives_its_file(tmp_path: Path) -> None:
    board = make(tmp_path / "b")
    one = entry(source="0" * 64, params={"beta": 0.5}, title="T", submitted="2026-01-31")
    (board.folder / "entries").mkdir()
    (board.folder / "entries" / "mine.json").write_text(json.dumps(one.to_json()), encoding="utf-8")
    assert read_entries(board) == {"mine": one}
    assert source_file(board, one) == board.folder / "plugins" / "mid.py"
    assert source_file(board, entry()) is None
    (board.folder / "entries" / "No.json").write_text(json.dumps(one.to_json()), encoding="utf-8")
    with pytest.raises(BoardError, match="its name is none"):
        read_entry(board.folder / "entries" / "No.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"plugin": "../x"},
        {"plugin": "a+b"},
        {"source": "0" * 63},
        {"title": "x" * 301},
        {"submitted": "31.1.2026"},
    ],
)
def test_wrong_entry_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"schema|plugin|source|title|submitted"):
        entry(**changes)


@given(st.dictionaries(st.text(max_size=5), _JSON, max_size=3), st.text(max_size=20))
def test_digest_of_an_entry_is_of_what_decides_its_numbers(params: dict[str, Any], title: str) -> None:
    one = entry(params=params)
    assert one.digest == entry(params=params, title=title, trust="re-run").digest
    assert one.digest != entry(params={**params, "more": 1}).digest
    assert one.digest != entry(params=params, source="1" * 64).digest
    assert one.digest != entry(params=params, kind="attack").digest


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_ESTIMATES = st.builds(
    Estimate, value=st.none() | _NUMBERS, low=st.none() | _NUMBERS, high=st.none() | _NUMBERS
)
_SEEN = st.builds(
    Seen,
    status=st.sampled_from(["ok", "failed", "left_out", "removed"]),
    ranks=st.lists(st.integers(1, 9), max_size=2).map(tuple),
    worst=_ESTIMATES,
    mc_all=_ESTIMATES,
    mc_target=_ESTIMATES,
    people=st.dictionaries(st.text(max_size=8), _NUMBERS, max_size=3),
    why=st.text(max_size=10),
)
_ALARMS = st.builds(
    Alarm,
    entry=st.text(max_size=8),
    what=st.sampled_from(["aa", "record", "wall_s"]),
    before=st.none() | _NUMBERS,
    now=st.none() | _NUMBERS,
    nights=st.integers(1, 9),
)


def night(number: int, **changes: Any) -> Night:
    counts = dict.fromkeys(("cells", "hits", "ran", "failed", "left_out"), 0)
    return Night(night=number, started="s", ended="e", software={}, **{"entries": {}, **counts, **changes})


@given(
    st.lists(
        st.tuples(st.dictionaries(st.text(max_size=8), _SEEN, max_size=3), st.lists(_ALARMS, max_size=2))
    )
)
def test_history_is_read_as_it_was_written(tmp_path_factory: Any, nights: list[Any]) -> None:
    board = make(tmp_path_factory.mktemp("board") / "b")
    written = [
        night(i, entries=rows, alarms=tuple(alarms)) for i, (rows, alarms) in enumerate(nights, start=1)
    ]
    for one in written:
        append_night(board, one)
    assert read_history(board) == written


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_torn_last_line_is_no_night_and_is_written_over(tmp_path: Path, cut: int) -> None:
    board = make(tmp_path / "b")
    file = board.folder / "history.jsonl"
    append_night(board, night(1))
    whole = file.read_bytes()
    append_night(board, night(2, ran=5))
    with file.open("rb+") as opened:  # as a crash in the midst of writing leaves it
        opened.truncate(len(whole) + cut)
    assert read_history(board) == [night(1)]
    append_night(board, night(2, ran=7))
    assert read_history(board) == [night(1), night(2, ran=7)]


def test_gap_and_foreign_lines_are_told_by_line(tmp_path: Path) -> None:
    board = make(tmp_path / "b")
    append_night(board, night(1))
    append_night(board, night(3))
    with pytest.raises(BoardError, match="line 2: is night 3"):
        read_history(board)
    lines = (board.folder / "history.jsonl").read_text("utf-8").splitlines()
    changed = {**asdict(night(2)), "surprise": 1}
    (board.folder / "history.jsonl").write_text(f"{lines[0]}\n{json.dumps(changed)}\n", encoding="utf-8")
    with pytest.raises(BoardError, match=r"line 2: .*no field 'surprise'"):
        read_history(board)


def test_history_that_is_no_file_is_told(tmp_path: Path) -> None:
    board = make(tmp_path / "b")
    (board.folder / "history.jsonl").mkdir()
    with pytest.raises(BoardError, match=r"cannot be read"):
        read_history(board)
    with pytest.raises(BoardError, match=r"cannot be written"):
        append_night(board, night(1))


def test_estimate_has_no_number_where_there_is_none() -> None:
    assert Estimate.of(Measured(math.nan, math.nan, math.inf, 3)) == Estimate(value=None, count=3)
    assert Estimate.of(Measured(0.5, 0.25, 0.75)) == Estimate(value=0.5, low=0.25, high=0.75)
