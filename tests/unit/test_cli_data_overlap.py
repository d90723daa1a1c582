from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from mibench.cli import main
from mibench.data.dividing import Division, divide, write_split
from mibench.data.prepared import PreparedSet
from mibench.data.split import quantize
from mibench.data.split_file import SplitFile
from mibench.data.synthfaces import SynthFaces

from .data.make_set import make_set

HOSTILE = "=cmd\n\x1b[31m, é"  # a formula, a line end, a color


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Four private people; the attacker's part holds a picture of one of them, and a flat image."""
    world = SynthFaces(size=32)

    def faces(first: int, people: int, images: int) -> tuple[NDArray[np.uint8], list[str]]:
        who = (first + torch.arange(people)).repeat_interleave(images)
        drawn = world.render(who, torch.arange(images).repeat(people))
        return quantize(drawn).numpy(), [f"p{k}" for k in who.tolist()]

    private, names = faces(0, 4, 8)
    public, others = faces(610, 6, 2)
    again = private[5:6] // 2 * 2  # other bytes: `split` sees the same ones by itself
    public = np.concatenate([public, again, np.full((1, 3, 32, 32), 9, dtype=np.uint8)])
    defender, known = faces(700, 3, 4)
    sets = [
        make_set(tmp_path, private, names, name="mine", may_publish=False),
        make_set(tmp_path, public, [*others, HOSTILE, "flat"], name="theirs"),
        make_set(tmp_path, defender, known, name="own"),
    ]
    file = tmp_path / "splits" / "toy.json"
    opened = [PreparedSet(one) for one in sets]
    write_split(divide(Division(private=4, test_images=3), *opened, file=file), file)
    return file


def test_the_report_names_what_was_found(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "overlap", str(split), "--epochs", "2"]) == 0
    printed = capsys.readouterr().out
    assert "32 private, 14 public, 12 defender images; near-duplicates between parts: 1" in printed
    assert "compared with nothing: 1" in printed
    assert "accuracy" in printed
    assert "\x1b" not in printed
    folder = split.with_name("toy-overlap")
    assert (folder / ".gitignore").read_text() == "*\n"
    with (folder / "overlap.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert rows[0]["kind"] == "near-duplicate"
    assert (rows[0]["like_part"], rows[0]["like_row"], rows[0]["row"]) == ("private", "5", "12")
    assert rows[0]["identity"].startswith("'=cmd ")
    told = json.loads((folder / "overlap.json").read_text())
    assert told["images"] == {"private": 32, "public": 14, "defender": 12}
    assert told["flat"]["public"] == 1
    assert told["near_duplicates"][0]["identity"] == HOSTILE
    assert set(told["identity"]) >= {"accuracy", "chance", "can_tell", "flagged", "space"}
    with Image.open(folder / "duplicates.png") as sheet:
        assert sheet.width >= 2 * 96


def test_pictures_alone_train_no_net(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "overlap", str(split), "--epochs", "0", "--out", str(split.parent / "here")]) == 0
    assert "accuracy" not in capsys.readouterr().out
    assert "identity" not in json.loads((split.parent / "here" / "overlap.json").read_text())


def test_a_gitignore_of_the_user_is_not_replaced(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ignore = split.parent / ".gitignore"
    ignore.write_text("*.log\n")
    assert main(["data", "overlap", str(split), "--epochs", "0", "--out", str(split.parent)]) == 2
    assert ignore.read_text() == "*.log\n"
    assert "has a .gitignore of its own" in " ".join(capsys.readouterr().err.split())


def test_dropping_writes_a_split_beside(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "overlap", str(split), "--epochs", "0", "--drop", "duplicates"]
    before = split.read_bytes()
    assert main(command) == 0
    assert split.read_bytes() == before
    old, new = SplitFile.read(split), SplitFile.read(split.with_name("toy-duplicates.json"))
    assert new.parts["private"] == old.parts["private"]
    assert new.parts["defender"] == old.parts["defender"]
    assert set(old.parts["public"].train) - set(new.parts["public"].train) == {12}
    assert new.dropped[0]["reason"] == "near-duplicate"
    assert (new.dropped[0]["like_part"], new.dropped[0]["like_row"]) == ("private", 5)
    assert new.open_sets(split.with_name("toy-duplicates.json"))
    assert main(command) == 0  # the same again is no other split
    capsys.readouterr()
    assert main(["data", "overlap", str(split.with_name("toy-duplicates.json")), *command[3:]]) == 0
    assert "Nothing to drop" in capsys.readouterr().out


def test_a_dropped_split_elsewhere_finds_its_sets(split: Path, tmp_path: Path) -> None:
    file = tmp_path / "other" / "deep" / "less.json"
    assert (
        main(["data", "overlap", str(split), "--epochs", "0", "--drop", "duplicates", "--to", str(file)]) == 0
    )
    assert SplitFile.read(file).open_sets(file)


def test_people_that_cannot_be_told_apart_are_not_dropped(
    split: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mibench.overlap.LEAST_ACCURACY", 1.1)
    assert main(["data", "overlap", str(split), "--epochs", "1", "--drop", "identities"]) == 2
    shown = capsys.readouterr()
    assert "cannot tell" in shown.out
    assert "--weights" in shown.err
    assert not split.with_name("toy-identities.json").exists()
    told = json.loads((split.with_name("toy-overlap") / "overlap.json").read_text())["identity"]
    assert (told["can_tell"], told["flagged"]) == (False, [])


def test_identities_are_dropped_where_people_can_be_told_apart(
    split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mibench.overlap.LEAST_ACCURACY", 0.0)
    monkeypatch.setattr("mibench.overlap.flagged", lambda _likeness, _own: [(1, 0, 0.9)])
    assert main(["data", "overlap", str(split), "--epochs", "1", "--drop", "identities"]) == 0
    new = SplitFile.read(split.with_name("toy-identities.json"))
    assert sorted(one["reason"] for one in new.dropped) == ["identity", "near-duplicate"]
    assert split.with_name("toy-overlap").joinpath("lookalikes.png").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--epochs", "0", "--drop", "identities"], "people are not compared"),
        (["--weights", "nowhere.safetensors"], "weights nowhere.safetensors"),
    ],
)
def test_what_cannot_be_done_is_said(
    split: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(["data", "overlap", str(split), *options]) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_split_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["data", "overlap", str(tmp_path / "x.json")]) == 2
    assert "is no split file" in capsys.readouterr().err
