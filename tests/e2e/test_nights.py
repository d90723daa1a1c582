"""Nights of a board with all that can go wrong: a crash, a hung plugin, a decline, numbers that change.

Everything is real but small: tasks run in worker processes, and the nights that are killed or meet another
are processes of their own, as cron starts them. The others are commands in this one, which costs a third.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mibench.boards.board import Board, read_board
from mibench.boards.history import Alarm, Night, read_history
from mibench.cli import main
from mibench.record import read_records
from mibench.registry import forget_files

_SUITE = """
name = "tiny"
metrics = ["mc_all", "mc_target", "aa"]

[data]
size = 16
channels = 1
private = 9
private_images = 6
test_images = 4
public = 4
public_images = 2
defender = 2
defender_images = 2

[targets]
protected = 8
bystanders = 1
attacked = 9
images = 2

[victim]
net = "softmax_regression"
recipe = { epochs = 8, batch = 8 }

[judge]
net = "softmax_regression"
min_accuracy = 0.0
recipe = { epochs = 8, batch = 8 }

[attacks.mi_face]
max_iter = 30
normalize_grad = true
step = 0.1
loss = "ce"

[attacks.ami]
width = 4
epochs = 1

[defenses.none]
"""
_BOARD = """
schema = 1
title = "A board of seconds"
suite = "suite.toml"
access = "white-box"
task_limit = "5m"
"""
# `leaks` says whether the net learns who is who; {extra} stands before it trains
_DEFENSE = '''
"""A defense of a test: with labels of other people nobody can be found, with the right ones everybody can."""

import time
from dataclasses import dataclass
from pathlib import Path

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.training import fit


@dataclass(frozen=True, kw_only=True)
class Made(Defense):
    """Trains on the right labels, or on those of the next person."""

    name = "{name}"
    acts = "training"
    card = Card(title="Test: {name}")

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net, trained."""
        {extra}
        faces = view.private_train
        if not ({leaks}):
            others = (faces.labels + 1) % (int(faces.labels.max()) + 1)
            faces = Labeled(faces.pixels, others, faces.identities)
        return fit(net, faces, ctx, recipe=view.recipe)
