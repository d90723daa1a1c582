import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mibench.data.dividing import Division, divide, write_split
from mibench.data.prepared import MANIFEST, PreparedSet
from mibench.data.source import PARTS
from mibench.data.split_file import Person, SplitFile, part_digest
from mibench.errors import DataError, LeakError

from .make_set import make_set, toy_pixels

PEOPLE, IMAGES = 9, 4


def faces(
    root: Path, *, name: str = "toy", size: int = 16, seed: int = 0, has_identities: bool = True
) -> PreparedSet:
    who = [f"p{person}" for person in range(PEOPLE) for _ in range(IMAGES + person % 3)]
    pixels = toy_pixels(len(who), size=size, seed=seed)
    return PreparedSet(make_set(root, pixels, who, name=name, has_identities=has_identities))


def test_parts_share_no_person_and_no_row(tmp_path: Path) -> None:
    one = faces(tmp_path)
    split = divide(Division(private=3), one, one, one, file=tmp_path / "s.json")
    assert [len(split.parts[part].people) for part in PARTS] == [3, 3, 3]
    rows = [row for part in PARTS for row in (*split.parts[part].train, *split.parts[part].test)]
    assert len(rows) == len(set(rows)) == one.info.images
    for part in PARTS:
        for person in split.parts[part].people:
            assert set(person.train) | set(person.test) == set(one.rows_of[person.name])
            assert bool(person.test) is (part == "private")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    division=st.builds(
        Division,
        private=st.integers(2, 5),
        public=st.integers(0, 2),
        defender=st.sampled_from([0, 2]),
        choose=st.sampled_from(["random", "most"]),
        seed=st.integers(0, 50),
    )
)
def test_any_division_is_disjoint_and_repeats(
    tmp_path_factory: pytest.TempPathFactory, division: Division
) -> None:
    root = tmp_path_factory.mktemp("sets")
    one = faces(root)
    split = divide(division, one, one, one, file=root / "s.json")
    again = divide(division, one, one, one, file=root / "s.json")
    assert split == again
    assert SplitFile.read(_written(split, root / "s.json")) == split
    names = [name for part in PARTS for name in split.parts[part].identities]
    assert len(names) == len(set(names))
    assert len(split.parts["private"].people) == division.private
    assert division.public in (0, len(split.parts["public"].people))
    assert division.defender in (0, len(split.parts["defender"].people))


def _written(split: SplitFile, file: Path) -> Path:
    write_split(split, file)
    return file


def test_most_takes_the_people_with_most_images(tmp_path: Path) -> None:
    one = faces(tmp_path)
    split = divide(Division(private=3, choose="most"), one, one, one, file=tmp_path / "s.json")
    assert {person.name for person in split.parts["private"].people} == {"p2", "p5", "p8"}


def test_people_of_one_name_in_two_sets_are_two_people(tmp_path: Path) -> None:
    one, other = faces(tmp_path), faces(tmp_path, name="other", seed=1)
    split = divide(Division(private=9), one, other, other, file=tmp_path / "s.json")
    assert len(split.parts["public"].people) + len(split.parts["defender"].people) == PEOPLE
    assert split.parts["private"].identities[0].startswith("toy/")
    assert split.parts["public"].identities[0].startswith("other/")
    assert set(split.sets) == {"toy", "other"}


def test_number_of_test_images(tmp_path: Path) -> None:
    one = faces(tmp_path)
    for division in (Division(private=3, test_images=2), Division(private=3, test_fraction=0.5)):
        split = divide(division, one, one, one, file=tmp_path / "s.json")
        assert all(len(person.test) >= 2 for person in split.parts["private"].people)
    few = divide(Division(private=3, test_images=5), one, one, one, file=tmp_path / "s.json")
    assert {len(person.train) for person in few.parts["private"].people} == {1}  # six images are the least


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"private": 1}, r"private must be >= 2, got 1"),
        ({"private": 2, "defender": 1}, "needs two, got 1"),
        ({"private": 2, "test_fraction": 1.0}, r"test_fraction must lie in \(0, 1\), got 1.0"),
        ({"private": 99}, r"private part asks for 99 people with 2 images or more, and .* has 9 of 9"),
        ({"private": 4, "min_images": 7}, r"private part asks for 4 people with 7 images"),
        ({"private": 8, "defender": 2}, "defender part asks for 2 people"),
        ({"private": 6, "defender": 3}, "public part asks for 0 people|public part asks for"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path: Path, fields: dict[str, int], message: str) -> None:
    one = faces(tmp_path)
    with pytest.raises(DataError, match=message):
        divide(Division(**fields), one, one, one, file=tmp_path / "s.json")  # type: ignore[arg-type]  # numbers only


