"""Reading a prepared set: what it gives, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mibench.data.prepared import IMAGES, INFO, MANIFEST, PreparedSet
from mibench.errors import DataError

from .make_set import make_set, toy_pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_set(tmp_path, toy_pixels(5), ["b", "a", "b", "a", "c"])


def test_a_set_gives_its_images_and_whose_they_are(folder: Path) -> None:
    found, drawn = PreparedSet(folder), toy_pixels(5)
    assert found.rows_of == {"b": range(0, 2), "a": range(2, 4), "c": range(4, 5)}
    np.testing.assert_array_equal(found.pixels, drawn[[0, 2, 1, 3, 4]])
    assert [line["file"] for line in found.manifest()][1] == "b/2.png"
    assert (found.info.images, found.info.identities, found.info.channels) == (5, 3, 3)


def test_the_digest_depends_on_content_and_not_on_place(tmp_path: Path, folder: Path) -> None:
    same = make_set(tmp_path / "elsewhere", toy_pixels(5), ["b", "a", "b", "a", "c"], name="another")
    other = make_set(tmp_path / "other", toy_pixels(5, seed=1), ["b", "a", "b", "a", "c"])
    assert PreparedSet(same).info.digest == PreparedSet(folder).info.digest
    assert PreparedSet(other).info.digest != PreparedSet(folder).info.digest


def test_an_unfinished_or_unreadable_set_is_refused(folder: Path) -> None:
    (folder / INFO).write_text("[1]")
    with pytest.raises(DataError, match="schema is not 1"):
        PreparedSet(folder)
    (folder / INFO).unlink()
    with pytest.raises(DataError, match=r"set\.json is missing\. Put .* --restart"):
        PreparedSet(folder)
    with pytest.raises(DataError, match=r"there is no set\.json\. Make it by `mibench data prepare`"):
        PreparedSet(folder.parent)
    unfinished = folder.rename(folder.with_name("toy.part"))
    with pytest.raises(DataError, match="give an unfinished one the command that began it once more"):
        PreparedSet(unfinished)


def test_images_that_do_not_fit_are_refused(folder: Path) -> None:
    np.save(folder / IMAGES, toy_pixels(4))
    with pytest.raises(DataError, match=r"images\.npy holds \(4, 3, 16, 16\) uint8, set\.json says"):
        _ = PreparedSet(folder).pixels


def test_an_identity_in_two_places_is_refused(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    (folder / MANIFEST).write_text("\n".join([lines[0], lines[1], lines[3], lines[2]]), encoding="utf-8")
    with pytest.raises(DataError, match="'b' rows in two places"):
        _ = PreparedSet(folder).rows_of


def test_a_missing_row_is_refused(folder: Path) -> None:
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    (folder / MANIFEST).write_text("\n".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.csv has 4 rows, set\.json says 5"):
        _ = PreparedSet(folder).rows_of


@pytest.mark.parametrize("cells", ["", ",RGB,more"])
def test_a_line_of_other_length_is_refused(folder: Path, cells: str) -> None:
    lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].removesuffix(",RGB") + cells
    (folder / MANIFEST).write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="line 3: it has too few or too many cells"):
        _ = PreparedSet(folder).rows_of


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"may_publish": "false"}, "'may_publish'"),
        ({"files": {}}, "no digest of"),
        ({"name": "a/b"}, "'name'"),
        ({"name": "\x1b[31m"}, "'name'"),
        ({"size": 1e400}, "'size'"),
    ],
)
def test_a_set_json_of_other_types_is_refused(folder: Path, fields: dict[str, object], said: str) -> None:
    raw = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**raw, **fields}))
    with pytest.raises(DataError, match=said):
        PreparedSet(folder)
    (folder / INFO).write_text("[" * 100_000)
    with pytest.raises(DataError, match="cannot be used"):
        PreparedSet(folder)


def test_fields_of_set_json_are_those_of_the_class(folder: Path) -> None:
    raw = json.loads((folder / INFO).read_text())
    (folder / INFO).write_text(json.dumps({**raw, "surprise": 1}))
    with pytest.raises(DataError, match="surprise"):
        PreparedSet(folder)
