"""CelebA: who is on an image and where the face is stand in lists beside one folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.lists import (
    AGAIN,
    Table,
    corners,
    malformed,
    named_but_gone,
    numbered_lines,
    numbers,
    with_face,
)
from mibench.data.layouts.walking import Walk, first_file, first_folder, quoted
from mibench.errors import DataError

WHO = "identity_CelebA.txt"
PLACES = ("", "Anno", "Identity")
ALIGNED = (
    "img_align_celeba/img_align_celeba",  # the archive of Kaggle holds the folder twice
    "img_align_celeba",
    "Img/img_align_celeba",
    "img_align_celeba_png",
    "Img/img_align_celeba_png",
)
WILD = ("img_celeba", "Img/img_celeba")
TWICE = "same name as another image but for its ending"

FACTS = Facts(
    name="celeba",
    title="Large-scale CelebFaces Attributes (CelebA)",
    home="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    get=(
        "The home page links to the publishers' shared drive: img_align_celeba.zip in Img/, and "
        "identity_CelebA.txt and the lists of landmarks in Anno/. 202,599 images of 10,177 people; the "
        "aligned ones have 178x218 pixels."
    ),
    terms=(
        "Non-commercial research alone; no part of the set may be copied further, published or distributed, "
        "and the images belong to others than the publishers."
    ),
    citation="Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild. ICCV 2015 (arXiv:1411.7766).",
    folder=(
        "identity_CelebA.txt (or in Anno/ or Identity/)",
        "img_align_celeba/000001.jpg (or below Img/, or twice img_align_celeba/, or img_align_celeba_png/; "
        "where none is there: img_celeba/, the images in the wild)",
        "list_landmarks_align_celeba.txt or .csv (list_landmarks_celeba for img_celeba/), for "
        "--align landmarks",
        "list_bbox_celeba.txt or .csv: boxes for img_celeba/, optional",
    ),
    crop=108,
    crop_source="GMI's preprocessing of the aligned images: the middle 108 of 178x218 (arXiv:1911.07135)",
    has_landmarks=True,
)


@dataclass(frozen=True)
class CelebA:
    """The aligned images, or those in the wild where there are no aligned ones."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images that `identity_CelebA.txt` names; see Layout."""
        walk = Walk(root, self.facts)
        place = first_folder(root, ALIGNED)
        aligned = place is not None
        place = place or first_folder(root, WILD)
        if place is None:
            raise walk.refusal("there is neither img_align_celeba/ nor img_celeba/")
        who_file = first_file(root, PLACES, WHO)
        if who_file is None:
            raise walk.refusal(
                f"there is no {WHO}, which says who is on an image",
                "Get it from Anno/ of the publishers' drive and put it beside the folder of images.",
            )
        who = _people(who_file)
        marks = _landmarks(walk, aligned) if landmarks else None
        boxes = None if aligned else _boxes(walk)
        items = _matched(walk, place, who)
        if not items:
            raise walk.refusal(
                f"none of the images in {place}/ is named in {WHO}",
                "Give the images their published names, such as 000001.jpg.",
            )
        if marks or boxes:
            items = _with_faces(walk, items, marks, boxes)
        return walk.found(items, crop=None if aligned else 0)


def _people(file: Path) -> dict[str, tuple[str, str]]:
    """Published name and identity of each image by its name without ending.

    Raises:
        DataError: a line is not a name and a number, a name stands twice, or the file is another list.
    """
    found: dict[str, tuple[str, str]] = {}
    for number, line in numbered_lines(file):
        fields = line.split()
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdecimal()):
            if number == 1 and line.isdecimal():
                raise malformed(file, number, line, "a count: it looks like list_attr_celeba", _wanted())
            raise malformed(file, number, line, "is not `000001.jpg 2880`", _wanted())
        name = fields[0]
        if (stem := _stem(name)) in found:
            raise malformed(file, number, line, "names this image a second time")
        found[stem] = (name, fields[1])
    if not found:
        raise DataError(f"{quoted(file)}: is empty. {_wanted()}")
    if {identity for _, identity in found.values()} <= {"0", "1", "2"}:
        raise DataError(
            f"{quoted(file)}: its {len(found)} images have no other numbers than 0, 1 and 2, so it looks "
            f"like list_eval_partition. {_wanted()}"
        )
    return found