def test_sets_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    one = faces(tmp_path)
    small = faces(tmp_path, name="small", size=8)
    with pytest.raises(DataError, match=r"public set .*small has size 8, the private set"):
        divide(Division(private=3), one, small, one, file=tmp_path / "s.json")
    nameless = faces(tmp_path, name="nameless", seed=2, has_identities=False)
    with pytest.raises(DataError, match=r"defender set .* does not say who is on an image"):
        divide(Division(private=3), one, nameless, nameless, file=tmp_path / "s.json")
    split = divide(Division(private=3), one, nameless, one, file=tmp_path / "s.json")
    assert split.parts["public"].set_name == "nameless"
    twin = faces(tmp_path / "twin", seed=5)
    with pytest.raises(DataError, match="two sets called 'toy'"):
        divide(Division(private=3), one, twin, one, file=tmp_path / "s.json")
    other = faces(tmp_path, name="other", seed=8)
    with pytest.raises(DataError, match="two sets called 'toy'"):  # none of them the private one
        divide(Division(private=3), other, twin, one, file=tmp_path / "s.json")
    again = faces(tmp_path, name="again")
    with pytest.raises(DataError, match="the same people, called 'toy' and 'again'"):
        divide(Division(private=3), one, again, again, file=tmp_path / "s.json")


def test_nobody_of_whom_an_earlier_part_has_a_file_is_drawn(tmp_path: Path) -> None:
    """One set prepared twice with other crops: other pixels and names, the same files."""
    who = [f"p{person}" for person in range(PEOPLE) for _ in range(3)]
    first = toy_pixels(len(who))
    second = toy_pixels(len(who), seed=1)
    mine = make_set(tmp_path, first, who, name="mine")
    theirs = make_set(tmp_path, second, [f"q{name}" for name in who], name="theirs")
    sources = (mine / MANIFEST).read_text(encoding="utf-8").splitlines()
    copied = (theirs / MANIFEST).read_text(encoding="utf-8").splitlines()
    for line in range(1, len(copied), 3):  # one file of each person is the same
        digest = sources[line].split(",")[3]
        copied[line] = ",".join([*copied[line].split(",")[:3], digest, *copied[line].split(",")[4:]])
    (theirs / MANIFEST).write_text("\n".join(copied) + "\n", encoding="utf-8")
    one, other = PreparedSet(mine), PreparedSet(theirs)
    split = divide(Division(private=4), one, other, other, file=tmp_path / "s.json")
    names = {part: {person.name for person in split.parts[part].people} for part in PARTS}
    assert names["public"] | names["defender"] == {f"q{name}" for name in set(who) - names["private"]}
    last = copied[-1].split(",")
    copied[-1] = ",".join([*last[:3], "none", *last[4:]])
    (theirs / MANIFEST).write_text("\n".join(copied) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="holds what is no SHA-256"):
        divide(Division(private=4), one, other, other, file=tmp_path / "s.json")


def test_another_split_is_not_overwritten_unasked(tmp_path: Path) -> None:
    one, file = faces(tmp_path), tmp_path / "s.json"
    first = divide(Division(private=3), one, one, one, file=file)
    write_split(first, file)
    write_split(first, file)  # the same once more: nothing to do
    other = divide(Division(private=3, seed=1), one, one, one, file=file)
    with pytest.raises(DataError, match="another split lies there"):
        write_split(other, file)
    assert SplitFile.read(file) == first
    write_split(other, file, force=True)
    assert SplitFile.read(file) == other


def test_a_split_may_move_with_its_sets(tmp_path: Path) -> None:
    one = faces(tmp_path / "a")
    file = one.root / "splits" / "default.json"
    write_split(divide(Division(private=3), one, one, one, file=file), file)
    (tmp_path / "a").rename(tmp_path / "b")
    moved = tmp_path / "b" / "toy" / "splits" / "default.json"
    assert SplitFile.read(moved).open_sets(moved)["toy"].info == one.info


def test_a_changed_set_is_noticed(tmp_path: Path) -> None:
    one, file = faces(tmp_path), tmp_path / "s.json"
    split = divide(Division(private=3), one, one, one, file=file)
    link = split.sets["toy"]
    assert split.open_sets(file)["toy"].info.digest == link.digest
    other = faces(tmp_path / "new", seed=3)
    one.root.rename(tmp_path / "old")
    other.root.rename(one.root)
    with pytest.raises(DataError, match="is not the one that was divided"):
        split.open_sets(file)


