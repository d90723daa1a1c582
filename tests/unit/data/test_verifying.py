"""Verifying: a sound set passes, and every kind of damage is told by the check that it breaks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibench.data.damage import sha256_of
from mibench.data.dividing import Division, divide
from mibench.data.finding import Finding
from mibench.data.prepared import IMAGES, INFO, MANIFEST, SKIPPED, PreparedSet
from mibench.data.spelling import spelled
from mibench.data.verifying import bytes_to_read, verify_set, verify_source
from mibench.data.verifying_splits import splits_beside, verify_split
from mibench.errors import DataError

from .make_set import file_states, make_set, toy_pixels

WHO = ["b", "a", "b", "a", "c", "c"]
LEFT_OUT = [("b/9.png", "is empty"), ("c/8.png", "is empty"), ("x.png", "cannot be decoded")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_set(tmp_path, toy_pixels(6), WHO, source=tmp_path / "source", skipped=LEFT_OUT)


def failed(findings: Any) -> dict[str, str]:
    return {one.what: one.text for one in findings if one.status == "fail"}


def change(folder: Path, **fields: object) -> None:
    """Other values in set.json; the digests of the files are as they now are, unless they are given."""
    raw = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**raw, "files": file_states(folder), **fields}))


def edit(folder: Path, old: str, new: str, name: str = MANIFEST) -> None:
    """Another manifest whose digest is recorded as if it were right."""
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8", newline="")
    change(folder)


def test_a_sound_set_passes_every_check(folder: Path) -> None:
    read: list[int] = []
    findings = list(verify_set(folder, read.append))
    assert {one.status for one in findings} == {"ok"}
    assert [one.what for one in findings] == [INFO, IMAGES, MANIFEST, SKIPPED, "shape", "rows", "left out"]
    assert sum(read) == bytes_to_read(folder) == sum(state["bytes"] for state in file_states(folder).values())


@pytest.mark.parametrize("name", [IMAGES, MANIFEST, SKIPPED])
def test_one_changed_byte_of_any_file_is_found(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(bytes(data))
    assert "its SHA-256 begins with" in failed(verify_set(folder))[name]


@pytest.mark.parametrize("name", [IMAGES, MANIFEST, SKIPPED])
def test_a_missing_file_is_found(folder: Path, name: str) -> None:
    (folder / name).unlink()
    found = failed(verify_set(folder))
    assert list(found) == [name]  # what needs the file is not looked at
    assert found[name].startswith("is missing. Put the file back, or")
    assert "--restart" in found[name]


def test_a_truncated_file_is_found_without_reading_it(folder: Path) -> None:
    data = (folder / IMAGES).read_bytes()
    (folder / IMAGES).write_bytes(data[:-100])
    found = failed(verify_set(folder))
    assert list(found) == [IMAGES]
    assert found[IMAGES].startswith(
        f"is cut short: it has {len(data) - 100:,} bytes, set.json says {len(data):,}"
    )
    with pytest.raises(DataError, match=r"toy: images\.npy is cut short: it has"):
        _ = PreparedSet(folder).pixels


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x10\x00{'descr': (((\n", b"PK\x03\x04"]
)
def test_a_file_that_is_no_array_is_found(folder: Path, content: bytes) -> None:
    (folder / IMAGES).write_bytes(content)
    change(folder)
    said = failed(verify_set(folder))["shape"]
    assert said.startswith("images.npy cannot be read: it holds no array of numpy's. Put")


def test_images_of_another_shape_are_found(folder: Path) -> None:
    np.save(folder / IMAGES, toy_pixels(6, size=8))
    change(folder)
    assert "images.npy holds (6, 3, 8, 8) uint8" in failed(verify_set(folder))["shape"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\n1,b,", "\n7,b,", "line 3: it says row '7', 1 is next"),
        ("1,b,b/2.png", "1,c,b/2.png", "line 6: 'c' has rows in two places"),
        ("b/2.png", "b/0.png", "line 3: the file 'b/0.png' stands there twice"),
        ("2,a,", "2,,", "line 4: it has no identity or no file"),
        (",16,16,RGB\r\n", ",16,0,RGB\r\n", "line 2: height '0' is no number of pixels"),
        (",16,16,RGB\r\n", ",16\r\n", "line 2: it has too few or too many cells"),
        (",16,16,RGB\r\n", ",16,16,RGB,more\r\n", "line 2: it has too few or too many cells"),
        ("row,identity", "number,identity", "has not the columns"),
        ("4,c,", "4,d,", "manifest.csv has 4 identities, set.json says 3"),
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_agree_with_itself_is_found(
    folder: Path, old: str, new: str, said: str
) -> None:
    text = (folder / MANIFEST).read_bytes().decode()
    assert old in text
    (folder / MANIFEST).write_bytes(text.replace(old, new, 1).encode())
    change(folder)
    found = failed(verify_set(folder))
    assert set(found) == {"rows"}
    assert said in found["rows"]


def test_a_digest_that_is_none_is_found(folder: Path) -> None:
    first = next(PreparedSet(folder).manifest())["sha256"]
    edit(folder, first, first[:-1] + "g")
    assert "is no SHA-256" in failed(verify_set(folder))["rows"]


def test_a_manifest_without_its_last_row_is_found(folder: Path) -> None:
    lines = (folder / MANIFEST).read_bytes().splitlines(keepends=True)
    (folder / MANIFEST).write_bytes(b"".join(lines[:-1]))
    change(folder)
    assert "manifest.csv has 5 images, set.json says 6" in failed(verify_set(folder))["rows"]


def test_a_manifest_that_is_no_text_is_found(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"row,identity\xff\xfe")
    change(folder)
    assert "cannot be read" in failed(verify_set(folder))["rows"]


def test_other_numbers_of_left_out_files_are_found(folder: Path) -> None:
    change(folder, skipped={"is empty": 1, "cannot be decoded": 1})
    assert failed(verify_set(folder))["left out"].startswith("'is empty': 2 in skipped.csv, set.json says 1")


def test_images_of_nobody_stand_for_themselves(tmp_path: Path) -> None:
    good = make_set(tmp_path, toy_pixels(3), ["1", "2", "3"], has_identities=False)
    bad = make_set(tmp_path, toy_pixels(3), ["1", "1", "3"], has_identities=False, name="bad")
    assert failed(verify_set(good)) == {}
    assert "several images under one name" in failed(verify_set(bad))["rows"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": "16"}, "'size': Input should be a valid integer"),
        ({"skipped": {"is empty": "two"}}, "'skipped.is empty'"),
        ({"files": {}}, "no digest of images.npy, manifest.csv, skipped.csv"),
        ({"schema": 2}, "schema is not 1"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_set_json_of_other_types_is_told_and_nothing_else_is_read(
    folder: Path, fields: dict[str, Any], said: str
) -> None:
    change(folder, **fields)
    findings = list(verify_set(folder))
    assert [(one.status, one.what) for one in findings] == [("fail", INFO)]
    assert said in findings[0].text


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/b", "a\\b", "..", ""])
def test_no_file_outside_of_the_set_is_read(folder: Path, name: str) -> None:
    (folder.parent / "secret").write_text("s")
    change(folder, files={**file_states(folder), name: {"sha256": "0" * 64, "bytes": 1}})
    findings = list(verify_set(folder))
    assert [one.status for one in findings] == ["fail"]
    assert "leads out of the folder" in findings[0].text


def test_an_unfinished_set_fails(folder: Path) -> None:
    (folder / INFO).unlink()
    assert failed(verify_set(folder))[INFO].startswith("set.json is missing. Put the file back, or")
    assert bytes_to_read(folder) == 0


def test_the_source_is_compared_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    source, seen = tmp_path / "source", list[int]()
    assert verify_source(folder, source, seen.append).status == "ok"
    assert sum(seen) == 6
    (source / "a" / "1.png").unlink()
    (source / "b" / "2.png").write_bytes(b"other")
    found = verify_source(folder, source)
    assert found.status == "fail"
    assert "1 missing (a/1.png), 1 changed (b/2.png), 4 the same" in found.text
    shutil.rmtree(source)
    assert "6 missing (b/0.png, b/2.png, a/1.png and 3 more)" in verify_source(folder, source).text


def test_a_source_one_folder_off_is_noticed(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    inside = verify_source(folder, source / "b").text
    assert f"Those that are missing lie in {source}: give that folder by --source." in inside
    (tmp_path / "around").mkdir()
    moved = source.rename(tmp_path / "around" / "source")
    assert f"lie in {moved}: give that folder" in verify_source(folder, tmp_path / "around").text
    for person in ("a", "b"):
        shutil.rmtree(moved / person)
    said = verify_source(folder, moved).text
    assert "All that are there lie in c/, so this is a part of the source." in said
    assert "by --source" not in said


def test_a_source_file_of_any_name_is_found_again(folder: Path, tmp_path: Path) -> None:
    strange = "b/new\nline \\ \udcff.png"
    (tmp_path / "source" / "b" / "2.png").rename(tmp_path / "source" / strange)
    edit(folder, "b/2.png", spelled(strange))
    assert failed(verify_set(folder)) == {}
    assert verify_source(folder, tmp_path / "source").status == "ok"


def test_a_name_with_a_zero_byte_is_a_missing_file(folder: Path, tmp_path: Path) -> None:
    edit(folder, "b/2.png", spelled("b/\0.png"))
    assert "1 missing" in verify_source(folder, tmp_path / "source").text


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    import hashlib

    data = toy_pixels(50, size=128).tobytes()  # several blocks
    (tmp_path / "big").write_bytes(data)
    assert sha256_of(tmp_path / "big") == hashlib.sha256(data).hexdigest()


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A split file beside a set of twelve people with four images each."""
    who = [f"p{place // 4}" for place in range(48)]
    folder = make_set(tmp_path, toy_pixels(48), who, name="twelve")
    file = folder / "splits" / "default.json"
    file.parent.mkdir()
    one = PreparedSet(folder)
    file.write_text(divide(Division(private=4), one, one, one, file=file).to_json())
    return file


