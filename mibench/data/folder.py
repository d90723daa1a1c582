"""A split of any image folder with one sub-folder a person."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.data.decode import UnusableImageError, decode
from mibench.data.fitting import middle_square
from mibench.data.layouts.walking import SUFFIXES
from mibench.data.source import PARTS, Part
from mibench.data.split import Labeled
from mibench.errors import DataError
from mibench.noise import derive_seed


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """People drawn by a seed from `path/<person>/<image>`.

    Images are turned as their EXIF tag says, cropped to the middle square and resized with antialiasing.

    Args:
        path: the folder; no part of any key, the content is.
        size: image height and width in pixels, >= 8.
        channels: 3 for RGB, 1 for gray.
        private: people that the victim knows, >= 2.
        public: people on the attacker's public images, >= 1.
        defender: people on the defender's public images, >= 2.
        test_fraction: share of each private person's images kept for testing, in (0, 1).
        test_images: images of each private person kept for testing, in place of a share, >= 0; 0 keeps the
            share.
        seed: draws who is in which part, and which images test.
    """

    kind: ClassVar[str] = "folder"
    version: ClassVar[int] = 2
    path: str
    size: int = 64
    channels: int = 3
    private: int = 20
    public: int = 20
    defender: int = 10
    test_fraction: float = 0.2
    test_images: int = 0
    seed: int = 0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, least in (("private", 2), ("public", 1), ("defender", 2), ("size", 8)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}.")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}.")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction must lie in (0, 1), got {self.test_fraction}.")
        if self.test_images < 0:
            raise ValueError(f"test_images must be >= 0, got {self.test_images}.")

    def part_params(self, part: Part) -> dict[str, Any]:
        """Every field but the path, and the digest of the content; see Source.

        A number of test images is no part of the public parts' keys, and of none where it is 0: what was
        made before there was a choice keeps its key.

        Raises:
            DataError: the folder cannot be read.
        """
        self._check_there()
        left_out = {"path"} if part == "private" and self.test_images else {"path", "test_images"}
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in left_out}
        return {"part": part, **fields, "digest": content_digest(self.path)}

    def locator(self) -> dict[str, Any]:
        """Every field; see Source."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def beside(self, folder: Path) -> FolderData:
        """The same with a relative path taken from a folder; see Source."""
        return dataclasses.replace(self, path=str(folder / Path(self.path).expanduser()))

    def told(self) -> dict[str, Any]:
        """Nothing; see Source."""
        return {}

    def identities(self) -> dict[Part, tuple[str, ...]]:
        """Folder names, shuffled by the seed; see Source.

        Raises:
            DataError: the folder is missing, empty, or has fewer people than asked for.
        """
        self._check_there()
        people = list(people_of(self.path))
        counts = {"private": self.private, "public": self.public, "defender": self.defender}
        wanted = sum(counts.values())
        if len(people) < wanted:
            raise DataError(
                f"images in {self.path}: {len(people)} people, but private {self.private} + public "
                f"{self.public} + defender {self.defender} = {wanted} are asked for. Lower the numbers."
            )
        people.sort(key=lambda name: derive_seed(self.seed, "person", name))
        ends = np.cumsum([0, *counts.values()]).tolist()
        return {part: tuple(people[ends[i] : ends[i + 1]]) for i, part in enumerate(PARTS)}

    def load(self, part: Part) -> tuple[Labeled, Labeled | None]:
        """The decoded images of a part; see Source.

        Raises:
            DataError: an image cannot be read, or a private person has too few images.
        """
        names = self.identities()[part]
        files = people_of(self.path)
        train: list[tuple[Path, int]] = []
        test: list[tuple[Path, int]] = []
        for label, name in enumerate(names):
            held = self._test_count(name, len(files[name])) if part == "private" else 0
            order = sorted(files[name], key=lambda f: derive_seed(self.seed, "image", f.parent.name, f.name))
            test += [(file, label) for file in order[:held]]
            train += [(file, label) for file in order[held:]]
        return self._read(train, names), self._read(test, names) if part == "private" else None

    def _check_there(self) -> None:
        """Raise DataError, with what belongs there, where there is no folder."""
        if not Path(self.path).is_dir():
            wanted = self.private + self.public + self.defender
            raise DataError(
                f"images in {self.path}: there is no such folder. Put one sub-folder of images for each of "
                f"{wanted} people or more there, or change `path` in [data]."
            )

    def _test_count(self, name: str, images: int) -> int:
        if images < 2:
            raise DataError(
                f"images in {self.path}: person '{name}' has a single image, but a private person needs one "
                "to train and one to test. Add images or remove the person."
            )
        if images <= self.test_images:
            raise DataError(
                f"images in {self.path}: person '{name}' has {images} images, but test_images = "
                f"{self.test_images} must leave one to train. Add images or remove the person."
            )
        if self.test_images:
            return self.test_images
        return min(images - 1, max(1, round(images * self.test_fraction)))

    def _read(self, files: list[tuple[Path, int]], names: tuple[str, ...]) -> Labeled:
        pixels = torch.stack([self._decode(file) for file, _ in files])
        return Labeled(pixels, torch.tensor([label for _, label in files]), names)

    def _decode(self, file: Path) -> Tensor:
        """One image as (C, size, size), uint8."""
        try:
            image = decode(file, channels=self.channels, max_bytes=None).image
        except UnusableImageError as error:
            why = f"it {error.reason}"
            raise DataError(f"image {file}: cannot be read: {why}. Replace or remove it.") from error
        square = middle_square(image, size=self.size)
        return torch.from_numpy(np.array(square)).view(self.size, self.size, -1).permute(2, 0, 1).contiguous()


def people_of(path: str | Path) -> dict[str, list[Path]]:
    """Image files of each person of a folder, both sorted by name.

    Raises:
        DataError: the folder is missing or cannot be read, or has fewer than two people with images.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"images in {path}: there is no such folder. Check `path` in [data].")
    try:
        found = {
            person.name: sorted(f for f in person.iterdir() if f.suffix.lower() in SUFFIXES)
            for person in sorted(folder.iterdir())
            if person.is_dir()
        }
    except OSError as error:
        raise _unreadable(path, error) from error
    people = {name: files for name, files in found.items() if files}
    if len(people) < 2:
        raise DataError(
            f"images in {path}: {len(people)} people with images. Give one sub-folder for each person."
        )
    return people


def content_digest(path: str | Path) -> str:
    """SHA-256 over the sorted names and the bytes of all images, read once for each state of the folder.

    Raises:
        DataError: as for `people_of`, or an image cannot be read.
    """
    files = [file for files in people_of(path).values() for file in files]
    try:
        states = tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files)
        return _digest(str(Path(path)), states)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(f"images in {path}: cannot be read ({error}). Check links and permissions.")


@lru_cache(maxsize=8)
def _digest(root: str, states: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, size, _ in states:
        digest.update(f"{Path(name).relative_to(root).as_posix()}\0{size}\0".encode())
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()
