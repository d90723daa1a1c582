"""What a preparation is asked for, and what it will look at: decided whole before the first image is read."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from mibench.data.decode import MB
from mibench.data.layouts.layout import Found, Item, Layout, Skip
from mibench.data.prepared import NAME
from mibench.data.spelling import spelled
from mibench.errors import DataError

Fit = Literal["crop", "pad"]
Align = Literal["none", "mtcnn", "landmarks"]
_ROW_BYTES = 200  # about what a row takes in the manifest; only the check of free space needs it


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks for; None and "" take what the layout says, or no limit.

    Args:
        layout: how the source lies on disk.
        source: its folder.
        target: folder of the prepared set.
        name: of the set; letters, digits and `._-`.
        size: height and width in pixels, >= 8.
        channels: 3 for RGB, 1 for gray.
        crop: side of the middle square that is kept, in pixels of an image; 0 keeps the largest one.
        fit: whether an image that is no square is cropped or padded with black.
        align: whether faces are brought into one position, and by which points.
        identities: people kept, those with most images first, >= 2.
        min_images: usable images that a person needs, >= 1.
        max_images: images kept of a person, the first by name.
        max_file_mb: larger files are left out, in units of 10^6 bytes.
        licence: what the user's licence allows, in place of the layout's terms.
        may_publish: whether the images may stand on public pages.
        jobs: images that are decoded at once, >= 1.
        device: where faces are looked for.
        restart: throw away what lies at the target.
    """

    layout: Layout
    source: Path
    target: Path
    name: str
    size: int | None = None
    channels: int | None = None
    crop: int | None = None
    fit: Fit = "crop"
    align: Align = "none"
    identities: int | None = None
    min_images: int = 1
    max_images: int | None = None
    max_file_mb: float = 64
    licence: str = ""
    may_publish: bool = False
    jobs: int = 1
    device: str = "cpu"
    restart: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise self._wrong("--name", self.name, "Take letters, digits and ._- only, 64 at most.")
        if self.channels not in (None, 1, 3):
            raise self._wrong("--channels", self.channels, "Take 1 or 3.")
        for option, value, least in (
            ("--size", self.size, 8),
            ("--crop", self.crop, 0),
            ("--identities", self.identities, 2),
            ("--min-images", self.min_images, 1),
            ("--max-images", self.max_images, self.min_images),
            ("--jobs", self.jobs, 1),
        ):
            if value is not None and value < least:
                raise self._wrong(option, value, f"Take {least} or more.")
        if not 0 < self.max_file_mb < float("inf"):
            raise self._wrong("--max-file-mb", self.max_file_mb, "Take a number above 0.")
        self._check_together()

    def _check_together(self) -> None:
        """Raise DataError where options contradict each other or the layout."""
        facts = self.layout.facts
        if self.crop is not None and (self.fit == "pad" or self.align != "none"):
            other = "--fit pad" if self.fit == "pad" else f"--align {self.align}"
            raise self._wrong("--crop", self.crop, f"It contradicts {other}: leave one of them out.")
        if self.fit == "pad" and self.align != "none":
            raise self._wrong("--fit", "pad", f"It contradicts --align {self.align}: leave one of them out.")
        if self.may_publish and not (facts.may_publish or self.licence):
            raise DataError(
                f"prepare {facts.name}: --may-publish, but what is known of its terms does not allow that: "
                f"{facts.terms} Say by --licence under which terms you have the images."
            )
        picks = {"--identities": self.identities, "--max-images": self.max_images}
        given = [option for option, value in picks.items() if value is not None]
        given += ["--min-images"] if self.min_images > 1 else []
        if given and not facts.has_identities:
            raise DataError(
                f"prepare {facts.name}: {' and '.join(given)} make no sense, for this set does not say who "
                "is on its images. Leave them out."
            )

    def _wrong(self, option: str, value: object, advice: str) -> DataError:
        return DataError(f"prepare {self.layout.facts.name}: {option} {spelled(str(value))}. {advice}")

    def command(self) -> str:
        """The command line that asks for this, without --restart."""
        words = ["mibench", "data", "prepare", self.layout.facts.name]
        words += ["--from", str(self.source.absolute()), "--to", str(self.target.absolute())]
        options: dict[str, Any] = {
            "--size": self.size,
            "--channels": self.channels,
            "--crop": self.crop,
            "--fit": None if self.fit == "crop" else self.fit,
            "--align": None if self.align == "none" else self.align,
            "--identities": self.identities,
            "--min-images": None if self.min_images == 1 else self.min_images,
            "--max-images": self.max_images,
            "--max-file-mb": None if self.max_file_mb == 64 else f"{self.max_file_mb:g}",
            "--licence": self.licence or None,
            "--name": self.name,
        }
        for option, value in options.items():
            words += [] if value is None else [option, str(value)]
        return spelled(shlex.join(words + ["--may-publish"] * self.may_publish))


@dataclass(frozen=True)
class Planned:
    """An image file, its size in bytes and the time of its last change in ns; -1 if it cannot be seen."""

    item: Item
    size: int
    changed_ns: int

    def is_unchanged(self) -> bool:
        """Whether the file still has the size and the time of the plan."""
        return _state(self.item.file) == (self.size, self.changed_ns)


