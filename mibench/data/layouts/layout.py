"""What is known of a data set, and how its files say who is on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Points = tuple[tuple[float, float], ...]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a user must know of a data set before preparing it.

    Args:
        name: the word of the command line.
        title: its full name.
        home: address of its home page.
        get: where and how users get it, in a sentence or two.
        terms: what its licence or agreement allows, in a sentence.
        set_terms: what a set says of its terms where users did not; empty takes `terms`.
        citation: the paper to cite.
        folder: how the folder given by `--from` must look, one path a line.
        channels: 3 for RGB, 1 for gray: what it is prepared as unless the user says otherwise.
        size: image height and width in pixels, unless the user says otherwise.
        crop: side of the middle square that is kept, in pixels of an image as it is published; 0 keeps the
            largest square.
        crop_source: where the crop is from.
        may_publish: whether its terms allow images, and what an attack makes of them, on public pages.
        has_identities: whether it says who is on an image; where not, it can be public data alone.
        has_landmarks: whether it comes with five landmarks a face.
    """

    name: str
    title: str
    home: str
    get: str
    terms: str
    citation: str
    folder: tuple[str, ...]
    channels: int = 3
    size: int = 64
    crop: int = 0
    crop_source: str = ""
    may_publish: bool = False
    has_identities: bool = True
    has_landmarks: bool = False
    set_terms: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)  # there are millions of them
class Item:
    """An image file that a layout has found.

    Args:
        file: where it lies.
        name: its path below the source folder, with `/`; what the manifest calls it.
        identity: who is on it; where the set does not say, the file's own name.
        landmarks: five points (x, y) in pixels of the image: left eye, right eye, nose, left and right corner
            of the mouth, left being left in the image; None where there are none.
        box: left, top, right, bottom of the face in pixels of the image; None where there is none.
    """

    file: Path
    name: str
    identity: str
    landmarks: Points | None = None
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that is not taken, and why: `name` as in Item; `reason` a short phrase that many can share."""

    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What a layout finds: images by identity and name, sorted, and what it leaves out.

    Args:
        items: the images.
        skips: what is left out.
        crop: side of the middle square that is kept, in pixels of the images found, where they are another
            variant of the set than the one `Facts.crop` speaks of; None keeps `Facts.crop`.
    """

    items: tuple[Item, ...]
    skips: tuple[Skip, ...] = field(default=())
    crop: int | None = None


class Layout(Protocol):
    """How a data set lies on disk."""

    @property
    def facts(self) -> Facts:
        """What a user must know of the set."""
        ...

    def find(self, root: Path, *, landmarks: bool) -> Found:
        """The images below a folder.

        Args:
            root: the folder given by the user.
            landmarks: whether the set's own landmarks are asked for.

        Raises:
            DataError: the folder does not look like the set, or a list file is missing or wrong; the message
                names the file, the line, and what to do.
        """
        ...
