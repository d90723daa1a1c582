from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mibench.data.dividing import Division, divide, write_split
from mibench.data.dropping import without
from mibench.data.prepared import PreparedSet
from mibench.data.split import quantize
from mibench.data.split_file import SplitFile, part_digest
from mibench.data.synthfaces import SynthFaces
from mibench.errors import DataError
from mibench.overlap import (
    STEPS,
    Duplicates,
    Likenesses,
    SplitImages,
    flagged,
    lookalikes,
    near_duplicates,
    own_likeness,
)
from mibench.plugin import Context

from .data.make_set import make_set

Pixels = NDArray[np.uint8]
SIZE, PEOPLE, IMAGES = 32, 8, 20
STRANGERS, DOUBLE, TESTS = 1000, 5, 8  # the first stranger's number; the private person who is among them


def faces(people: Tensor, numbers: Tensor) -> Pixels:
    return quantize(SynthFaces(size=SIZE, nuisance=1.0).render(people, numbers)).numpy()


def encoded(pixels: Pixels) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "JPEG", quality=70)
    return np.asarray(Image.open(file)).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split where a private person stands in the public part, and three pictures stand in two parts."""
    root = tmp_path_factory.mktemp("sets")
    who = torch.arange(PEOPLE).repeat_interleave(IMAGES)
    private = faces(who, torch.arange(IMAGES).repeat(PEOPLE))
    names = [f"person {k}" for k in who.tolist()]
    mine = make_set(root, private, names, name="mine", may_publish=False)
    others = (STRANGERS + torch.arange(12)).repeat_interleave(4)
    theirs = faces(others, torch.arange(4).repeat(12))
    double = faces(torch.full((16,), DOUBLE), torch.arange(500, 516))
    copies = np.stack([encoded(private[3]), private[25][:, :, ::-1]])
    labels = [f"stranger {k}" for k in others.tolist()]
    labels += ["somebody"] * 16 + ["a copy", "mirrored"]
    public = make_set(root, np.concatenate([theirs, double, copies]), labels, name="theirs")
    last = (STRANGERS + 500 + torch.arange(6)).repeat_interleave(8)
    known = faces(last, torch.arange(8).repeat(6))
    known[10] = theirs[7] // 2 * 2  # other bytes: `split` sees the same ones by itself
    own = make_set(root, known, [f"known {k}" for k in last.tolist()], name="own")
    file = root / "split.json"
    sets = [PreparedSet(one) for one in (mine, public, own)]
    write_split(divide(Division(private=PEOPLE, test_images=TESTS), *sets, file=file), file)
    return file


def opened(file: Path) -> SplitImages:
    found = SplitFile.read(file)
    return SplitImages(found, found.open_sets(file))


@pytest.fixture(scope="module")
def images(split: Path) -> SplitImages:
    return opened(split)


@pytest.fixture(scope="module")
def duplicates(images: SplitImages) -> Duplicates:
    return near_duplicates(images)


@pytest.fixture(scope="module")
def people(images: SplitImages) -> Likenesses:
    return lookalikes(images, Context(seed=0), epochs=25)


def test_planted_duplicates_are_found_before_anything_else(duplicates: Duplicates) -> None:
    """Drawn faces before a plain ground are more alike than photos, so some others may follow."""
    found = {(one.kept.part, one.kept.row, one.other.part, one.other.person) for one in duplicates.found[:3]}
    assert found == {
        ("private", 3, "public", "a copy"),
        ("private", 25, "public", "mirrored"),
        ("defender", 10, "public", f"stranger {STRANGERS + 1}"),
    }
    assert all(one.correlation > 0.98 for one in duplicates.found[:3])
    assert all(one.correlation < 0.98 for one in duplicates.found[3:])
    assert [one.other.person for one in duplicates.found[:3] if one.move.mirrored] == ["mirrored"]
    assert duplicates.images == {"private": PEOPLE * IMAGES, "public": 66, "defender": 48}
    assert duplicates.flat == {"private": 0, "public": 0, "defender": 0}


def test_near_duplicates_come_most_alike_first(images: SplitImages, duplicates: Duplicates) -> None:
    steps: list[int] = []
    assert near_duplicates(images, advance=steps.append) == duplicates
    assert sum(steps) == STEPS
    values = [one.correlation for one in duplicates.found]
    assert values == sorted(values, reverse=True)


def test_the_trained_space_tells_people_and_finds_the_one_in_two_parts(people: Likenesses) -> None:
    assert people.can_tell
    found = [one for one in people.found if one.other.person == "somebody"]
    assert len(found) >= 3  # of 16; the rule asks for half of them on average
    assert {one.nearest.person for one in found} == {f"person {DOUBLE}"}
    assert people.found[0].other.person in {"somebody", "a copy", "mirrored"}
    strangers = [one for one in people.found if one.other.person.startswith("stranger")]
    assert len(strangers) / 48 < len(found) / 16
    assert people.images == {"public": 66}
    assert all(one.likeness >= one.own for one in people.found)


def test_lookalikes_repeat_and_leave_the_global_random_state(images: SplitImages) -> None:
    state = torch.get_rng_state()
    first, second = (lookalikes(images, Context(seed=3), epochs=1) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_a_space_that_tells_nobody_says_so(images: SplitImages) -> None:
    """Everybody's test images are taken for the next person's, so the best space is wrong on all."""
    found = images.split
    private = found.parts["private"]
    turned = tuple(
        dataclasses.replace(one, test=other.test)
        for one, other in zip(private.people, (*private.people[1:], private.people[0]))
    )
    parts = {**found.parts, "private": dataclasses.replace(private, people=turned)}
    wrong = SplitImages(dataclasses.replace(found, parts=parts), images.sets)
    told = lookalikes(wrong, Context(seed=0), epochs=10)
    assert told.accuracy < 0.5
    assert not told.can_tell


def test_weights_compare_both_public_parts(images: SplitImages, tmp_path: Path) -> None:
    from facenet_pytorch import InceptionResnetV1

    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        state = InceptionResnetV1(pretrained=None, classify=False).state_dict()
    save_file(state, tmp_path / "facenet.safetensors")
    found = lookalikes(images, Context(), weights=tmp_path / "facenet.safetensors", epochs=1)
    assert found.images == {"public": 66, "defender": 48}
    assert "facenet.safetensors" in found.space


def test_own_likeness_is_the_median_of_own_images() -> None:
    tests = torch.tensor([[0.9, 0.0], [0.5, 0.0], [0.7, 0.3], [0.1, 0.8], [0.2, 0.4]])
    found = own_likeness(tests, torch.tensor([0, 0, 0, 1, 1]))
    torch.testing.assert_close(found, torch.tensor([0.7, 0.6]))
    alone = own_likeness(tests, torch.zeros(5, dtype=torch.int64))
    assert alone[1] == torch.inf


def test_flags_name_the_most_alike_of_those_reached() -> None:
    own = torch.tensor([0.5, 0.9, torch.inf])
    likeness = torch.tensor([[0.6, 0.8, 0.99], [0.4, 0.8, 0.99], [0.6, 0.95, 0.0], [0.5, 0.0, 0.0]])
    found = flagged(likeness, own)
    assert [(place, person) for place, person, _ in found] == [(0, 0), (2, 1), (3, 0)]
    assert [round(value, 4) for *_, value in found] == [0.6, 0.95, 0.5]


def test_without_test_images_there_is_nothing_to_compare_with(split: Path, images: SplitImages) -> None:
    found = images.split
    private = found.parts["private"]
    bare = tuple(dataclasses.replace(one, test=()) for one in private.people)
    parts = {**found.parts, "private": dataclasses.replace(private, people=bare)}
    less = SplitImages(dataclasses.replace(found, parts=parts), images.sets)
    with pytest.raises(DataError, match="no private person has test images"):
        lookalikes(less, Context(), epochs=1)


def test_dropping_keeps_the_rest_and_digests_what_is_left(images: SplitImages) -> None:
    old = images.split
    row = old.parts["public"].people[0].train[0]
    person = old.parts["defender"].people[0]
    gone = {"public": {row: {"reason": "why"}}, "defender": {r: {"reason": "all"} for r in person.train}}
    made = without(old, images.sets, gone)  # type: ignore[arg-type]  # keys are words
    assert made.parts["private"] == old.parts["private"]
    assert set(made.parts["public"].train) == set(old.parts["public"].train) - {row}
    assert made.parts["defender"].people == old.parts["defender"].people[1:]
    for part in ("public", "defender"):
        assert made.parts[part].digest == part_digest(images.pixels(part), made.parts[part].people)
        assert made.parts[part].digest != old.parts[part].digest
    assert made.dropped[0] == {
        "part": "public",
        "set": "theirs",
        "identity": old.parts["public"].people[0].name,
        "row": row,
        "reason": "why",
    }
    assert len(made.dropped) == 1 + len(person.train)


def test_a_split_without_some_images_is_read_back_and_can_be_dropped_from_again(
    split: Path, images: SplitImages
) -> None:
    first, second = images.split.parts["public"].train[:2]
    file = split.with_name("less.json")
    write_split(without(images.split, images.sets, {"public": {first: {"reason": "a"}}}), file)
    again = opened(file)
    made = without(again.split, again.sets, {"public": {second: {"reason": "b"}}})
    assert [one["reason"] for one in made.dropped] == ["a", "b"]
    assert not {first, second} & set(made.parts["public"].train)


@pytest.mark.parametrize(
    ("part", "rows", "told"),
    [
        ("private", [0], "private part are never dropped"),
        ("public", [10**6], "row 1000000 is not in the public part"),
        ("defender", list(range(40)), "the defender part has 1 people, and needs 2"),
    ],
)
def test_what_cannot_be_dropped_is_refused(
    images: SplitImages, part: str, rows: list[int], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        without(images.split, images.sets, {part: {row: {} for row in rows}})  # type: ignore[dict-item]
