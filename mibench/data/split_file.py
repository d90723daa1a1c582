"""A frozen split: which rows of which prepared sets are private, the attacker's and the defender's.

One JSON file. It names each set by a path relative to itself and by the digest of its content, so that a set
that was prepared anew is noticed; each part has the digest of its own images, labels and names, which is what
keys hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mibench.data.disjoint import check_disjoint
from mibench.data.prepared import IMAGES, INFO, MANIFEST, PreparedSet
from mibench.data.source import PARTS, Part
from mibench.errors import DataError, LeakError

SCHEMA = 1
_CHUNK = 4096  # rows that are digested at a time
Rows = tuple[int, ...]


@dataclass(frozen=True)
class Person:
    """One identity of a part: its name in the set, and its rows to train and to test on."""

    name: str
    train: Rows
    test: Rows = ()


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """One part of a split.

    Args:
        set_name: name of the set that its rows are of.
        people: identities in label order.
        digest: SHA-256 of its images, labels and names, see `part_digest`.
    """

    set_name: str
    people: tuple[Person, ...]
    digest: str

    @property
    def identities(self) -> tuple[str, ...]:
        """Names that are unique over all sets, in label order."""
        return tuple(f"{self.set_name}/{one.name}" for one in self.people)

    @property
    def train(self) -> Rows:
        """All rows to train on, person by person."""
        return tuple(row for one in self.people for row in one.train)

    @property
    def test(self) -> Rows:
        """All rows to test on, person by person."""
        return tuple(row for one in self.people for row in one.test)


@dataclass(frozen=True, kw_only=True)
class SetLink:
    """A prepared set as a split knows it.

    Args:
        path: of its folder, relative to the split file where that is possible.
        digest: `SetInfo.digest`.
        title: its full name.
        terms: what its licence allows.
        may_publish: whether its images may stand on public pages.
    """

    path: str
    digest: str
    title: str
    terms: str
    may_publish: bool


@dataclass(frozen=True, kw_only=True)
class SplitFile:
    """What a split file says.

    Args:
        size: image height and width in pixels.
        channels: 3 for RGB, 1 for gray.
        sets: by name.
        parts: `private`, `public` (the attacker's) and `defender`.
        options: the choices that made it, as JSON.
        dropped: what was taken out of it later and why, as JSON.
    """

    size: int
    channels: int
    sets: dict[str, SetLink]
    parts: dict[Part, SplitPart]
    options: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        check_disjoint({f"{part} part": self.parts[part].identities for part in PARTS})
        _check_once(self)

    @classmethod
    def read(cls, path: str | Path) -> SplitFile:
        """The split of a file.

        Raises:
            DataError: it cannot be read, or says something that no split can be.
            LeakError: one identity stands in two parts, or one image stands twice.
        """
        try:
            raw = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
                raise ValueError(f"its schema is not {SCHEMA}")
            sets = {name: _link_of(name, link) for name, link in raw["sets"].items()}
            return cls(
                size=int(raw["size"]),
                channels=int(raw["channels"]),
                sets=sets,
                parts={part: _part_of(raw["parts"][part], sets) for part in PARTS},
                options=dict(raw["options"]),
                dropped=tuple(raw["dropped"]),
            )
        except OSError as error:
            raise DataError(
                f"split {path}: cannot be read ({error.strerror or error}). Make it by `mibench data split`, "
                "or give another with --split."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"split {path}: is no split file ({error}). Make it anew by `mibench data split`."
            ) from error

    def to_json(self) -> str:
        """The content of a split file; one line for each person, so that a difference can be read."""
        parts = []
        for part in PARTS:
            people = ",\n".join(f"    {json.dumps(_row(one))}" for one in self.parts[part].people)
            named = f'"set": {json.dumps(self.parts[part].set_name)}, "digest": "{self.parts[part].digest}"'
            parts.append(f'  "{part}": {{{named}, "people": [\n{people}\n  ]}}')
        head = {
            "schema": SCHEMA,
            "size": self.size,
            "channels": self.channels,
            "options": self.options,
            "dropped": self.dropped,
            "sets": {name: dataclasses.asdict(link) for name, link in self.sets.items()},
        }
        body = json.dumps(head, indent=1).removesuffix("\n}")
        return body + ',\n "parts": {\n' + ",\n".join(parts) + "\n }\n}\n"

    def open_sets(self, path: str | Path) -> dict[str, PreparedSet]:
        """The sets of a split that lies at `path`, by name.

        Raises:
            DataError: a set is missing, or is not the one that was divided.
        """
        return {name: self.open_named(name, path) for name in self.sets}

    def open_set(self, part: Part, path: str | Path) -> PreparedSet:
        """The set of a part; see `open_sets`."""
        return self.open_named(self.parts[part].set_name, path)

    def open_named(self, name: str, path: str | Path) -> PreparedSet:
        """The set of a name; see `open_sets`."""
        return _open(name, self.sets[name], Path(path))


def part_digest(pixels: NDArray[np.uint8], people: Sequence[Person]) -> str:
    """SHA-256, in hexadecimal, of a part's images in label order with the names and numbers around them.

    Args:
        pixels: (N, C, H, W), uint8, of the set that the rows are of.
        people: of the part.

    Raises:
        DataError: a row is not in the set.
    """
    digest = hashlib.sha256(json.dumps(list(pixels.shape[1:])).encode())
    for one in people:
        digest.update(json.dumps([one.name, len(one.train), len(one.test)]).encode())
    rows = [row for one in people for row in (*one.train, *one.test)]
    if rows and not 0 <= min(rows) <= max(rows) < len(pixels):
        raise DataError(f"split: row {max(rows)} is not among {len(pixels)} images. Make the split anew.")
    for start in range(0, len(rows), _CHUNK):
        digest.update(pixels[rows[start : start + _CHUNK]].tobytes())
    return digest.hexdigest()


def link_to(found: PreparedSet, split: Path) -> SetLink:
    """How a split file at `split` names a set."""
    info = found.info
    return SetLink(
        path=Path(os.path.relpath(found.root.resolve(), split.resolve().parent)).as_posix(),
        digest=info.digest,
        title=info.title,
        terms=info.terms,
        may_publish=info.may_publish,
    )


def _open(name: str, link: SetLink, path: Path) -> PreparedSet:
    folder = _folder(path.parent / link.path)
    if not any((folder / file).exists() for file in (INFO, IMAGES, MANIFEST)):
        raise DataError(
            f"split {path}: names its set '{name}' by the path '{link.path}' from its own folder, and in "
            f"{folder.resolve()} there is no set. Put the split back beside its set, or move both together."
        )
    found = PreparedSet(folder)
    if found.info.digest != link.digest:
        raise DataError(
            f"split {path}: the set in {found.root} is not the one that was divided (its digest begins with "
            f"{found.info.digest[:12]}, not {link.digest[:12]}). Make it as it was, by the same `mibench "
            "data prepare` command from the same files with --restart, or divide it under another name."
        )
    return found


def _folder(place: Path) -> Path:
    """The folder of a set without the way there by the split's own folder, which says nothing to users."""
    short = Path(os.path.normpath(place))
    if short.name in {"", ".."}:
        return place.resolve()
    # where links are on the way, the system goes up from what they lead to
    is_same = place.exists() and short.exists() and short.samefile(place)
    return short if is_same else place.resolve()


def _row(one: Person) -> list[Any]:
    return [one.name, list(one.train), list(one.test)]


def _link_of(name: str, raw: Mapping[str, Any]) -> SetLink:
    link = SetLink(**raw)
    texts = (link.path, link.digest, link.title, link.terms)
    # a text in place of false would count as true, and show images
    if not all(isinstance(text, str) for text in texts) or not isinstance(link.may_publish, bool):
        raise ValueError(f"a field of the set '{name}' is of another type")
    return link


def _part_of(raw: Mapping[str, Any], sets: Mapping[str, SetLink]) -> SplitPart:
    if raw["set"] not in sets:
        raise ValueError(f"a part is of the set '{raw['set']}', which the file does not name")
    people = tuple(Person(str(name), _rows(train), _rows(test)) for name, train, test in raw["people"])
    return SplitPart(set_name=str(raw["set"]), people=people, digest=str(raw["digest"]))


def _rows(raw: Sequence[Any]) -> Rows:
    if not all(type(row) is int for row in raw):
        raise ValueError("a row is no whole number")
    return tuple(raw)


def _check_once(split: SplitFile) -> None:
    """Raise LeakError where a set stands under two names, or a person or an image twice."""
    by_digest: dict[str, str] = {}
    for name, link in split.sets.items():
        if (other := by_digest.setdefault(link.digest, name)) != name:
            raise LeakError(
                f"split: the sets '{other}' and '{name}' hold the same images of the same people. Divide one "
                "of them."
            )
    taken: dict[str, set[int]] = {name: set() for name in split.sets}
    for part in PARTS:
        names: set[str] = set()
        used = taken[split.parts[part].set_name]
        for one in split.parts[part].people:
            rows = (*one.train, *one.test)
            if one.name in names:
                raise LeakError(
                    f"split: identity '{one.name}' stands twice in the {part} part. Name it once."
                )
            if len({*rows}) != len(rows) or not used.isdisjoint(rows):
                raise LeakError(
                    f"split: '{one.name}' of the {part} part has an image that stands twice in the file, to "
                    "train on, to test on or as someone else's. Give every image one place."
                )
            names.add(one.name)
            used.update(rows)
