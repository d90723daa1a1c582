"""Walks the folders of a data set: in an order of its own, never twice, telling what it leaves out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mibench.data.layouts.layout import Box, Facts, Found, Item, Points, Skip
from mibench.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Endings of image files, in lower case."""

LISTS = frozenset(
    {".7z", ".csv", ".gz", ".html", ".json", ".log", ".mat", ".md", ".pdf", ".rst", ".tar", ".tgz", ".tsv",
     ".txt", ".zip"}
)  # fmt: skip
"""Endings of what comes beside the images and is none: lists, notes, archives."""

_ANY = "image_folder"  # the layout that takes any folder of people
HIDDEN = "hidden"
BROKEN = "broken link"
LOOP = "link that leads back"
UNREADABLE = "folder that cannot be read"
EMPTY = "folder without images"
NO_FILE = "not a file"
NO_IMAGE = "no image by its name"
DEEPER = "folder inside a person's folder"
OUTSIDE = "outside a person's folder"
WHOLE = "whole photo beside its face"

_DIGITS = re.compile("([0-9]{1,18})")  # int() refuses thousands of digits, which a list may hold


@dataclass
class Listing:
    """What lies in one folder: names of its folders and image files, sorted.

    Args:
        folders: names of the folders, real ones before links: what is met first gives an image its identity.
        images: names of the image files.
    """

    folders: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


class Walk:
    """One look at the folders below a root; what it leaves out collects in `skips`.

    Args:
        root: the folder given by the user.
        facts: of the data set, for the messages.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, root: Path, facts: Facts) -> None:
        self.root, self.facts = root, facts
        self.skips: list[Skip] = []
        if not root.is_dir():
            raise self.refusal("there is no such folder", "Check --from.")
        real = root.resolve()
        self._seen = {_number(folder) for folder in real.parents}  # a link to what holds the root leads back

    def refusal(self, problem: str, advice: str = "") -> DataError:
        """An error about the folder; without advice it says how the folder must look."""
        wanted = "; ".join(self.facts.folder)
        advice = advice or f"It must look so: {wanted}."
        return DataError(f"{self.facts.name} in {quoted(self.root)}: {problem}. {advice}")

    def skip(self, name: str, reason: str) -> None:
        """Note that a file or folder is left out."""
        self.skips.append(Skip(name, reason))

    def look(self, where: str = "") -> Listing | None:
        """What lies in a folder, `where` being its path below the root; None if it is left out.

        Raises:
            DataError: the root itself cannot be read.
        """
        path = self.root / where
        listing = Listing()
        links: list[str] = []
        try:
            if (number := _number(path)) in self._seen:
                self.skip(where, LOOP)
                return None
            self._seen.add(number)
            with os.scandir(path) as entries:
                for entry in entries:
                    self._place(entry, f"{where}/{entry.name}" if where else entry.name, listing, links)
        except OSError as error:
            if not where:
                raise self.refusal(f"cannot be read ({error.strerror})", "Check permissions.") from error
            self.skip(where, UNREADABLE)
            return None
        listing.folders = sorted(listing.folders) + sorted(links)
        listing.images.sort()
        return listing

    def _place(self, entry: os.DirEntry[str], name: str, listing: Listing, links: list[str]) -> None:
        """Put an entry of a folder where it belongs; only links cost a look at the disk."""
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path for each entry is slow
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        if entry.name.startswith("."):
            self.skip(name, HIDDEN)
        elif is_folder:
            (links if entry.is_symlink() else listing.folders).append(entry.name)
        elif not is_file:
            self.skip(name, BROKEN if entry.is_symlink() else NO_FILE)
        elif suffix in SUFFIXES:
            listing.images.append(entry.name)
        elif suffix not in LISTS:
            self.skip(name, NO_IMAGE)

    def people(
        self, where: str = "", *, inner: tuple[str, ...] = (), lists: str = ""
    ) -> Iterator[tuple[str, str, list[str]]]:
        """Person folders below a folder; those without images are skips.

        Args:
            where: path of the folder below the root.
            inner: names of folders that may lie in a person's and hold the images in its place.
            lists: name of a folder that lies among the person folders and is none.

        Yields:
            Person, path of the folder of the images below the root, names of the images.
        """
        listing = self.look(where)
        if listing is None:
            return
        for image in listing.images:
            self.skip(_join(where, image), OUTSIDE)
        for person in (folder for folder in listing.folders if folder != lists):
            yield from self._person(person, _join(where, person), inner)

    def _person(
        self, person: str, place: str, inner: tuple[str, ...]
    ) -> Iterator[tuple[str, str, list[str]]]:
        """One person's images, at most once; see `people`."""
        found = self.look(place)
        if found is None:
            return
        deeper = next((name for name in inner if name in found.folders), "")
        for folder in found.folders:
            if folder != deeper:
                self.skip(_join(place, folder), DEEPER)
        if deeper:
            for image in found.images:
                self.skip(f"{place}/{image}", WHOLE)
            place = f"{place}/{deeper}"
            found = self.look(place) or Listing()
        if found.images:
            yield person, place, found.images
        else:
            self.skip(place, EMPTY)

    def item(
        self, name: str, identity: str, *, landmarks: Points | None = None, box: Box | None = None
    ) -> Item:
        """An image by its path below the root."""
        return Item(
            file=Path(f"{self.root}{os.sep}{name}"),
            name=name,
            identity=identity,
            landmarks=landmarks,
            box=box,
        )

    def found(self, items: list[Item], *, crop: int | None = None) -> Found:
        """The images by identity and name, and the skips by name.

        Raises:
            DataError: there are no images.
        """
        if not items:
            wanted = "; ".join(self.facts.folder)
            other = (
                "" if self.facts.name == _ANY else f" For people in folders of another kind take `{_ANY}`."
            )
            raise self.refusal(f"no images found{self._told()}", f"It must look so: {wanted}.{other}")
        keys = {identity: natural(identity) for identity in {item.identity for item in items}}
        items = sorted(items, key=lambda item: (keys[item.identity], natural(item.name)))
        return Found(tuple(items), tuple(sorted(self.skips, key=lambda skip: natural(skip.name))), crop)

    def _told(self) -> str:
        """How many files and folders are left out, the most frequent reason and an example, in brackets."""
        if not self.skips:
            return ""
        reason, count = Counter(skip.reason for skip in self.skips).most_common(1)[0]
        of_it = [skip for skip in self.skips if skip.reason == reason]
        first = min(of_it, key=lambda skip: natural(skip.name))
        of = f", {count} of them" if count < len(self.skips) else ""
        return f" ({len(self.skips)} left out{of}: {reason}, such as {quoted(first.name)})"


