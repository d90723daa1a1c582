"""What lies below a folder of prepared sets: whole ones, unfinished ones, damaged ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mibench.data.damage import damage_told
from mibench.data.prepared import IMAGES, INFO, MANIFEST, PreparedSet, SetInfo
from mibench.data.preparing_state import LOCK, PART, PROGRESS, Progress, read_progress
from mibench.errors import DataError

State = Literal["complete", "unfinished", "damaged"]


@dataclass(frozen=True, kw_only=True)
class Shelved:
    """A folder that holds a prepared set, or the beginning of one.

    Args:
        folder: where it lies; its name ends with `.part` where it is unfinished.
        state: `complete` where every file is there with its size; contents are not read.
        info: what `set.json` says; None where it cannot be read.
        progress: what an unfinished one says of itself; None where it says nothing.
        text: what is the matter, and what to do; empty where it is complete.
    """

    folder: Path
    state: State
    info: SetInfo | None = None
    progress: Progress | None = None
    text: str = ""

    @property
    def name(self) -> str:
        """Of the folder, without the mark of an unfinished one."""
        name = self.folder.name or self.folder.resolve().name  # the folder may be given as `.`
        return name.removesuffix(PART) if self.state == "unfinished" else name

    @property
    def layout(self) -> str:
        """The layout that it is read with; empty where that is not known."""
        known = self.info or self.progress
        return known.layout if known else ""


def shelf(root: str | Path) -> list[Shelved]:
    """The prepared sets in a folder, by name; the folder itself may be one. Empty where there is no folder.

    Raises:
        DataError: the folder cannot be read.
    """
    folder = Path(root)
    if is_set(folder):
        return [shelved(folder)]
    try:
        children = sorted(child for child in folder.iterdir() if is_set(child)) if folder.is_dir() else []
    except OSError as error:
        advice = "Check the permissions, or give another folder with --root."
        raise DataError(f"{root}: cannot be read ({error.strerror or error}). {advice}") from error
    return [shelved(child) for child in children]


def is_set(folder: Path) -> bool:
    """Whether a folder holds a prepared set, or what is left or begun of one; hidden ones do not count."""
    names = (INFO, IMAGES, *((PROGRESS, LOCK) if folder.name.endswith(PART) else (MANIFEST,)))
    return not folder.name.startswith(".") and any((folder / name).is_file() for name in names)


def shelved(folder: Path) -> Shelved:
    """How a prepared set stands, from names and sizes of its files alone."""
    if folder.name.endswith(PART):
        return _unfinished(folder)
    try:
        found = PreparedSet(folder)
    except DataError as error:
        text = str(error).removeprefix(f"prepared set {folder}: ")
        return Shelved(folder=folder, state="damaged", text=text)
    if text := damage_told(found, with_digests=False):
        return Shelved(folder=folder, state="damaged", info=found.info, text=text)
    return Shelved(folder=folder, state="complete", info=found.info)


def _unfinished(folder: Path) -> Shelved:
    """How far a preparation has got, as far as that can be read: a kill may have left nothing."""
    progress = read_progress(folder)
    if is_held(folder):
        text = "another process prepares it at this moment"
    elif progress is not None:
        text = f"go on by `{progress.command}`"
    elif (folder / INFO).is_file():
        text = "it is whole and was not put into its place; the command that began it does that"
    else:
        text = "nothing of it was kept; give the command that began it once more, or remove the folder"
    if progress is not None:
        text = f"{progress.done:,} of about {progress.total:,} images read; {text}"
    return Shelved(folder=folder, state="unfinished", progress=progress, text=text)


def is_held(folder: Path) -> bool:
    """Whether a process prepares a set in a folder; it is asked by taking its lock for an instant."""
    import fcntl

    try:
        with (folder / LOCK).open() as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
