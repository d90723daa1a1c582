"""A store in a folder of this machine, or of a disk that several share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mibench.atomic import replace_file
from mibench.key import Key

TENSORS, VALUE, COST = "tensors.safetensors", "artifact.json", "cost.json"
STALE_S = 7 * 24 * 3600  # no task runs longer, so what is older belongs to a killed run


class Shelf(Protocol):
    """Where the files of artifacts lie; what is in them is the store's to judge.

    What is read may raise OSError, for a file that is missing FileNotFoundError, or StoreError.
    """

    def contains(self, key: Key) -> bool:
        """Whether an artifact lies under the key; its content is not looked at."""
        ...

    def present(self, keys: Iterable[Key]) -> set[Key]:
        """Those keys under which an artifact lies."""
        ...

    def document(self, key: Key) -> str | None:
        """The text that makes an artifact; None where there is no artifact."""
        ...

    def tensors(self, key: Key, digest: str) -> Path:
        """A file of this machine with the tensors of an artifact, which should have the SHA-256 `digest`."""
        ...

    def forget(self, digest: str) -> bool:
        """Drop a copy that proved damaged; whether there was one, so that asking again may help."""
        ...

    def aside(self, key: Key) -> Path:
        """A new folder in which to make an artifact."""
        ...

    def place(self, aside: Path, key: Key, digest: str) -> None:
        """Give what was made in a folder its place, whole or not at all; what is there already stays."""
        ...

    def set_aside(self, key: Key) -> None:
        """Give an artifact a name that nobody reads; another process may have done so."""
        ...

    def put_cost(self, key: Key, cost: bytes) -> None:
        """Leave a cost beside an artifact; without one, nothing is kept."""
        ...

    def cost(self, key: Key) -> bytes:
        """The cost of an artifact; an error, or nothing, where there is none."""
        ...

    def past(self) -> Iterator[tuple[Key, str, str]]:
        """Key, document and cost of whatever has all three."""
        ...

    def sweep(self) -> None:
        """Remove what killed runs have left, and what was set aside, a week after."""
        ...


class Folder:
    """A `Shelf` in a folder: an artifact is a folder in it, made aside and renamed.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: Key) -> Path:
        """Where the artifact of a key lies, or would."""
        return self.root / key[:2] / key

    def contains(self, key: Key) -> bool:
        """See `Shelf`."""
        return (self.folder(key) / VALUE).is_file()

    def present(self, keys: Iterable[Key]) -> set[Key]:
        """See `Shelf`."""
        return {key for key in keys if self.contains(key)}

    def document(self, key: Key) -> str | None:
        """See `Shelf`."""
        folder = self.folder(key)
        return (folder / VALUE).read_text(encoding="utf-8") if folder.is_dir() else None

    def tensors(self, key: Key, digest: str) -> Path:
        """See `Shelf`."""
        return self.folder(key) / TENSORS

    def forget(self, digest: str) -> bool:
        """See `Shelf`."""
        return False

    def aside(self, key: Key) -> Path:
        """See `Shelf`."""
        place = self.folder(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = place.parent / f"{key}.tmp-{os.getpid()}-{time.monotonic_ns()}"
        aside.mkdir()
        return aside

    def place(self, aside: Path, key: Key, digest: str) -> None:
        """See `Shelf`."""
        place = self.folder(key)
        try:
            aside.rename(place)
        except OSError:
            if not (place / VALUE).is_file():  # else another process was first
                if not place.exists():
                    raise
                self.set_aside(key)  # incomplete: a file of it was deleted by hand
                aside.rename(place)
        descriptor = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def set_aside(self, key: Key) -> None:
        """See `Shelf`."""
        folder = self.folder(key)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(folder.with_name(f"{folder.name}.corrupt-{os.getpid()}-{time.monotonic_ns()}"))

    def put_cost(self, key: Key, cost: bytes) -> None:
        """See `Shelf`."""
        with contextlib.suppress(FileNotFoundError):
            replace_file(self.folder(key) / COST, cost)

    def cost(self, key: Key) -> bytes:
        """See `Shelf`."""
        return (self.folder(key) / COST).read_bytes()

    def past(self) -> Iterator[tuple[Key, str, str]]:
        """See `Shelf`."""
        for file in self.root.glob(f"*/*/{COST}"):
            # it may be set aside just now
            with contextlib.suppress(OSError, UnicodeDecodeError):
                document = (file.parent / VALUE).read_text(encoding="utf-8")
                yield file.parent.name, document, file.read_text(encoding="utf-8")

    def sweep(self) -> None:
        """See `Shelf`."""
        sweep_folder(self.root, ("*/*.tmp-*", "*/*.corrupt-*", f"*/*/{COST}.tmp-*", "progress/*.json"))


def sweep_folder(root: Path, patterns: Iterable[str]) -> None:
    """Remove files and folders of some patterns that are older than a week."""
    for pattern in patterns:
        for left in list(root.glob(pattern)):
            with contextlib.suppress(OSError):  # another process has just removed it
                if time.time() - left.stat().st_mtime <= STALE_S:
                    continue
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


__all__ = ["COST", "STALE_S", "TENSORS", "VALUE", "Folder", "Shelf", "sweep_folder"]