def rewrite(file: Path, act: Callable[[dict[str, Any]], object]) -> list[Finding]:
    """The findings about a split with something changed."""
    raw = json.loads(file.read_text())
    act(raw)
    file.write_text(json.dumps(raw))
    return list(verify_split(file))


def test_a_sound_split_passes(split: Path) -> None:
    assert splits_beside(split.parents[1]) == [split]
    findings = list(verify_split(split))
    assert [one.status for one in findings] == ["ok"] * 4
    assert findings[0].text == "no identity stands in two parts: 4 private, 4 public, 4 defender"


def test_a_person_in_two_parts_is_found(split: Path) -> None:
    def share(raw: dict[str, Any]) -> None:
        raw["parts"]["public"]["people"][0] = raw["parts"]["private"]["people"][0]

    findings = rewrite(split, share)
    assert [one.status for one in findings] == ["fail"]
    assert "is both in the private part and the public part" in findings[0].text


def test_a_changed_set_is_found(split: Path) -> None:
    folder = split.parents[1]
    np.save(folder / IMAGES, toy_pixels(48, seed=9))
    change(folder)
    found = failed(verify_split(split))
    assert list(found) == ["split twelve/default.json, set 'twelve'"]
    assert "is not the one that was divided" in found["split twelve/default.json, set 'twelve'"]
    assert "splits" not in found["split twelve/default.json, set 'twelve'"]