def _wanted() -> str:
    return f"Put the publishers' {WHO} there."


def _matched(walk: Walk, place: str, who: dict[str, tuple[str, str]]) -> list[Item]:
    """Images that the list names; the others, and the names without an image, are skips."""
    listing = walk.look(place)
    if listing is None:
        raise walk.refusal(f"{place}/ is a {walk.skips[-1].reason}", "Check links and permissions.")
    items: list[Item] = []
    seen: set[str] = set()
    for image in listing.images:
        stem, name = _stem(image), f"{place}/{image}"
        if stem not in who:
            walk.skip(name, f"not named in {WHO}")
        elif stem in seen:
            walk.skip(name, TWICE)
        else:
            seen.add(stem)
            items.append(walk.item(name, who[stem][1]))
    named_but_gone(walk, WHO, (f"{place}/{name}" for stem, (name, _) in who.items() if stem not in seen))
    return items


def _with_faces(walk: Walk, items: list[Item], marks: Table | None, boxes: Table | None) -> list[Item]:
    """The images with landmarks and boxes, without those that a list leaves out."""
    full = (with_face(walk, item, _stem(item.file.name), marks=marks, boxes=boxes) for item in items)
    return [item for item in full if item is not None]


def _landmarks(walk: Walk, aligned: bool) -> Table:
    """The list of landmarks that fits the images.

    Raises:
        DataError: it is not there, or a line is wrong.
    """
    stem = "list_landmarks_align_celeba" if aligned else "list_landmarks_celeba"
    table = _table(walk, stem, 10)
    if table is None:
        raise walk.refusal(
            f"landmarks are asked for, but there is no {stem}.txt or {stem}.csv",
            "Get it from Anno/ of the publishers' drive and put it beside the folder of images.",
        )
    return table


def _boxes(walk: Walk) -> Table | None:
    """The boxes of the faces in the wild, if there is the list of them."""
    table = _table(walk, "list_bbox_celeba", 4)
    return Table(table.name, {key: corners(*row) for key, row in table.rows.items()}) if table else None


def _table(walk: Walk, stem: str, width: int) -> Table | None:
    """The list of a name as `.txt` (count, header, rows) or `.csv` (header, rows); None if there is none.

    Raises:
        DataError: a line is wrong, or the count is.
    """
    for suffix in (".txt", ".csv"):
        file = first_file(walk.root, PLACES, stem + suffix)
        if file is not None:
            rows: dict[str, tuple[float, ...]] = {}
            for number, line, name, values in _rows(file, width):
                if (key := _stem(name)) in rows:
                    raise malformed(file, number, line, "names this image a second time")
                rows[key] = values
            return Table(file.name, rows)
    return None


def _rows(file: Path, width: int) -> Iterator[tuple[int, str, str, tuple[float, ...]]]:
    """Number, text, image name and numbers of each row of a list."""
    separator = "," if file.suffix == ".csv" else None
    lines = numbered_lines(file)
    promised, rows = None, 0
    if separator is None:
        number, line = next(lines, (1, ""))
        if not (line.isascii() and line.isdecimal()):
            raise malformed(file, number, line, "is not the number of rows")
        promised = int(line[:18])  # more digits are as wrong, and thousands of them int() refuses
    number, line = next(lines, (number + 1 if promised is not None else 1, ""))
    if numbers(line.split(separator)[-width:]) is not None or not line:
        raise malformed(file, number, line, "is not the names of the columns")
    for number, line in lines:
        fields = line.split(separator)
        values = numbers(fields[1:])
        if values is None or len(values) != width:
            raise malformed(file, number, line, f"is not an image and {width} numbers")
        rows += 1
        yield number, line, fields[0].strip(), values
    if promised is not None and promised != rows:
        raise DataError(f"{quoted(file)}: its first line says {promised} rows, but it has {rows}. {AGAIN}")


def _stem(name: str) -> str:
    """A name without its ending, by which the .png and the .jpg of an image are the same."""
    return name.rpartition(".")[0] or name
