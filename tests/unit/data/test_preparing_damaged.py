"""A finished set that was damaged: prepare says so, makes it anew, and keeps what was divided."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.data.prepared import IMAGES, INFO, MANIFEST, SKIPPED, PreparedSet
from mibench.data.preparing import prepare
from mibench.data.preparing_swap import aside_of, bring_back
from mibench.data.preparing_work import told_bytes
from mibench.data.verifying import verify_set
from mibench.errors import DataError

from .photos import asked, content, photos


def gone(file: Path) -> None:
    file.unlink()


def short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def edited(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(bytes(data))


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def garbage(file: Path) -> None:
    file.write_text("{")


DAMAGE = [
    (IMAGES, gone, "images.npy is missing"),
    (IMAGES, short, "images.npy is cut short"),
    (IMAGES, edited, "images.npy was changed: its SHA-256"),
    (IMAGES, folder, "images.npy is a folder and no file"),
    (MANIFEST, gone, "manifest.csv is missing"),
    (MANIFEST, edited, "manifest.csv was changed"),
    (SKIPPED, gone, "skipped.csv is missing"),
    (SKIPPED, edited, "skipped.csv was changed"),
    (INFO, gone, "set.json is missing"),
    (INFO, folder, "set.json is missing"),
    (INFO, garbage, "set.json cannot be used"),
]


@pytest.mark.parametrize(("name", "act", "said"), DAMAGE)
def test_a_damaged_set_is_told_and_made_anew_with_its_splits(
    tmp_path: Path, name: str, act: Callable[[Path], None], said: str
) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    wanted = content(target)
    (target / "splits").mkdir()
    (target / "splits" / "mine.json").write_text("{}")
    act(target / name)
    with pytest.raises(DataError, match=said) as caught:
        prepare(asked(source, target))
    assert "with --restart: the same files give the same images, and splits stay" in str(caught.value)
    assert "Errno" not in str(caught.value)
    assert prepare(asked(source, target, restart=True)).is_new
    assert (target / "splits" / "mine.json").read_text() == "{}"
    shutil.rmtree(target / "splits")
    assert content(target) == wanted
    assert {one.status for one in verify_set(target)} == {"ok"}
    assert not prepare(asked(source, target)).is_new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set"]


def test_what_is_not_recognisably_a_set_is_never_replaced(tmp_path: Path) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    (target / INFO).unlink()
    (target / "thesis.tex").write_text("mine")
    for restart in (False, True):
        with pytest.raises(DataError, match="something else lies there"):
            prepare(asked(source, target, restart=restart))
    shutil.rmtree(target)
    (target / "splits").mkdir(parents=True)
    with pytest.raises(DataError, match="something else lies there"):
        prepare(asked(source, target, restart=True))


def test_a_folder_with_things_in_it_is_not_taken_for_a_file_of_the_set(tmp_path: Path) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    folder(target / IMAGES)
    (target / IMAGES / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match=r"images\.npy is a folder with things in it"):
        prepare(asked(source, target, restart=True))
    assert (target / IMAGES / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "set.part").exists()


def test_splits_that_a_stop_left_aside_come_back_with_the_next_command(tmp_path: Path) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    splits = aside_of(target) / "splits"
    splits.mkdir(parents=True)
    (splits / "mine.json").write_text("old")
    (aside_of(target) / IMAGES).touch()
    assert not prepare(asked(source, target)).is_new
    assert (target / "splits" / "mine.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "set"]


def test_nothing_is_replaced_by_what_comes_back(tmp_path: Path) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    for place, text in ((aside_of(target), "old"), (target, "new")):
        (place / "splits").mkdir(parents=True)
        (place / "splits" / "mine.json").write_text(text)
        (place / "splits" / f"{text}.json").write_text(text)
        (place / "splits" / "same.json").write_text("same")
    notes: list[str] = []
    prepare(asked(source, target), on_note=notes.append)
    assert sorted(path.name for path in (target / "splits").iterdir()) == [
        "mine.json",
        "new.json",
        "old.json",
        "same.json",
    ]
    assert (target / "splits" / "mine.json").read_text() == "new"
    assert notes == [bring_back(target)]
    assert notes[0].startswith(f"{aside_of(target)} holds splits/mine.json of the set that was replaced, and")


def test_a_set_that_cannot_be_put_into_its_place_leaves_the_old_one_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target))
    (target / "splits").mkdir()
    real = Path.rename

    def rename(self: Path, place: Path) -> Path:
        if self.name == "set.part":
            raise PermissionError(13, "Permission denied")
        return real(self, place)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(DataError, match=r"cannot be written \(Permission denied\)"):
            prepare(asked(source, target, size=16, restart=True))
    assert PreparedSet(target).info.size == 8
    assert (target / "splits").is_dir()
    assert not aside_of(target).exists()


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {"max_images": 2}, "max_images none then and 2 now"),
        ({"licence": "Ours."}, {}, "licence 'Ours.' then and none now"),
        ({"licence": "Ours."}, {"licence": "Ours.", "may_publish": True}, "may_publish no then and yes now"),
        ({}, {"fit": "pad"}, "boxes yes then and no now"),
    ],
)
def test_other_options_are_told_with_their_values(
    tmp_path: Path, before: dict[str, object], now: dict[str, object], said: str
) -> None:
    source, target = photos(tmp_path / "photos"), tmp_path / "set"
    prepare(asked(source, target, **before))
    with pytest.raises(DataError, match=f"with other options: {said}"):
        prepare(asked(source, target, **now))


def test_bytes_are_told_in_a_unit_that_there_is_some_of() -> None:
    assert [told_bytes(count) for count in (0, 50_000, 7_340_032, 2 * 10**12)] == [
        "0.0 kB",
        "50.0 kB",
        "7.3 MB",
        "2,000.0 GB",
    ]
