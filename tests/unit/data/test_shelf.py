"""What lies below a folder of prepared sets, and what is told about all of it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mibench.data import shelf_health
from mibench.data.dividing import Division, divide
from mibench.data.finding import Finding
from mibench.data.health import SAME_BYTES
from mibench.data.prepared import IMAGES, INFO, MANIFEST, PreparedSet
from mibench.data.preparing_state import LOCK, PROGRESS, Position, Progress
from mibench.data.shelf import shelf
from mibench.data.shelf_health import look_after
from mibench.errors import DataError

from .make_set import make_set, toy_pixels

COMMAND = "mibench data prepare celeba --from /a --to /b"


def begin(root: Path, name: str = "begun", *, replaces: bool = False, bytes_left: int = 5000) -> Path:
    """An unfinished preparation, as it is left by a kill."""
    folder = root / f"{name}.part"
    folder.mkdir(parents=True)
    progress = Progress(
        options={},
        made_with={},
        command=COMMAND,
        layout="celeba",
        replaces=replaces,
        done=1200,
        total=5000,
        bytes_left=bytes_left,
        position=Position(),
    )
    (folder / PROGRESS).write_text(json.dumps(dataclasses.asdict(progress)))
    for file in (IMAGES, MANIFEST, LOCK):
        (folder / file).touch()
    return folder


def good(root: Path, name: str = "good") -> Path:
    return make_set(root, toy_pixels(24), [str(place // 2) for place in range(24)], name=name)


def told(root: Path, status: str = "") -> dict[str, str]:
    """Texts of the doctor, but for those about the machine, of one status if one is named."""
    found: list[Finding] = [one for one in look_after(root) if one.what not in ("facenet-pytorch", "disk")]
    return {one.what: one.text for one in found if status in ("", one.status)}


def _images_as_folder(folder: Path) -> None:
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()


def test_sets_are_listed_by_name_with_their_state(tmp_path: Path) -> None:
    good(tmp_path, "b")
    begin(tmp_path, "c")
    damaged = good(tmp_path, "a")
    (damaged / MANIFEST).write_text("")
    (tmp_path / "notes").mkdir()
    (tmp_path / "file.txt").touch()
    found = shelf(tmp_path)
    assert [(one.name, one.state) for one in found] == [
        ("a", "damaged"),
        ("b", "complete"),
        ("c", "unfinished"),
    ]
    assert [one.layout for one in found] == ["image_folder", "image_folder", "celeba"]
    assert found[2].text == f"1,200 of about 5,000 images read; go on by `{COMMAND}`"


def test_the_folder_may_be_a_set_itself_or_not_be_there(tmp_path: Path) -> None:
    folder = good(tmp_path)
    assert [one.folder for one in shelf(folder)] == [folder]
    assert shelf(tmp_path / "nowhere") == []


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)"):
        shelf(tmp_path)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / IMAGES).unlink(), "images.npy is missing"),
        (
            lambda folder: (folder / IMAGES).write_bytes(b"1"),
            "images.npy is cut short: it has 1 bytes, set.json says",
        ),
        (lambda folder: (folder / INFO).write_text("{"), "set.json cannot be used"),
        (lambda folder: (folder / INFO).unlink(), "set.json is missing"),
        (_images_as_folder, "images.npy is a folder and no file"),
    ],
)
def test_damage_is_told_without_reading_images(tmp_path: Path, break_it: object, said: str) -> None:
    assert callable(break_it)
    break_it(good(tmp_path))
    (found,) = shelf(tmp_path)
    assert found.state == "damaged"
    assert said in found.text
    assert said in told(tmp_path, "fail")["good"]


def test_a_preparation_at_work_is_told_from_one_that_stopped(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    with (folder / LOCK).open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        assert shelf(tmp_path)[0].text.endswith("another process prepares it at this moment")
    assert shelf(tmp_path)[0].text.endswith(f"go on by `{COMMAND}`")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 1, "position": {}}', None])
def test_a_preparation_whose_state_cannot_be_read_is_listed(tmp_path: Path, content: str | None) -> None:
    folder = begin(tmp_path)
    if content is None:
        raw = json.loads((folder / PROGRESS).read_text())
        content = json.dumps({**raw, "done": "many"})
    (folder / PROGRESS).write_text(content)
    (found,) = shelf(tmp_path)
    assert (found.state, found.progress, found.layout) == ("unfinished", None, "")
    assert "nothing of it was kept" in found.text


def test_a_whole_set_that_was_not_moved_is_told(tmp_path: Path) -> None:
    folder = good(tmp_path)
    folder.rename(tmp_path / "good.part")
    (found,) = shelf(tmp_path)
    assert (found.name, found.state) == ("good", "unfinished")
    assert found.text.startswith("it is whole and was not put into its place")


def test_nothing_is_wrong_with_an_empty_folder_or_a_good_set(tmp_path: Path) -> None:
    assert told(tmp_path)["sets"].startswith("none in ")
    good(tmp_path)
    assert told(tmp_path) == {"good": "whole, 24 images of 12 people; nothing odd"}


def test_the_images_of_every_whole_set_are_looked_at(tmp_path: Path) -> None:
    folder = good(tmp_path)
    pixels = np.array(PreparedSet(folder).pixels)
    pixels[3] = 0
    other = make_set(tmp_path, pixels, [str(place // 2) for place in range(24)], name="odd")
    seen: dict[str, int] = {}

    def on_set(name: str, rows: int) -> Callable[[int], object]:
        assert rows == 24
        seen[name] = 0
        return lambda count: seen.update({name: seen[name] + count})

    assert list(look_after(tmp_path, on_set))
    assert seen == {"good": 24, other.name: 24}
    assert told(tmp_path)["odd"] == "whole, 24 images of 12 people; to be looked at: 1"
    assert told(tmp_path, "warn")["odd: blank"].startswith("1 image: row 3 (1/3.png).")


def test_a_source_that_is_gone_is_a_note_alone(tmp_path: Path) -> None:
    make_set(tmp_path, toy_pixels(6), list("aabbcc"), options={"from": str(tmp_path / "gone")})
    assert told(tmp_path, "ok")["toy: source"].startswith(f"{tmp_path / 'gone'} is gone")
    (tmp_path / "gone").mkdir()
    assert "toy: source" not in told(tmp_path)


def test_leftovers_are_named(tmp_path: Path) -> None:
    good(tmp_path)
    begin(tmp_path, "good")
    begin(tmp_path, "other")
    (tmp_path / ".good.replaced" / "splits").mkdir(parents=True)
    (tmp_path / ".good.replaced" / "splits" / "mine.json").touch()
    found = told(tmp_path, "warn")
    assert found["good.part"].startswith("is left over, for good is there.")
    assert found["other.part"].startswith("is unfinished: 1,200 of about 5,000")
    assert found[".good.replaced"].startswith(
        "holds the rest of a set that was replaced, among it splits/ with mine.json. The command that "
        f"prepared good brings it back; or move what you need to {tmp_path / 'good'}"
    )


def test_a_preparation_that_will_replace_a_set_is_no_leftover(tmp_path: Path) -> None:
    good(tmp_path)
    begin(tmp_path, "good", replaces=True)
    assert told(tmp_path, "warn")["good.part"].startswith("is unfinished")


def test_room_on_the_disk_is_compared_with_what_is_unfinished(tmp_path: Path) -> None:
    good(tmp_path)
    begin(tmp_path, bytes_left=10**18)
    (disk,) = (one for one in look_after(tmp_path) if one.what == "disk")
    assert disk.status == "warn"
    assert "still need about 931322574.6 GiB" in disk.text


def test_splits_are_held_against_their_sets(tmp_path: Path) -> None:
    folder = good(tmp_path)
    for file in (folder / "splits" / "a.json", tmp_path / "b.json"):
        file.parent.mkdir(exist_ok=True)
        one = PreparedSet(folder)
        file.write_text(divide(Division(private=4), one, one, one, file=file).to_json())
    (tmp_path / "notes.json").write_text("{}")
    assert {name for name in told(tmp_path) if name.startswith("split")} == {
        f"split {name}.json{part}"
        for name in ("good/a", "b")
        for part in ("", ", private", ", public", ", defender")
    }
    said = told(tmp_path, "ok")["split b.json, public"]
    assert said.endswith("whose set is the one it names; `mibench data verify` computes the digests")
    folder.rename(tmp_path / "moved")
    assert told(tmp_path, "fail") == {
        "split b.json, set 'good'": "names its set 'good' by the path 'good' from its own folder, and in "
        f"{folder} there is no set. Put the split back beside its set, or move both together."
    }


@pytest.mark.parametrize("damage", ["gone", "short", "no set.json"])
def test_no_split_over_a_damaged_set_is_called_as_divided(tmp_path: Path, damage: str) -> None:
    folder = good(tmp_path)
    file, one = folder / "splits" / "a.json", PreparedSet(folder)
    file.parent.mkdir()
    file.write_text(divide(Division(private=4), one, one, one, file=file).to_json())
    match damage:
        case "gone":
            (folder / IMAGES).unlink()
        case "short":
            (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-1])
        case "no set.json":
            (folder / INFO).unlink()
    assert list(told(tmp_path, "fail")) == ["good"]  # one damaged file is one failed line
    assert [text for name, text in told(tmp_path, "ok").items() if "," in name] == []
    assert told(tmp_path, "warn")["split good/a.json"].endswith("for that set is damaged")


def test_a_missing_library_is_told_with_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_health, "OPTIONAL", {"no-such-library": "--option"})
    (found,) = (one for one in look_after(tmp_path) if one.what == "no-such-library")
    assert (found.status, found.text) == (
        "warn",
        "missing; --option needs it. Run `pip install no-such-library`.",
    )


def test_copies_are_counted_by_the_reasons_that_preparations_give() -> None:
    from mibench.data import preparing_work

    assert preparing_work.SAME_PERSON.startswith(SAME_BYTES)
    assert preparing_work.SAME_BYTES.startswith(SAME_BYTES)
