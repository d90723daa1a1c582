"""`mibench data list`, `show`, `verify` and `doctor`: what they print, and how they end."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mibench.cli import main
from mibench.cli_data.listing import COLUMNS
from mibench.cli_data.showing import histogram
from mibench.data.dividing import Division, divide
from mibench.data.layouts import LAYOUTS
from mibench.data.prepared import IMAGES, INFO, PreparedSet

from .data.make_set import make_set, toy_pixels
from .data.test_shelf import begin

HOSTILE = "e\x1b[31mvil\nname\u202e.png"
LEFT_OUT = [(f"{place}.png", "is empty") for place in range(5)] + [(HOSTILE, "cannot be decoded")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    who = [f"p{place // 4}" for place in range(40)]
    made = make_set(
        tmp_path / "data",
        toy_pixels(40),
        who,
        may_publish=False,
        source=tmp_path / "source",
        skipped=LEFT_OUT,
        converted={"CMYK": 2},
        terms="For research alone.",
    )
    file = made / "splits" / "default.json"
    file.parent.mkdir()
    one = PreparedSet(made)
    file.write_text(divide(Division(private=4), one, one, one, file=file).to_json())
    return Path("data/toy")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Standard output; it holds no control character but line ends."""
    out = capsys.readouterr().out
    assert all(char.isprintable() or char == "\n" for char in out)
    return out


def test_the_list_has_what_is_there_and_what_can_be_had(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(folder.parent, "later")
    assert main(["data", "list"]) == 0
    lines = printed(capsys).splitlines()
    assert lines[1].split() == ["later", "unfinished", "1,200", "of", "5,000"]
    assert lines[2].split() == ["toy", "complete", "40", "10", "16x16", "RGB", "no"]
    assert LAYOUTS["lfw"].facts.home in " ".join(lines)
    assert not any(line.startswith("image_folder") for line in lines)  # toy was read with it


def test_the_list_for_programs_has_every_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(folder.parent, "=later")
    assert main(["data", "list", "--format", "json"]) == 0
    entries = json.loads(printed(capsys))
    assert {tuple(entry) for entry in entries} == {COLUMNS}
    named = {entry["name"]: entry for entry in entries}
    assert (named["toy"]["state"], named["toy"]["folder"], named["toy"]["images"]) == (
        "complete",
        "data/toy",
        40,
    )
    assert (named["=later"]["done"], named["=later"]["total"]) == (1200, 5000)
    assert named["lfw"]["state"] == "missing"
    assert named["lfw"]["get"] == LAYOUTS["lfw"].facts.get
    assert main(["data", "list", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(printed(capsys))))
    assert [row["name"].lstrip("'") for row in rows] == [entry["name"] for entry in entries]
    assert rows[0]["name"] == "'=later"  # no spreadsheet takes it for a formula


def test_a_folder_without_sets_lists_what_can_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "list", "--root", str(tmp_path)]) == 0
    out = printed(capsys)
    assert out.startswith("No prepared set in ")
    assert all(name in out for name in LAYOUTS)


