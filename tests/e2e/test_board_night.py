"""Single nights of a board: entries that cannot be used, a budget that is too small, records that are old."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench.boards.adding import add, write_entry
from mibench.boards.board import Board, read_board
from mibench.boards.entry import Entry
from mibench.boards.history import Night, read_history
from mibench.boards.night import How, Told, run_night
from mibench.boards.standing import STALE
from mibench.boards.update import update
from mibench.record import Record, read_records
from mibench.registry import forget_files
from mibench.runner import run
from mibench.store import Store

_TOYS = Path(__file__).parent / "plugins"
_SUITE = """
name = "tiny"
metrics = ["mc_all", "mc_target", "aa"]

[data]
size = 16
channels = 1
private = 4
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2

[targets]
protected = 2
bystanders = 1
attacked = 3
images = 2

[victim]
net = "softmax_regression"
recipe = { epochs = 1, batch = 8 }

[judge]
net = "softmax_regression"
min_accuracy = 0.0
recipe = { epochs = 1, batch = 8 }

[attacks.mi_face]
max_iter = 1
[attacks.ami]
width = 4
epochs = 1

[defenses.none]
"""


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    yield make(tmp_path, "white-box")
    forget_files()


def make(folder: Path, access: str) -> Board:
    place = folder / "boards" / access
    place.mkdir(parents=True)
    (place / "suite.toml").write_text(_SUITE, encoding="utf-8")
    rules = f'schema = 1\ntitle = "T"\nsuite = "suite.toml"\naccess = "{access}"\nrecheck = 0\n'
    (place / "board.toml").write_text(rules, encoding="utf-8")
    return read_board(place)


def how(board: Board, **changes: Any) -> How:
    """In this process: no limit of time."""
    store = Store(board.folder.parent / "store")
    return How(**{"store": store, "jobs": 1, "device": torch.device("cpu"), **changes})


def night(board: Board, **changes: Any) -> Night:
    told: Told = run_night(board, how(board, **changes))
    assert read_history(board)[-1] == told.night
    return told.night


def test_entries_that_cannot_be_used_fail_alone(board: Board, tmp_path: Path) -> None:
    add(board, str(_TOYS / "toy_short.py"))
    add(board, str(_TOYS / "toy_rounded.py"))
    with (board.folder / "plugins" / "toy_rounded.py").open("a", encoding="utf-8") as source:
        source.write("# by somebody else\n")
    ending = b"import os\nos._exit(3)\n"
    (board.folder / "plugins" / "ending.py").write_bytes(ending)
    entry = {"schema": 1, "kind": "defense", "plugin": "ending", "source": hashlib.sha256(ending).hexdigest()}
    (board.folder / "entries" / "ending.json").write_text(json.dumps(entry), encoding="utf-8")
    (board.folder / "entries" / "none.json").write_text(json.dumps({**entry, "source": "", "plugin": "mid"}))
    (board.folder / "entries" / "torn.json").write_text('{"schema": 1', encoding="utf-8")
    told = run_night(board, how(board))
    seen = told.night.entries
    assert {name: one.status for name, one in seen.items()} == {
        "none": "failed",
        "toy_short": "ok",
        "toy_rounded": "failed",
        "ending": "failed",
        "torn": "failed",
    }
    assert "has SHA-256" in seen["toy_rounded"].why
    assert "ended its process (code 3)" in seen["ending"].why
    assert "suite has 'none' already" in seen["none"].why
    assert "is no JSON" in seen["torn"].why
    assert len(told.failed) == 4
    labels = {record.defense["label"] for record in read_records(board.folder / "records.jsonl")}
    assert labels == {"none", "toy_short"}


def test_attacks_above_the_access_of_a_board_are_left_out(tmp_path: Path) -> None:
    board = make(tmp_path, "score")
    write_entry(board, "mine", Entry(schema=1, kind="attack", plugin="mi_face"))  # `add` refuses it
    add(board, str(_TOYS / "toy_scores.py"))
    found = night(board)
    assert {record.attack["label"] for record in read_records(board.folder / "records.jsonl")} == {
        "ami",
        "toy_scores",
    }
    assert {name: one.status for name, one in found.attacks.items()} == {
        "ami": "ok",
        "toy_scores": "ok",
        "mine": "failed",
    }
    assert "needs white-box access; the board grants score" in found.attacks["mine"].why
    forget_files()


def test_budget_leaves_cells_out_and_a_later_night_makes_up_for_it(board: Board) -> None:
    first = night(board, budget_s=1e-6)
    assert (first.ran, first.left_out, first.cells) == (0, 2, 2)
    assert first.entries["none"].status == "left_out"
    second = night(board)
    assert (second.left_out, second.entries["none"].status) == (0, "ok")
    # a changed entry without time keeps its older records, says so, and is not ranked
    add(board, str(_TOYS / "toy_short.py"))
    assert night(board).entries["toy_short"].status == "ok"
    add(board, str(_TOYS / "toy_short.py"), params=["epochs=2"])
    late = night(board, budget_s=1e-6)
    assert (late.left_out, late.ran, late.entries["toy_short"].status) == (2, 0, "left_out")
    assert late.entries["toy_short"].ranks == ()
    records = read_records(board.folder / "records.jsonl")
    stale = {record.defense["label"] for record in records if STALE in record.flags}
    assert stale == {"toy_short"}
    last = night(board)
    assert (last.left_out, last.entries["toy_short"].status) == (0, "ok")
    assert not any(STALE in record.flags for record in read_records(board.folder / "records.jsonl"))


def test_lost_store_is_filled_again_with_the_same_records(board: Board) -> None:
    add(board, str(_TOYS / "toy_short.py"))
    first = night(board)
    before = (board.folder / "records.jsonl").read_bytes()
    kept = night(board, store=Store(board.folder.parent / "other"))
    assert (kept.ran, kept.hits) == (0, kept.cells)  # the records are enough
    assert (board.folder / "records.jsonl").read_bytes() == before
    (board.folder / "records.jsonl").unlink()
    again = night(board, store=Store(board.folder.parent / "third"))
    assert (again.ran, again.hits) == (first.ran, 0)
    assert (board.folder / "records.jsonl").read_bytes() == before
    assert (again.alarms, again.suspicions) == ((), ())


def test_failed_task_is_tried_on_two_nights_and_with_retry(board: Board) -> None:
    add(board, str(_TOYS / "toy_failing.py"))
    tried = []
    for retry in (False, False, False, True):
        told = run_night(board, how(board, retry=retry))
        tried.append(len(told.failed))
        assert told.night.attacks["toy_failing"].status == "failed"
        assert told.night.entries["none"].status == "ok"  # an attack that fails is no fault of a defense
    assert tried == [1, 1, 0, 1]


def test_broken_board_keeps_no_other_from_its_night(board: Board, tmp_path: Path) -> None:
    broken = make(tmp_path, "label")  # none of the suite's attacks gets by with labels
    done = update([broken, board], how(board))
    assert [one.board.name for one in done.nights] == ["white-box"]
    assert done.broken == ["board label, suite tiny: none of its attacks gets by with label access. Add one."]
    assert done.code == 2
    assert read_history(broken) == []


@pytest.mark.parametrize(("access", "is_served"), [("score", True), ("white-box", False)])
def test_attacks_of_a_board_below_white_box_run_apart_from_their_victims(
    access: str, is_served: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make(tmp_path, access)
    asked: list[bool] = []

    def watched(*args: Any, **options: Any) -> list[Record]:
        asked.append(options["served"])
        return run(*args, **options)

    monkeypatch.setattr("mibench.boards.night.run", watched)
    told = night(place)
    assert asked == [is_served]
    assert told.attacks["ami"].status == "ok"
    assert ("mi_face" in told.attacks) is not is_served  # it needs the weights
