import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mibench.choose import choose
from mibench.data.dividing import Division, divide, write_split
from mibench.data.prepared import IMAGES, INFO, PreparedSet
from mibench.data.prepared_source import PreparedData
from mibench.errors import DataError, SuiteError
from mibench.plan import build_plan
from mibench.suite import list_suites, load_suite

from .make_set import make_set, toy_pixels

SUITE = """
name = "mine"
metrics = ["aa"]
[data]
kind = "prepared"
split = "{split}"
{more}
[targets]
protected = 1
bystanders = 0
attacked = 1
images = 1
[victim]
net = "small_vgg"
width = 4
[judge]
net = "small_vgg"
width = 4
[attacks.mean_face]
[defenses.none]
"""


@pytest.fixture
def split(tmp_path: Path) -> Path:
    who = [f"p{person}" for person in range(7) for _ in range(3)]
    one = PreparedSet(make_set(tmp_path, toy_pixels(21), who, may_publish=False))
    file = one.root / "splits" / "default.json"
    write_split(divide(Division(private=3, public=2, defender=2), one, one, one, file=file), file)
    return file


def test_images_and_labels_are_those_of_the_rows(split: Path) -> None:
    data = PreparedData(split=str(split)).filled()
    assert (data.size, data.channels, data.private, data.public, data.defender) == (16, 3, 3, 2, 2)
    pixels = np.load(split.parent.parent / IMAGES)
    found = data._file()
    train, test = data.load("private")
    assert test is not None
    assert torch.equal(
        train.images, torch.from_numpy(pixels[list(found.parts["private"].train)]).float() / 255
    )
    assert torch.equal(test.images, torch.from_numpy(pixels[list(found.parts["private"].test)]).float() / 255)
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert test.labels.tolist() == [0, 1, 2]
    public, none = data.load("public")
    assert none is None
    assert public.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.identities()["public"] == public.identities


def test_keys_hold_content_and_no_place(split: Path, tmp_path: Path) -> None:
    before = PreparedData(split=str(split)).filled().part_params("private")
    assert set(before) == {"part", "digest"}
    split.parent.parent.rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "splits" / "default.json"
    assert PreparedData(split=str(moved)).filled().part_params("private") == before


def test_other_numbers_than_the_suite_has_are_refused(split: Path) -> None:
    with pytest.raises(DataError, match="has private 3, the suite asks for 9"):
        PreparedData(split=str(split), private=9).part_params("private")


def test_changed_images_are_refused(split: Path) -> None:
    file = split.parent.parent / IMAGES
    pixels = np.load(file)
    np.save(file, 255 - pixels)
    with pytest.raises(DataError, match="are not those that were divided"):
        PreparedData(split=str(split)).load("public")


def test_suite_takes_numbers_from_the_file_or_brings_its_own(split: Path, tmp_path: Path) -> None:
    suite = tmp_path / "mine.toml"
    way = split.relative_to(tmp_path).as_posix()
    suite.write_text(SUITE.format(split=way, more=""), encoding="utf-8")
    assert load_suite(suite).data.private == 3
    counts = "size = 16\nchannels = 3\nprivate = 3\npublic = 2\ndefender = 2"
    suite.write_text(SUITE.format(split="absent.json", more=counts), encoding="utf-8")
    assert load_suite(suite).data.private == 3  # it can be shown where nobody has the images
    suite.write_text(SUITE.format(split="absent.json", more=""), encoding="utf-8")
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        load_suite(suite)
    suite.write_text(SUITE.format(split=way, more="people = 3"), encoding="utf-8")
    with pytest.raises(SuiteError, match="no field 'people'"):
        load_suite(suite)


def test_split_option_takes_the_place_of_the_data(split: Path) -> None:
    suite = choose("smoke", split=split)
    assert suite.data == PreparedData(split=str(split)).filled()
    with pytest.raises(SuiteError, match="do not fit 3 private people"):
        choose("quick", split=split)


@pytest.mark.parametrize("name", [one for one in list_suites() if load_suite(one).data.kind == "prepared"])
def test_no_cell_of_a_built_in_suite_is_blocked(name: str, tmp_path: Path) -> None:
    wanted = load_suite(name).data
    who = [f"p{person}" for person in range(30) for _ in range(2)]
    pixels = toy_pixels(len(who), channels=wanted.channels, size=wanted.size)
    one = PreparedSet(make_set(tmp_path, pixels, who))
    file = tmp_path / "split.json"
    write_split(divide(Division(private=20, public=5, defender=5), one, one, one, file=file), file)
    plan = build_plan(choose(name, split=file))
    assert plan.cells
    assert [cell.blocked for cell in plan.cells if cell.blocked] == []


def test_records_tell_the_sets_and_their_terms(split: Path) -> None:
    told = PreparedData(split=str(split)).filled().told()
    assert told["may_publish"] is False
    assert told["sets"] == {"private": "toy", "public": "toy", "defender": "toy"}
    assert "toy" in told["terms"]


def test_images_may_be_shown_where_split_and_set_both_say_so(split: Path) -> None:
    """A set that is prepared anew under other terms has the same digest."""
    info = split.parent.parent / INFO

    def told(*, in_set: bool, in_split: bool) -> bool:
        for file, value in ((info, in_set), (split, in_split)):
            raw = json.loads(file.read_text(encoding="utf-8"))
            (raw["sets"]["toy"] if file == split else raw)["may_publish"] = value
            file.write_text(json.dumps(raw), encoding="utf-8")
        return bool(PreparedData(split=str(split)).filled().told()["may_publish"])

    assert told(in_set=True, in_split=True)
    assert not told(in_set=True, in_split=False)
    assert not told(in_set=False, in_split=True)