def natural(name: str) -> tuple[tuple[str | int, ...], str]:
    """A key that sorts numbers in names by value, `s2` before `s10`; different for different names."""
    parts: list[str | int] = list(_DIGITS.split(name))
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts), name


def quoted(text: object, limit: int = 120) -> str:
    """Text in quotes on one line, cut to a number of characters, with escapes for what does not print."""
    words = str(text)
    return repr(words if len(words) <= limit else f"{words[: limit - 1]}…")


def first_folder(root: Path, places: tuple[str, ...]) -> str | None:
    """The first of some paths below a root that is a folder."""
    return next((place for place in places if (root / place).is_dir()), None)


def first_file(root: Path, places: tuple[str, ...], name: str) -> Path | None:
    """The first file of a name in some folders below a root; "" is the root itself."""
    files = (root / place / name for place in places)
    return next((file for file in files if file.is_file()), None)


def no_landmarks(walk: Walk) -> DataError:
    """What to raise where landmarks are asked of a set that has none."""
    return walk.refusal("the set has no landmarks", "Take --align mtcnn, or leave --align out.")


def _join(where: str, name: str) -> str:
    return f"{where}/{name}" if where else name


def _number(folder: Path) -> tuple[int, int]:
    """What tells one real folder from another: its device and inode."""
    state = folder.stat()
    return state.st_dev, state.st_ino