def test_digest_is_of_images_names_and_roles() -> None:
    pixels = toy_pixels(4)
    people = [Person("a", (0, 1), (2,)), Person("b", (3,))]
    start = part_digest(pixels, people)
    assert (
        part_digest(pixels[np.array([1, 0, 2, 3])], [Person("a", (1, 0), (2,)), Person("b", (3,))]) == start
    )
    for changed in (
        [Person("a", (1, 0), (2,)), Person("b", (3,))],
        [Person("a", (0, 1, 2)), Person("b", (3,))],
        [Person("x", (0, 1), (2,)), Person("b", (3,))],
    ):
        assert part_digest(pixels, changed) != start
    with pytest.raises(DataError, match="row 4 is not among 4 images"):
        part_digest(pixels, [Person("a", (4,))])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no split file"),
        ("[]", "its schema is not 1"),
        ('{"schema": 2}', "its schema is not 1"),
        ('{"schema": 1}', "is no split file"),
        ('{"schema": 1, "size": Infinity}', "is no split file"),
        ("[" * 100_000, "is no split file"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        SplitFile.read(file)
    with pytest.raises(DataError, match="cannot be read"):
        SplitFile.read(tmp_path / "absent.json")


def test_a_person_in_two_parts_is_a_leak(tmp_path: Path) -> None:
    def act(raw: Any) -> None:
        raw["parts"]["public"]["people"].append(raw["parts"]["private"]["people"][0])

    with pytest.raises(LeakError, match="is both in the private part and the public part"):
        SplitFile.read(rewritten(tmp_path, act))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda raw: raw["sets"]["toy"].update(may_publish="false"), "'toy' is of another type"),
        (lambda raw: raw["sets"]["toy"].update(path=3), "'toy' is of another type"),
        (lambda raw: raw["parts"]["public"].update(set="other"), "'other', which the file does not name"),
        (lambda raw: raw["parts"]["public"]["people"][0][1].append(1.5), "no whole number"),
        (lambda raw: raw["parts"]["public"]["people"][0][1].append(True), "no whole number"),
    ],
)
def test_a_split_of_other_types_is_refused(tmp_path: Path, act: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        SplitFile.read(rewritten(tmp_path, act))


def rewritten(root: Path, act: Callable[[Any], object]) -> Path:
    one, file = faces(root), root / "s.json"
    write_split(divide(Division(private=3), one, one, one, file=file), file)
    raw = json.loads(file.read_text(encoding="utf-8"))
    act(raw)
    file.write_text(json.dumps(raw), encoding="utf-8")
    return file


def give_a_row_to_another_part(raw: Any) -> None:
    raw["parts"]["public"]["people"][0][1].append(raw["parts"]["private"]["people"][0][1][0])


def keep_a_training_image_for_testing(raw: Any) -> None:
    raw["parts"]["private"]["people"][0][2].append(raw["parts"]["private"]["people"][0][1][0])


def name_a_person_twice(raw: Any) -> None:
    raw["parts"]["public"]["people"].append([raw["parts"]["public"]["people"][0][0], [0], []])


def name_a_set_twice(raw: Any) -> None:
    raw["sets"]["twin"] = raw["sets"]["toy"]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (give_a_row_to_another_part, "of the public part has an image that stands twice"),
        (keep_a_training_image_for_testing, "of the private part has an image that stands twice"),
        (name_a_person_twice, "stands twice in the public part"),
        (name_a_set_twice, "'toy' and 'twin' hold the same images"),
    ],
)
def test_what_stands_twice_is_a_leak(tmp_path: Path, act: Callable[[Any], None], message: str) -> None:
    with pytest.raises(LeakError, match=message):
        SplitFile.read(rewritten(tmp_path, act))


def test_odd_names_survive(tmp_path: Path) -> None:
    who = ["a\nb", 'c"d', "ü" * 60, "e,f", "g\\h", "plain"]
    found = make_set(tmp_path, toy_pixels(12), [name for name in who for _ in range(2)])
    one = PreparedSet(found)
    split = divide(Division(private=2, public=2, defender=2), one, one, one, file=tmp_path / "s.json")
    assert SplitFile.read(_written(split, tmp_path / "s.json")) == split
    assert {p.name for part in PARTS for p in split.parts[part].people} == set(who)
