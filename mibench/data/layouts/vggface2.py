"""VGGFace2: train/ and test/ with a folder of loosely cut faces for each person."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.lists import (
    Table,
    corners,
    malformed,
    named_but_gone,
    numbered_lines,
    numbers,
    with_face,
)
from mibench.data.layouts.walking import Walk, first_file

PARTS = ("train", "test")
PLACES = ("", "bb_landmark", "meta")
PERSON = re.compile("n[0-9]{6}")
NOT_A_PERSON = "folder not named like n000002"

FACTS = Facts(
    name="vggface2",
    title="VGGFace2",
    home="https://github.com/ox-vgg/vgg_face2",
    get=(
        "The publishers took their own page offline in 2020, so only copies from before are there. 3.31 "
        "million images of 9,131 people, 8,631 in train/ and 500 in test/, faces cut loosely at any size."
    ),
    terms=(
        "The publishers gave their lists out under CC BY-SA 4.0; the images belong to their owners and came "
        "with no license."
    ),
    citation="Cao, Shen, Xie, Parkhi, Zisserman: VGGFace2: A dataset for recognising faces across pose and "
    "age. FG 2018 (arXiv:1710.08092).",
    folder=(
        "train/n000002/0001_01.jpg, test/n000001/0001_01.jpg (one of train/ and test/ is enough)",
        "loose_landmark_train.csv, loose_landmark_test.csv (or in bb_landmark/ or meta/), for "
        "--align landmarks",
        "loose_bb_train.csv, loose_bb_test.csv (same places): boxes, optional",
    ),
    crop=0,
    crop_source="ours: the images are faces cut loosely, each at its own size",
    has_landmarks=True,
)


@dataclass(frozen=True)
class VGGFace2:
    """Both parts together; no person stands in two of them."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images of train/ and test/; see Layout."""
        walk = Walk(root, self.facts)
        parts = [part for part in PARTS if (root / part).is_dir()]
        if not parts:
            raise walk.refusal("there is neither train/ nor test/")
        items: list[Item] = []
        for part in parts:
            items += _part(walk, part, landmarks)
        return walk.found(items)


def _part(walk: Walk, part: str, landmarks: bool) -> list[Item]:
    """The images of train/ or test/; what one of its lists leaves out is a skip."""
    marks = _table(walk, f"loose_landmark_{part}.csv", 10) if landmarks else None
    if landmarks and marks is None:
        raise walk.refusal(
            f"landmarks are asked for, but there is no loose_landmark_{part}.csv",
            f"Put it beside {part}/ or into bb_landmark/.",
        )
    boxes = _table(walk, f"loose_bb_{part}.csv", 4)
    items: list[Item] = []
    for person, place, images in walk.people(part):
        if not PERSON.fullmatch(person):
            walk.skip(place, NOT_A_PERSON)
            continue
        items += [walk.item(f"{place}/{image}", person) for image in images]
    if lists := [table for table in (marks, boxes) if table]:
        there = {_key(item) for item in items}
        for table in lists[:1]:  # both name the same images, so one skip is enough
            gone = (f"{part}/{key}.jpg" for key in table.rows if key not in there)
            named_but_gone(walk, table.name, gone)
        full = (with_face(walk, item, _key(item), marks=marks, boxes=boxes) for item in items)
        items = [item for item in full if item is not None]
    return items


def _key(item: Item) -> str:
    """What the lists call an image: `n000002/0001_01`."""
    return f"{item.identity}/{item.file.name.rpartition('.')[0]}"


def _table(walk: Walk, name: str, width: int) -> Table | None:
    """A list of landmarks or boxes; None if it is not there.

    Raises:
        DataError: a line is wrong.
    """
    file = first_file(walk.root, PLACES, name)
    if file is None:
        return None
    rows: dict[str, tuple[float, ...]] = {}
    for number, line in numbered_lines(file):
        fields = line.split(",")
        key = fields[0].strip().strip('"')
        if number == 1:
            if key != "NAME_ID" or len(fields) != width + 1:
                raise malformed(file, number, line, f"is not NAME_ID and {width} columns")
            continue
        values = numbers(fields[1:])
        if values is None or len(values) != width:
            raise malformed(file, number, line, f"is not an image and {width} numbers")
        if key in rows:
            raise malformed(file, number, line, "names this image a second time")
        rows[key] = corners(*values) if width == 4 else values
    return Table(name, rows)
