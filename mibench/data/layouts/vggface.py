"""VGG Face (2015): a folder of photos for each person, as scripts download them from its lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.lists import Table, malformed, named_but_gone, numbered_lines, numbers, with_face
from mibench.data.layouts.walking import Walk, first_folder, no_landmarks

LISTS = "files"
NO_LIST = "person without a list in files/"

FACTS = Facts(
    name="vggface",
    title="VGG Face Dataset",
    home="https://www.robots.ox.ac.uk/~vgg/data/vgg_face/",
    get=(
        "The home page gave lists of web addresses and boxes, files/<Name>.txt for each of 2,622 people, 2.6 "
        "million lines in all; the photos are downloaded from the addresses, of which many are dead."
    ),
    terms=(
        "The lists are for non-commercial research; the photos belong to their owners and come with no "
        "license."
    ),
    citation="Parkhi, Vedaldi, Zisserman: Deep Face Recognition. BMVC 2015.",
    folder=(
        "images/<Name>/00000001.jpg, or <Name>/00000001.jpg",
        "files/<Name>.txt: boxes, optional; only beside whole photos, never beside faces that a script has "
        "cut out already",
    ),
    crop=0,
    crop_source="ours: photos of any size; the boxes of files/ say where the face is",
)


@dataclass(frozen=True)
class VGGFace:
    """One folder a person; boxes where the publishers' lists lie beside."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The downloaded photos; see Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        images_place = first_folder(root, ("images",))
        has_lists = (root / LISTS).is_dir()
        items: list[Item] = []
        for person, place, images in walk.people(images_place or "", lists="" if images_place else LISTS):
            own = [walk.item(f"{place}/{image}", person) for image in images]
            items += _with_boxes(walk, person, place, own) if has_lists else own
        return walk.found(items)


def _with_boxes(walk: Walk, person: str, place: str, items: list[Item]) -> list[Item]:
    """A person's photos with the boxes of the person's list."""
    file = walk.root / LISTS / f"{person}.txt"
    if not file.is_file():
        walk.skip(place, NO_LIST)
        return []
    boxes = _boxes(file)
    there = {item.file.name.rpartition(".")[0] for item in items}
    named_but_gone(walk, boxes.name, (f"{place}/{key}.jpg" for key in boxes.rows if key not in there))
    full = (with_face(walk, i, i.file.name.rpartition(".")[0], marks=None, boxes=boxes) for i in items)
    return [item for item in full if item is not None]


def _boxes(file: Path) -> Table:
    """The boxes of one person by the photo's id.

    Raises:
        DataError: a line is not id, address, left, top, right, bottom, pose, score and curated.
    """
    rows: dict[str, tuple[float, ...]] = {}
    for number, line in numbered_lines(file):
        fields = line.split()
        values = numbers(fields[-7:]) if len(fields) >= 9 else None  # an address may hold spaces
        if values is None or not fields[0].isalnum():
            raise malformed(file, number, line, "is not id, address, box, pose, score and curated")
        if fields[0] in rows:
            raise malformed(file, number, line, "names this image a second time")
        rows[fields[0]] = values[:4]
    return Table(f"{LISTS}/", rows)