def test_a_damaged_set_says_what_is_wrong_in_the_list(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / IMAGES).unlink()
    assert main(["data", "list"]) == 0
    assert "toy: images.npy is missing. Put the file back, or" in printed(capsys)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_known_set_is_shown_with_terms_and_command(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folder.is_dir()
    assert main(["data", "show", name]) == 0
    out, facts = printed(capsys), LAYOUTS[name].facts
    words = " ".join(out.split())
    for text in (facts.title, facts.home, facts.terms, facts.get, *facts.folder):
        assert " ".join(text.split()) in words
    assert out.endswith(f"mibench data prepare {name} --from DIR\n")


@pytest.mark.parametrize("place", ["data/toy", "toy"])
def test_a_prepared_set_is_shown_whole(place: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.is_dir()
    assert main(["data", "show", place]) == 0
    out = printed(capsys)
    assert "10: 4 to 4 images each, median 4" in out
    assert "5  is empty: 0.png, 1.png, 2.png ..." in out
    assert "1  cannot be decoded: e\N{REPLACEMENT CHARACTER}[31mvil name\N{REPLACEMENT CHARACTER}.png" in out
    assert "CMYK  2" in out
    assert "default.json  private 4, public 3, defender 3" in out
    assert "no: keep images, and what attacks make of them, to yourself" in out
    assert max(map(len, out.splitlines())) <= 100


def test_what_is_no_set_is_said_to_be_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos").mkdir()
    assert main(["data", "show", "photos"]) == 2
    assert "Make a set of it by `mibench data prepare" in capsys.readouterr().err
    assert main(["data", "show", "celebb"]) == 2
    assert "celeba" in capsys.readouterr().err
    assert main(["data", "show", "celeba", "--sheet", "a.png"]) == 2
    assert "there are no images for a sheet" in capsys.readouterr().err
    (folder / IMAGES).unlink()
    assert main(["data", "show", "data/toy"]) == 2
    assert "prepared set data/toy: images.npy is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["data/later.part", "data/later", "later"])
def test_an_unfinished_set_says_how_to_go_on(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(folder.parent, "later")
    assert main(["data", "show", name]) == 0
    out = " ".join(printed(capsys).split())
    assert out.startswith(
        "later unfinished: 1,200 of about 5,000 images read; go on by `mibench data prepare"
    )


def test_a_sheet_is_written_once_with_its_terms(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "show", str(folder), "--sheet", "sheet.png", "--identities", "3", "--images", "2"]
    assert main(command) == 0
    assert "Not to be published. Terms: For research alone." in printed(capsys)
    with Image.open("sheet.png") as image:
        assert (image.format, image.info) == ("PNG", {})
        assert 3 * (96 + 20) < image.height < 4 * (96 + 40)
    assert sorted(path.name for path in Path().iterdir()) == ["data", "sheet.png", "source"]
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    Path("block").touch()
    assert main(["data", "show", str(folder), "--sheet", "block/sheet.png"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_sound_set_is_verified_with_its_splits_and_source(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", str(folder), "--source", "source"]) == 0
    lines = printed(capsys).splitlines()
    assert len(lines) == 12
    assert all(line.startswith("ok    ") for line in lines)
    assert "split toy/default.json, private" in "".join(lines)


def test_a_failed_check_is_one_line_and_exit_code_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**raw, "skipped": {"is empty": 5, "cannot be\x1b[2J decoded": 1}}))
    assert main(["data", "verify", str(folder)]) == 1
    failed = [line for line in printed(capsys).splitlines() if line.startswith("fail")]
    assert len(failed) == 1
    assert failed[0].startswith("fail  left out: 'cannot be")


def test_several_sets_and_splits_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_set(Path("data"), toy_pixels(4), list("aabb"), name="second")
    other = Path("other.json")
    other.write_text((folder / "splits" / "default.json").read_text().replace("../../toy", "../toy"))
    assert main(["data", "verify", "data/toy", "data/second", "--split", "other.json"]) == 1
    out = printed(capsys)
    assert "ok    toy: images.npy" in out
    assert "ok    second: images.npy" in out
    assert "fail  split other.json, set 'toy': names its set 'toy' by the path '..'" in out
    assert "ok    split toy/default.json, private" in out
    assert main(["data", "verify", "data/toy", "data/../data/toy"]) == 0
    assert "ok    data/../data/toy: images.npy" in printed(capsys)  # two of one name are told by their paths
    assert main(["data", "verify", str(folder / "splits" / "default.json")]) == 0
    assert len(printed(capsys).splitlines()) == 4


def test_verify_says_what_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "data/none"]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert main(["data", "verify", str(folder), str(folder), "--source", "source"]) == 2
    assert main(["data", "verify", "source"]) == 1  # a folder, and no set


def test_a_name_in_an_error_reaches_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J"
    one = make_set(tmp_path, toy_pixels(4), [hostile, "a", hostile, "b"])
    lines = (one / "manifest.csv").read_text(encoding="utf-8").splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (one / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["data", "split", str(one), "--private", "2"]) == 2
    told = capsys.readouterr().err
    assert "rows in two places" in told
    assert "\x1b" not in told


def test_the_doctor_ends_with_1_where_something_is_broken_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(Path("data"), "later")
    assert main(["data", "doctor"]) == 0
    out = printed(capsys)
    assert "warn  later.part: is unfinished: 1,200 of about 5,000 images read" in out
    assert out.endswith("Nothing is broken.\n")
    np.save(folder / IMAGES, toy_pixels(3))
    assert main(["data", "doctor"]) == 1
    assert "fail  toy: images.npy is cut short: it has" in printed(capsys)


def test_the_doctor_names_all_pairs_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = toy_pixels(12)
    pixels[6:] = pixels[:6]
    make_set(tmp_path, pixels, [str(place // 2) for place in range(12)])
    assert main(["data", "doctor", "--root", str(tmp_path)]) == 0
    assert "and 3 more" in printed(capsys)
    assert main(["data", "doctor", "--root", str(tmp_path), "--all"]) == 0
    assert "row 11 (5/11.png) is row 5 (2/5.png). Remove" in printed(capsys)


@pytest.mark.parametrize("name", ["prepare", "split", "list", "show", "verify", "doctor", "overlap"])
def test_help_is_written_for_users(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage: mibench data" in out
    assert not [word for word in ("Raises", "DataError", "Args:") if word in out]


@pytest.mark.parametrize(
    "words",
    [
        ["verify", "data/toy", "--source", "source"],
        ["split", "data/toy", "--private", "4", "--name", "second"],
        ["doctor"],
        ["list"],
        ["show", "data/toy"],
        ["show", "data/toy", "--sheet", "sheet.png"],
    ],
)
def test_nobody_waits_for_torch_who_does_not_need_it(words: list[str], folder: Path) -> None:
    assert folder.is_dir()
    script = (
        "import sys; from mibench.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules, 'torch'; sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "data", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("counts", "line", "width"),
    [
        ([1, 1, 2, 4], "█▄ ▄", 1),
        ([7, 7], "█", 1),
        ([1] * 1000 + [3], "█ ▁", 1),
        ([1, 49], "█" + " " * 15 + "█", 3),
    ],
)
def test_people_by_images_are_drawn_as_bars(counts: list[int], line: str, width: int) -> None:
    assert histogram(counts) == (line, width)
    assert len(line) <= 24
