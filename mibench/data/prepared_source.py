"""A split file over prepared sets as the data of a suite."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict

from mibench.data.source import PARTS, Part
from mibench.data.split import Labeled
from mibench.data.split_file import Person, SplitFile, part_digest
from mibench.errors import DataError

_COUNTS = ("size", "channels", "private", "public", "defender")


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The parts of a split file, see `mibench data split`.

    The numbers say what a suite was made for; 0 takes what the file says. They are compared with the file
    when the suite is planned.

    Args:
        split: path of the split file; no part of any key, the content is.
        size: image height and width in pixels, >= 8.
        channels: 3 for RGB, 1 for gray.
        private: people that the victim knows, >= 2.
        public: people of the attacker's public images, >= 1.
        defender: people of the defender's public images, >= 2.
    """

    kind: ClassVar[str] = "prepared"
    version: ClassVar[int] = 1
    split: str
    size: int = 0
    channels: int = 0
    private: int = 0
    public: int = 0
    defender: int = 0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}.")

    def beside(self, folder: Path) -> PreparedData:
        """The same with a relative path taken from a folder, and no number 0; see Source.

        Raises:
            DataError: the file has to be read for a number, and cannot be.
        """
        return dataclasses.replace(self, split=str(folder / Path(self.split).expanduser())).filled()

    def filled(self) -> PreparedData:
        """The same with every number that is 0 read from the file.

        Raises:
            DataError: the file cannot be read.
        """
        if all(getattr(self, name) for name in _COUNTS):
            return self
        said = {name: getattr(self, name) or value for name, value in self._said().items()}
        return PreparedData(split=self.split, **said)

    def part_params(self, part: Part) -> dict[str, Any]:
        """The digest of what the part holds; see Source.

        Raises:
            DataError: the file or a set of it cannot be read, is another one, or has other numbers.
        """
        self._check()
        return {"part": part, "digest": self._file().parts[part].digest}

    def locator(self) -> dict[str, Any]:
        """Every field; see Source."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def told(self) -> dict[str, Any]:
        """The sets behind the parts, and whether their images may be shown; see Source.

        They may where the split says so and each set still does: a set that is prepared anew under other
        terms has the same digest.

        Raises:
            DataError: the file or a set of it cannot be read, or is another one.
        """
        file = self._file()
        sets = {part: file.parts[part].set_name for part in PARTS}
        now = file.open_sets(self.split)
        return {
            "sets": sets,
            "terms": {name: found.info.terms for name, found in now.items()},
            "may_publish": all(
                link.may_publish and now[name].info.may_publish for name, link in file.sets.items()
            ),
        }

    def identities(self) -> dict[Part, tuple[str, ...]]:
        """Names of the people, with their set's; see Source."""
        return {part: self._file().parts[part].identities for part in PARTS}

    def load(self, part: Part) -> tuple[Labeled, Labeled | None]:
        """The images of a part; see Source.

        Raises:
            DataError: the set is not the one that was divided.
        """
        found = self._file().parts[part]
        pixels = self._file().open_set(part, self.split).pixels
        if part_digest(pixels, found.people) != found.digest:
            raise DataError(
                f"split {self.split}: the images of the {part} part are not those that were divided. "
                "`mibench data verify` says which file changed."
            )

        def taken(rows: tuple[int, ...], labels: list[int]) -> Labeled:
            images = torch.from_numpy(pixels[list(rows)])
            return Labeled(images, torch.tensor(labels, dtype=torch.int64), found.identities)

        train = taken(found.train, _labels(found.people, "train"))
        return train, taken(found.test, _labels(found.people, "test")) if part == "private" else None

    def _file(self) -> SplitFile:
        try:
            state = Path(self.split).stat()
        except OSError:
            return SplitFile.read(self.split)  # which says what is wrong
        return _read(self.split, state.st_size, state.st_mtime_ns)

    def _said(self) -> dict[str, int]:
        file = self._file()
        counts: dict[str, int] = {part: len(file.parts[part].people) for part in PARTS}
        return {"size": file.size, "channels": file.channels, **counts}

    def _check(self) -> None:
        """Raise DataError where the file has other numbers, or its sets are gone or changed."""
        for name, value in self._said().items():
            if getattr(self, name) not in (0, value):
                raise DataError(
                    f"split {self.split}: has {name} {value}, the suite asks for {getattr(self, name)}. Make "
                    "a split for this suite, or give this one with --split, which takes its numbers."
                )
        self._file().open_sets(self.split)


def _labels(people: tuple[Person, ...], which: str) -> list[int]:
    return [label for label, one in enumerate(people) for _ in getattr(one, which)]


@lru_cache(maxsize=8)
def _read(path: str, _size: int, _changed_ns: int) -> SplitFile:
    return SplitFile.read(path)
