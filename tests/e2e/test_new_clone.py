"""A board where nothing is there but what its repository holds: a fresh clone, and a machine of CI."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mibench.boards.assembling import assemble
from mibench.boards.board import Board, read_board
from mibench.boards.history import Night, read_history
from mibench.boards.keeping import kept
from mibench.boards.standing import STALE
from mibench.cli import main
from mibench.record import Record, read_records
from mibench.registry import forget_files

_SUITE = """
name = "tiny"
metrics = ["mc_all", "mc_target", "aa"]
[data]
size = 16
channels = 1
private = 5
private_images = 3
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
protected = 4
bystanders = 1
attacked = 5
images = 2
[victim]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
min_accuracy = 0.0
recipe = { epochs = 2, batch = 8 }
[attacks.mi_face]
max_iter = 3
[attacks.mean_face]
[defenses.none]
"""
_BOARD = 'schema = 1\ntitle = "T"\nsuite = "suite.toml"\naccess = "white-box"\nrecheck = 0\n'


class Clone:
    """A clone of a board, with the store of one machine."""

    def __init__(self, folder: Path) -> None:
        self.root, self.store = folder / "boards", folder / "store"
        self.folder = self.root / "tiny"
        self.folder.mkdir(parents=True)
        (self.folder / "suite.toml").write_text(_SUITE, encoding="utf-8")
        (self.folder / "board.toml").write_text(_BOARD, encoding="utf-8")

    @property
    def board(self) -> Board:
        return read_board(self.folder)

    @property
    def records(self) -> list[Record]:
        return read_records(self.folder / "records.jsonl")

    def say(self, *words: str) -> None:
        assert main(["board", *words, "--boards", str(self.root)]) == 0

    def night(self, *words: str) -> Night:
        self.say("update", "--store", str(self.store), "--jobs", "1", *words)
        return read_history(self.board)[-1]

    def forget(self) -> None:
        """Leave what a repository holds alone."""
        shutil.rmtree(self.store, ignore_errors=True)  # a night that computes nothing makes none
        shutil.rmtree(self.folder / ".night")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    yield Clone(tmp_path)
    forget_files()


def test_known_records_are_not_computed_again(clone: Clone) -> None:
    first = clone.night()
    before = clone.records
    clone.forget()
    night = clone.night()
    assert (night.ran, night.left_out, night.entries["none"].status) == (0, 0, "ok")
    assert clone.records == before

    clone.forget()
    clone.say("add", "tiny", "negative_ls")
    night = clone.night()
    assert {name: seen.status for name, seen in night.entries.items()} == {"none": "ok", "negative_ls": "ok"}
    assert [one for one in clone.records if one.defense["label"] == "none"] == before
    # not: to answer, to attack and to measure the undefended net, but for the two priors and the net itself
    assert night.entries["none"].ran < first.entries["none"].ran


def test_record_of_todays_key_is_not_stale(clone: Clone) -> None:
    # as it was where an entry changed, had no time, and changed back
    clone.night()
    before = clone.records
    known = [replace(record, flags=(*record.flags, STALE)) for record in before]
    assert kept(assemble(clone.board, set()).plan, [], known, {}, torch.device("cpu")) == before