@dataclass(frozen=True)
class Person:
    """An identity and its files, by name."""

    name: str
    files: tuple[Planned, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be looked at, in which order, and everything that the result depends on.

    Args:
        request: what was asked for.
        people: in the order in which they are looked at: by name, or those with most images first.
        skips: files that the layout leaves out.
        size: height and width in pixels.
        channels: 3 or 1.
        crop: side of the middle square in pixels of an image; 0 for the largest.
        options: all choices as JSON, and the digest of the list of files; `from` alone is no part of
            what two plans are compared by.
    """

    request: Request
    people: tuple[Person, ...]
    skips: tuple[Skip, ...]
    size: int
    channels: int
    crop: int
    options: dict[str, Any] = field(repr=False)

    @cached_property
    def total(self) -> int:
        """Files that will probably be read; more where people turn out to have too few images."""
        return sum(len(self.first_files(person)) for person in self.people[: self.request.identities])

    @property
    def bytes_needed(self) -> int:
        """About what the set takes on disk if every file is usable."""
        return self.total * (self.channels * self.size**2 + _ROW_BYTES)

    @property
    def max_bytes(self) -> int:
        """Size from which on a file is left out."""
        return round(self.request.max_file_mb * MB)

    def first_files(self, person: Person) -> tuple[Planned, ...]:
        """The files of a person that are read unless some turn out to be unusable."""
        return person.files[: self.request.max_images] if not self.is_small(person) else ()

    def is_small(self, person: Person) -> bool:
        """Whether a person has too few files, whatever is in them."""
        return len(person.files) < self.request.min_images

    def difference(self, options: dict[str, Any]) -> str:
        """What sets other options apart from this plan's, in words; empty where nothing does."""
        names = sorted(({*options, *self.options}) - {"from"})
        found = [name for name in names if options.get(name) != self.options.get(name)]
        if not found:
            return ""
        told = [name for name in found if name not in ("found", "found_images")]
        if not told:
            was, now = (each.get("found_images", 0) for each in (options, self.options))
            return f"from other files: {was:,} images then and {now:,} now, or some of them have changed"
        name = told[0]
        was, now = (_said(each.get(name)) for each in (options, self.options))
        return f"with other options: {name} {was} then and {now} now"


def _said(value: object) -> str:
    """The value of an option in a sentence: texts in quotes, `none` for what was not given."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"'{spelled(value)}'" if isinstance(value, str) else spelled(str(value))


def make_plan(request: Request) -> Plan:
    """Look for the files of a request.

    Raises:
        DataError: the source cannot be used, or the target lies inside it.
    """
    facts = request.layout.facts
    source, target = (Path(os.path.realpath(path)) for path in (request.source, request.target))
    if target.is_relative_to(source):
        raise DataError(
            f"prepare {facts.name}: the target {spelled(str(request.target))} lies inside the source, which "
            "stays as it is. Give another folder by --to."
        )
    found = request.layout.find(request.source, landmarks=request.align == "landmarks")
    size, channels = request.size or facts.size, request.channels or facts.channels
    default = facts.crop if found.crop is None else found.crop
    plain = request.fit == "crop" and request.align == "none"
    crop = default if request.crop is None else request.crop
    files = [Planned(item, *_state(item.file)) for item in found.items]
    options: dict[str, Any] = {
        "from": spelled(os.path.realpath(request.source)),
        "layout": facts.name,
        "name": request.name,
        "size": size,
        "channels": channels,
        "crop": crop if plain else 0,
        "boxes": plain and request.crop is None,
        "fit": request.fit,
        "align": request.align,
        "device": request.device if request.align == "mtcnn" else "",
        "identities": request.identities,
        "min_images": request.min_images,
        "max_images": request.max_images,
        "max_file_mb": request.max_file_mb,
        "licence": request.licence,
        "may_publish": request.may_publish,
        "found": _digest(files, found),
        "found_images": len(files),
    }
    return Plan(
        request=request,
        people=tuple(_people(files, by_count=request.identities is not None)),
        skips=found.skips,
        size=size,
        channels=channels,
        crop=crop if plain else 0,
        options=options,
    )


def _people(files: list[Planned], *, by_count: bool) -> Iterator[Person]:
    """The identities, as the layout orders them; by number of files, most first, where that is asked for."""
    together: dict[str, list[Planned]] = {}
    for name, own in groupby(files, key=lambda planned: planned.item.identity):
        together.setdefault(name, []).extend(own)
    people = [Person(name, tuple(own)) for name, own in together.items()]
    if by_count:
        people.sort(key=lambda person: -len(person.files))  # stable: ties stay by name
    yield from people


def _state(file: Path) -> tuple[int, int]:
    try:
        found = os.stat(file)  # noqa: PTH116 - pathlib takes twice as long, and there may be millions of files
    except (OSError, ValueError):
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _digest(files: list[Planned], found: Found) -> str:
    """SHA-256 over names, identities, points, boxes, sizes and times of what is found and left out."""
    digest = hashlib.sha256()
    for planned in files:
        item = planned.item
        told = (item.name, item.identity, item.landmarks, item.box, planned.size, planned.changed_ns)
        digest.update(repr(told).encode("utf-8", "surrogatepass"))
    for skip in found.skips:
        digest.update(repr((skip.name, skip.reason)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
