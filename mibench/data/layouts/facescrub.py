"""FaceScrub: actors and actresses, as the usual scripts download them from its lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.lists import Table, malformed, named_but_gone, numbered_lines, numbers, with_face
from mibench.data.layouts.walking import Walk, first_file, first_folder, no_landmarks

GROUPS = ("actors", "actresses")
FACES, PHOTOS, FACE = "faces", "images", "face"

FACTS = Facts(
    name="facescrub",
    title="FaceScrub",
    home="http://vintage.winklerbros.net/facescrub.html",
    get=(
        "The home page gives lists of web addresses and boxes on request, facescrub_actors.txt and "
        "facescrub_actresses.txt; scripts download the photos from the addresses, of which many are dead, "
        "and cut the faces out. 106,863 photos of 530 people when it was published."
    ),
    terms=(
        "The lists are for non-commercial research; the photos belong to their owners and come with no "
        "license."
    ),
    citation="Ng, Winkler: A data-driven approach to cleaning large face datasets. ICIP 2014.",
    folder=(
        "actors/faces/<Name>/*.jpeg, actresses/faces/<Name>/*.jpeg: faces cut out",
        "or actors/images/<Name>/<Name>_<image id>.jpeg, actresses/images/...: whole photos, with "
        "facescrub_actors.txt and facescrub_actresses.txt for the boxes (beside actors/ or in it)",
        "or <Name>/face/*, or <Name>/*.jpg (also below actors/ and actresses/)",
    ),
    crop=0,
    crop_source="ours: faces cut out, each at its own size, are kept whole",
)


@dataclass(frozen=True)
class FaceScrub:
    """Faces where they are cut out, else whole photos with the boxes of the lists."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The downloaded faces or photos; see Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        items: list[Item] = []
        for group in [group for group in GROUPS if (root / group).is_dir()] or [""]:
            items += _group(walk, group)
        return walk.found(items)


def _group(walk: Walk, group: str) -> list[Item]:
    """The images of actors/, of actresses/, or of a root without them."""
    base = f"{group}/" if group else ""
    place = first_folder(walk.root, (f"{base}{FACES}", f"{base}{PHOTOS}")) or group
    items: list[Item] = []
    for person, inner, images in walk.people(place, inner=(FACE,)):
        items += [walk.item(f"{inner}/{image}", person) for image in images]
    whole = place == f"{base}{PHOTOS}"
    for table in _tables(walk, group) if whole else ():
        items = _with_boxes(walk, place, items, table)
    return items


def _with_boxes(walk: Walk, place: str, items: list[Item], boxes: Table) -> list[Item]:
    """Whole photos with the boxes of their faces."""
    there = {_key(item) for item in items}
    gone = (f"{place}/{key.rpartition('_')[0]}/{key}.jpeg" for key in boxes.rows if key not in there)
    named_but_gone(walk, boxes.name, gone)
    full = (with_face(walk, item, _key(item), marks=None, boxes=boxes) for item in items)
    return [item for item in full if item is not None]


def _key(item: Item) -> str:
    """`<Name>_<image id>` with underscores for spaces, as the publishers' script names a photo."""
    return item.file.name.rpartition(".")[0].replace(" ", "_")


def _tables(walk: Walk, group: str) -> list[Table]:
    """The boxes of a group as one list, of both groups where there are no folders for them; or none."""
    rows: dict[str, tuple[float, ...]] = {}
    names: list[str] = []
    for part in (group,) if group else GROUPS:
        file = first_file(walk.root, ("", part), f"facescrub_{part}.txt")
        if file is not None:
            names.append(file.name)
            _read(file, rows)
    return [Table(" and ".join(names), rows)] if names else []


def _read(file: Path, rows: dict[str, tuple[float, ...]]) -> None:
    """Add the boxes of a list; of several faces on a photo the first is taken.

    Raises:
        DataError: a line is not name, image id, face id, address, box and checksum between tabs.
    """
    for number, line in numbered_lines(file):
        fields = [text.strip() for text in line.split("\t")]
        if number == 1 and fields[0] == "name":
            continue
        box = numbers(fields[4].split(",")) if len(fields) == 6 else None
        if box is None or len(box) != 4 or not fields[1].isdecimal():
            raise malformed(file, number, line, "is not name, image id, face id, address, box and checksum")
        rows.setdefault(f"{fields[0].replace(' ', '_')}_{fields[1]}", box)