def test_a_set_that_is_gone_is_found(split: Path) -> None:
    (split.parents[1] / INFO).unlink()
    found = failed(verify_split(split))
    assert found["split twelve/default.json, set 'twelve'"].startswith(
        f"prepared set {split.parents[1]}: set.json is missing."
    )


def test_a_split_that_was_moved_alone_says_where_its_set_should_be(split: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    alone = split.rename(tmp_path / "deep" / "er" / "mine.json")
    assert failed(verify_split(alone)) == {
        "split mine.json, set 'twelve'": "names its set 'twelve' by the path '..' from its own folder, and "
        f"in {tmp_path / 'deep'} there is no set. Put the split back beside its set, or move both together."
    }


def test_a_split_behind_a_link_finds_its_set(split: Path, tmp_path: Path) -> None:
    (tmp_path / "short").symlink_to(split.parent, target_is_directory=True)
    assert failed(verify_split(tmp_path / "short" / "default.json")) == {}


def test_images_changed_under_the_digest_of_the_set_are_found_by_reading_alone(split: Path) -> None:
    folder = split.parents[1]
    data = bytearray((folder / IMAGES).read_bytes())
    data[-48 * 3 * 16 * 16 :] = bytes(48 * 3 * 16 * 16)
    (folder / IMAGES).write_bytes(bytes(data))
    said = failed(verify_split(split))["split twelve/default.json, private"]
    assert said.startswith("its images or names are not those that were divided. images.npy was changed: ")
    assert "--restart" in said
    assert "ivide anew" not in said  # a frozen split is worth more than a file that can be made again
    assert failed(verify_split(split, with_pixels=False)) == {}


@pytest.mark.parametrize(
    ("person", "said"),
    [
        (lambda name, train, test: [name, [*train, 99], test], "row 99 is not of"),
        (lambda name, train, test: [name, [*train, -1], test], "row -1 is not of"),
        (lambda name, train, test: ["nobody", train, test], "'nobody' is not in"),
        (lambda name, train, test: [name, train[1:], test], "its images or names are not those"),
    ],
)
def test_rows_that_are_not_a_persons_own_are_found(split: Path, person: Any, said: str) -> None:
    def act(raw: dict[str, Any]) -> None:
        people = raw["parts"]["private"]["people"]
        people[0] = person(*people[0])

    found = failed(rewrite(split, act))["split twelve/default.json, private"]
    assert said in found
    assert "so the split file was edited: put it back, or divide anew" in found


def test_a_split_of_another_size_or_an_unnamed_set_is_found(split: Path) -> None:
    assert (
        "another size"
        in failed(rewrite(split, lambda raw: raw.update(size=32)))["split twelve/default.json, public"]
    )
    changed = rewrite(split, lambda raw: raw["parts"]["public"].update(set="other"))
    assert "which the file does not name" in failed(changed)["split twelve/default.json"]


def test_a_file_that_is_no_split_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert "is no split file" in failed(verify_split(tmp_path / "x.json"))["split x.json"]
    assert "cannot be read" in failed(verify_split(tmp_path / "y.json"))["split y.json"]
