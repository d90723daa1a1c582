"""AT&T's database of faces (ORL): 40 people, ten gray images each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mibench.data.layouts.layout import Facts, Found, Item
from mibench.data.layouts.walking import Walk, first_folder, no_landmarks, quoted

PEOPLE, IMAGES = 40, 10
WIDTH, HEIGHT = 92, 112
SUFFIX = ".pgm"
NO_PGM = "no PGM image"
ELSE = "For images of another kind take `image_folder`."

FACTS = Facts(
    name="att_faces",
    title="The Database of Faces of AT&T Laboratories Cambridge (ORL)",
    home="https://cam-orl.co.uk/facedatabase.html",
    get=(
        "The home page links to att_faces.zip and att_faces.tar.Z (4 MB). 400 gray images of 40 people, "
        "92x112 pixels."
    ),
    terms="Free to use with credit to AT&T Laboratories Cambridge.",
    citation="Samaria, Harter: Parameterisation of a Stochastic Model for Human Face Identification. "
    "IEEE Workshop on Applications of Computer Vision, 1994.",
    folder=("s1/1.pgm to s40/10.pgm (or below images/; other names of folders and files do as well)",),
    channels=1,
    crop=0,
    crop_source="ours: the middle 92x92 of 92x112, whole faces",
)


@dataclass(frozen=True)
class AttFaces:
    """At most 40 folders of at most ten PGM images of 92x112 pixels."""

    facts: Facts = FACTS

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images; what is clearly another set is refused. See Layout."""
        walk = Walk(root, self.facts)
        if landmarks:
            raise no_landmarks(walk)
        items: list[Item] = []
        people = 0
        for person, place, images in walk.people(first_folder(root, ("images",)) or ""):
            names = [image for image in images if image.lower().endswith(SUFFIX)]
            for image in set(images).difference(names):
                walk.skip(f"{place}/{image}", NO_PGM)
            own = [walk.item(f"{place}/{name}", person) for name in names]
            people += bool(own)
            _check(walk, place, own, people)
            items += own
        return walk.found(items)


def _check(walk: Walk, place: str, items: list[Item], people: int) -> None:
    """Raise DataError where a person's images, or the number of people, are clearly not of this set."""
    if people > PEOPLE:
        raise walk.refusal(f"has more than {PEOPLE} folders of PGM images", ELSE)
    if len(items) > IMAGES:
        raise walk.refusal(f"{quoted(place)} holds {len(items)} images, but a person has {IMAGES}", ELSE)
    size = _size(items[0].file) if items else None
    if size is not None and size != (WIDTH, HEIGHT):
        raise walk.refusal(
            f"{quoted(items[0].name)} has {size[0]}x{size[1]} pixels, but those of this set {WIDTH}x{HEIGHT}",
            ELSE,
        )


def _size(file: Path) -> tuple[int, int] | None:
    """Width and height that a PGM file claims; None where its first bytes are none of a PGM file.

    Source: the netpbm format description, `P5` or `P2`, then width and height between white space, with
    comments from `#` to the end of a line.
    """
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError:  # told when the image is decoded, as for every other file
        return None
    words = b" ".join(line.partition(b"#")[0] for line in head.splitlines()).split()
    if len(words) < 3 or words[0] not in {b"P2", b"P5"} or not (words[1].isdigit() and words[2].isdigit()):
        return None
    return int(words[1]), int(words[2])
