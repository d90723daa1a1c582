"""`mibench data prepare`: exit codes, what it prints, what it imports, and where the set lies."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mibench.cli import main
from mibench.data.prepared import PreparedSet
from mibench.data.preparing import Interrupted


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three people, and the current folder beside it."""
    draw = np.random.default_rng(0)
    for person in ("ann", "ben", "eve"):
        folder = tmp_path / "photos" / person
        folder.mkdir(parents=True)
        for image in range(2):
            pixels = draw.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{image}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def run(*words: str) -> int:
    return main(["data", "prepare", *words])


def test_it_says_what_was_made_and_what_comes_next(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "eve" / "0.png").write_bytes(b"")
    Image.new("CMYK", (9, 9)).save(source / "eve" / "2.jpg")
    assert run("image_folder", "--from", "photos", "--size", "8", "--licence", "my\x1b[31m own") == 0
    out, errors = capsys.readouterr()
    assert errors == ""
    lines = out.splitlines()
    assert re.fullmatch(r"data/image_folder-8: done \(7 images read in \d+\.\d s, [\d,]+/s\)", lines[0])
    assert lines[1:4] == [
        "6 images, 3 identities, 8x8 RGB",
        "left out          1  is empty",
        "converted         1  CMYK",
    ]
    assert "my\N{REPLACEMENT CHARACTER}[31m own Images must not stand on public pages." in lines[4]
    assert lines[5] == (
        "Next: `mibench data verify data/image_folder-8`, then "
        "`mibench data split data/image_folder-8 --private N`."
    )
    assert run("image_folder", "--from", "photos", "--size", "8", "--licence", "my\x1b[31m own") == 0
    assert (
        "there already and whole, with the same options and files. Nothing to do." in capsys.readouterr().out
    )


def test_names_sizes_and_places(source: Path) -> None:
    del source
    assert run("image_folder", "--from", "photos", "--name", "mine") == 0
    assert PreparedSet("data/mine-64").info.name == "mine"
    words = ["--to", "deep/er/set", "--size", "16", "--channels", "1", "--jobs", "1", "--max-images", "1"]
    assert run("image_folder", "--from", "photos", *words, "--licence", "free", "--may-publish") == 0
    info = PreparedSet("deep/er/set").info
    assert (info.size, info.channels, info.images, info.may_publish) == (16, 1, 3, True)


def test_bad_input_exits_with_two(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del source
    assert run("celebb", "--from", "photos") == 2
    assert "Did you mean 'celeba'?" in capsys.readouterr().err
    assert run("image_folder", "--from", "nowhere") == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert run("image_folder", "--from", "photos", "--channels", "2") == 2
    assert run("image_folder", "--from", "photos", "--crop", "8", "--fit", "pad") == 2
    assert run("image_folder", "--from", "photos", "--identities", "1") == 2
    assert run("image_folder", "--from", "photos", "--align", "landmarks") == 2
    assert run("ffhq", "--from", "photos", "--identities", "5") == 2
    assert "does not say who is on its images" in capsys.readouterr().err
    assert not Path("data").exists()


@pytest.mark.parametrize("restart", [False, True])
def test_a_stop_exits_with_130_and_says_what_goes_on(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restart: bool
) -> None:
    del source

    def stop(*_args: object, **_options: object) -> None:
        raise Interrupted(3200)

    monkeypatch.setattr("mibench.data.preparing.prepare", stop)
    assert run("image_folder", "--from", "photos", *["--restart"] * restart) == 130
    without = " without --restart" if restart else ""
    assert capsys.readouterr().err == f"stopped after 3,200 images; the same command{without} goes on\n"


def test_progress_is_a_line_now_and_then_without_a_terminal(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del source
    import sys as system

    monkeypatch.setattr(system.modules["mibench.cli_data.prepare"], "_LINE_S", 0.0)
    assert run("image_folder", "--from", "photos", "--size", "8") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("4 of 6 images read, 4 kept, ")
    assert all(re.fullmatch(r"\d of 6 images read, \d kept, [\d,]+/s", line) for line in lines)


def test_torch_is_not_waited_for(source: Path) -> None:
    script = (
        "import sys; from mibench.cli import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules, 'torch'; assert 'scipy' not in sys.modules; sys.exit(code)"
    )
    words = ["data", "prepare", "folder", "--from", str(source), "--to", str(source.parent / "set")]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_terms_that_nobody_gave_are_told_as_that(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del source
    assert run("image_folder", "--from", "photos", "--size", "8") == 0
    said = "Terms: not given; name them by --licence. Images must not stand on public pages."
    assert said in capsys.readouterr().out
    assert PreparedSet("data/image_folder-8").info.terms == "Not given."


def test_a_set_without_people_is_told_to_be_public(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "thumbnails128x128" / "00000"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for image in range(3):
        pixels = draw.integers(0, 256, (128, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{image:05d}.png")
    target = tmp_path / "my faces"
    assert run("ffhq", "--from", str(tmp_path), "--to", str(target / "inside")) == 2
    assert "lies inside the source" in capsys.readouterr().err
    (tmp_path / "source").mkdir()
    (tmp_path / "thumbnails128x128").rename(tmp_path / "source" / "thumbnails128x128")
    assert run("ffhq", "--from", str(tmp_path / "source"), "--to", str(target)) == 0
    out = capsys.readouterr().out
    assert "3 images, nobody named, 64x64 RGB" in out
    assert f"`mibench data split PRIVATE_SET --public-set '{target}' --private N`" in out
    assert PreparedSet(target).info.options["crop"] == 88