'''
_HUNG = "time.sleep(100_000)"
_PER_DEFENSE = 8  # tasks: train, what the net answers, and for each of two attacks adapt, invert, measure


class Keeper:
    """Who keeps a board: gives the commands, one process each, and reads what they left."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.board_folder = folder, folder / "boards" / "tiny"
        self.board_folder.mkdir(parents=True)
        (self.board_folder / "suite.toml").write_text(_SUITE, encoding="utf-8")
        (self.board_folder / "board.toml").write_text(_BOARD, encoding="utf-8")
        self.weather = folder / "weather"  # where it is there, a defense that looks for it leaks

    @property
    def board(self) -> Board:
        return read_board(self.board_folder)

    @property
    def nights(self) -> list[Night]:
        return read_history(self.board)

    def words(self, *words: str) -> list[str]:
        """A command about boards."""
        return ["board", *words, "--boards", str(self.folder / "boards")]

    def update(self, *words: str) -> list[str]:
        """The command of a night."""
        return self.words("update", "--store", str(self.folder / "store"), "--jobs", "1", *words)

    def start(self) -> subprocess.Popen[str]:
        """Start a night as a process."""
        argv = [sys.executable, "-m", "mibench", *self.update()]
        surroundings = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings
        )

    def say(self, *words: str) -> None:
        """Give a command that must succeed."""
        assert main(self.words(*words)) == 0

    def night(self, *words: str) -> tuple[int, Night]:
        """Run a night: its exit code and its line."""
        before = len(self.nights)
        code = main(self.update(*words))
        assert len(self.nights) == before + 1
        return code, self.nights[-1]

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, Night]:
        """Wait for a night that was started."""
        out, err = process.communicate()
        assert self.nights, out + err
        return process.returncode, self.nights[-1]

    def add(self, name: str, *, leaks: str = "False", extra: str = "pass") -> None:
        """Put a defense on the board, or its changed source in place of what is there."""
        file = self.folder / f"{name}.py"
        file.write_text(_DEFENSE.format(name=name, leaks=leaks, extra=extra), encoding="utf-8")
        self.say("add", "tiny", str(file))

    def ledger(self) -> dict[str, Any]:
        """What the night has noted so far."""
        try:
            found: dict[str, Any] = json.loads(
                (self.board_folder / ".night" / "ledger.json").read_text("utf-8")
            )
        except (OSError, ValueError):
            return {}
        return found


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget_files()


def told(alarms: Sequence[Alarm]) -> list[tuple[str, str, int, bool]]:
    """Alarms without their numbers."""
    return [(one.entry, one.what, one.nights, one.is_new) for one in alarms]


def wait_for(keeper: Keeper, process: subprocess.Popen[str]) -> None:
    """Wait until a night has computed a task of its own."""
    deadline = time.monotonic() + 300
    while not keeper.ledger().get("ran"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_fourteen_nights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keeper = Keeper(tmp_path)
    keeper.add("shield")
    keeper.add("weather", leaks=f"Path({str(keeper.weather)!r}).exists()")

    # 1: everything is new
    code, night = keeper.night()
    assert (code, night.failed, night.hits, night.rechecked) == (0, 0, 0, ())
    assert night.ran >= 3 * _PER_DEFENSE
    first = night
    assert {name: seen.status for name, seen in night.entries.items()} == dict.fromkeys(
        ("none", "shield", "weather"), "ok"
    )
    assert night.entries["none"].worst.value is not None
    assert night.entries["shield"].worst.value is not None
    assert night.entries["none"].worst.value - night.entries["shield"].worst.value > 0.5

    # 2: nothing changed, so nothing is computed but one cell once more
    code, night = keeper.night()
    assert (code, night.ran, len(night.rechecked)) == (0, 0, 1)
    assert night.hits == first.ran
    assert capsys.readouterr().out.count("again from an empty store: ") == 1

    # 3: two more defenses; only their tasks run
    keeper.add("doomed")
    keeper.add("moving")
    code, night = keeper.night()
    assert (code, night.ran) == (0, 2 * _PER_DEFENSE)
    assert night.entries["moving"].ran == night.entries["doomed"].ran == _PER_DEFENSE
    assert night.entries["shield"].ran == 0

    # 4: one of them changes; the night is killed in its midst, and the next start ends it
    keeper.add("moving", extra="pass  # changed")
    with keeper.start() as process:
        wait_for(keeper, process)
        process.send_signal(signal.SIGKILL)
    assert len(keeper.nights) == 3
    done_before = set(keeper.ledger()["ran"])
    started = keeper.ledger()["started"]
    assert 0 < len(done_before) < _PER_DEFENSE
    with keeper.start() as process:
        code, night = keeper.ended(process)
    assert len(keeper.nights) == 4
    assert (code, night.ran, night.started) == (0, _PER_DEFENSE, started)
    assert night.entries["moving"].ran == _PER_DEFENSE

    # 5 to 7: one that never ends is stopped, tried once more on the next night, and then left alone
    keeper.add("hung", extra=_HUNG)
    code, night = keeper.night("--task-limit", "40s")
    assert (code, night.ran, night.failed) == (3, 0, 2)
    assert night.entries["hung"].status == "failed"
    assert "ran for longer than 40s" in night.entries["hung"].why
    code, night = keeper.night("--task-limit", "40s")
    assert (code, night.ran, night.failed) == (3, 0, 2)
    keeper.say("remove", "tiny", "doomed")
    began = time.monotonic()
    code, night = keeper.night("--task-limit", "40s", "--budget", "10h")
    took = time.monotonic() - began
    assert (code, night.ran, night.failed) == (0, 0, 2)
    assert min(keeper.ledger()["failures"].values(), key=str)["nights"] == [5, 6]
    assert took < 10 * 60
    # and the one that was removed keeps its last numbers in the history, and has left the board
    assert night.entries["doomed"].status == "removed"
    assert night.entries["doomed"].worst == keeper.nights[5].entries["doomed"].worst
    assert "doomed" not in {
        one.defense["label"] for one in read_records(keeper.board_folder / "records.jsonl")
    }

    # 8: of that night nothing is left; both rows are as they were
    code, night = keeper.night()
    assert (code, night.ran) == (0, 0)
    assert "doomed" not in night.entries

    # 9 to 11: a changed defense leaks; that is suspicious once, then an alarm, which is new once
    keeper.add("shield", leaks="True")
    code, night = keeper.night()
    assert (code, night.ran) == (0, _PER_DEFENSE)
    assert told(night.alarms) == []
    assert told(night.suspicions) == [("shield", "aa", 1, False)]
    code, night = keeper.night()
    assert (code, night.ran, told(night.alarms)) == (5, 0, [("shield", "aa", 2, True)])
    assert night.alarms[0].low is not None
    assert night.alarms[0].low > 0
    code, night = keeper.night()
    assert (code, night.ran, told(night.alarms)) == (5, 0, [("shield", "aa", 3, False)])

    # 12: the keeper takes the new level
    keeper.say("accept", "tiny", "shield")
    code, night = keeper.night()
    assert (code, night.ran, told(night.alarms), told(night.suspicions)) == (0, 0, [], [])
    assert night.accepted == ("shield",)

    # 13 and 14: numbers change and no key does; the cell whose turn it is tells, and tells again
    keeper.weather.touch()
    cells = {
        one.cell
        for one in read_records(keeper.board_folder / "records.jsonl")
        if one.defense["label"] == "weather"
    }
    until_due(keeper, cells)
    code, night = keeper.night()
    assert (code, night.ran) == (0, 0)
    assert told(night.suspicions) == [("weather", "record", 1, False)]
    assert night.rechecked[0] in cells
    code, night = keeper.night()
    assert (code, told(night.alarms)) == (5, [("weather", "record", 2, True)])
    assert night.rechecked == keeper.nights[-2].rechecked

    history = keeper.nights
    assert [one.night for one in history] == list(range(1, len(history) + 1))
    raised = [(one.night, alarm.entry) for one in history for alarm in one.alarms if alarm.is_new]
    assert raised == [(10, "shield"), (len(history), "weather")]
    status = json.loads((keeper.board_folder / "status.json").read_text("utf-8"))
    assert (status["state"], status["night"]) == ("done", len(history))
    assert not list((keeper.folder / "store" / "leases").glob("*.json"))


def until_due(keeper: Keeper, cells: set[str]) -> None:
    """Nights of nothing until the cell whose turn comes next is one of these: each takes another in turn."""
    order = [one.cell for one in read_records(keeper.board_folder / "records.jsonl") if one.status == "ok"]
    while True:
        last: dict[str, int] = {}
        for night in keeper.nights:
            last |= dict.fromkeys(night.rechecked, night.night)
        if min(order, key=lambda cell: last.get(cell, 0)) in cells:
            return
        code, night = keeper.night()
        assert (code, night.ran, night.alarms, night.suspicions) == (0, 0, (), ())


@pytest.mark.slow
def test_two_updates_at_once(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    keeper.add("slow", extra="time.sleep(30)")
    with keeper.start() as first:
        wait_for(keeper, first)
        with keeper.start() as second:
            out, err = second.communicate()
        assert second.returncode == 75, out + err
        assert err.startswith(f"board tiny: process {first.pid}, at work since ")
        assert keeper.nights == []
        out, err = first.communicate()
    assert first.returncode == 0, out + err
    assert [one.night for one in keeper.nights] == [1]
