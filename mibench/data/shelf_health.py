"""What is wrong with, or odd about, everything below a folder of prepared sets, and how to mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mibench.data.finding import NAMED, Finding, counted
from mibench.data.health import examine
from mibench.data.prepared import PreparedSet
from mibench.data.preparing_swap import SPLITS
from mibench.data.shelf import Shelved, shelf
from mibench.data.spelling import unspelled
from mibench.data.verifying_splits import verify_split
from mibench.errors import DataError

OPTIONAL = {"facenet-pytorch": "--align mtcnn"}
"""Packages that an option of `mibench data` needs."""
OnSet = Callable[[str, int], Callable[[int], object]]
_GIB = 2**30


def look_after(
    root: str | Path, on_set: OnSet = lambda _name, _rows: lambda _count: None, *, most: int = NAMED
) -> Iterator[Finding]:
    """Libraries, disk, every set below a folder and every split of them.

    Args:
        root: the folder of prepared sets.
        on_set: called with the name and the number of images of each whole set before its images are looked
            at; what it returns is called with the number of rows after each chunk.
        most: people, images or pairs that a finding names.

    Raises:
        DataError: the folder cannot be read.
    """
    sets = shelf(root)
    yield from _libraries()
    yield _disk(Path(root), sets)
    if not sets:
        yield Finding("ok", "sets", f"none in {root} yet; `mibench data list` shows what can be prepared")
    for one in sets:
        yield from _about(one, sets, on_set, most)
    yield from _set_aside(Path(root))
    damaged = [one.folder for one in sets if one.state == "damaged"]
    for file in split_files(root, sets):
        yield from verify_split(file, with_pixels=False, damaged=damaged)


def split_files(root: str | Path, sets: list[Shelved]) -> list[Path]:
    """The split files of a folder: in it, in its `splits/`, and in `splits/` of each set; by path."""
    folders = [Path(root), Path(root) / "splits", *(one.folder / "splits" for one in sets)]
    found = {file for folder in folders for file in folder.glob("*.json") if _is_split(file)}
    return sorted(found)


def _is_split(file: Path) -> bool:
    """Whether a JSON file has what a split file has; one in `splits/` that cannot be read counts too."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return file.parent.name == "splits"
    return isinstance(raw, dict) and "parts" in raw and "sets" in raw


def _libraries() -> Iterator[Finding]:
    for name, option in OPTIONAL.items():
        try:
            yield Finding("ok", name, f"{version(name)}, for {option}")
        except PackageNotFoundError:
            yield Finding("warn", name, f"missing; {option} needs it. Run `pip install {name}`.")


def _disk(root: Path, sets: list[Shelved]) -> Finding:
    """Free space, against what unfinished preparations still need."""
    place = root.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    need = sum(one.progress.bytes_left for one in sets if one.progress)
    taken = sum(int(state["bytes"]) for one in sets if one.info for state in one.info.files.values())
    text = f"{free / _GIB:.1f} GiB free at {place}; the sets take {taken / _GIB:.2f} GiB"
    if need > free:
        text += f", and unfinished ones still need about {need / _GIB:.1f} GiB. Make room before going on."
        return Finding("warn", "disk", text)
    return Finding("ok", "disk", text)


def _about(one: Shelved, sets: list[Shelved], on_set: OnSet, most: int) -> Iterator[Finding]:
    """All about one set: its state, then, where it is whole, what is odd about its source and its images."""
    if one.state == "unfinished":
        yield _unfinished(one, sets)
        return
    if one.state == "damaged" or one.info is None:
        yield Finding("fail", one.name, one.text)
        return
    try:
        moved = on_set(one.name, one.info.images)
        looks = list(examine(PreparedSet(one.folder), moved, most=most))
    except DataError as error:
        yield Finding("fail", one.name, str(error).removeprefix(f"prepared set {one.folder}: "))
        return
    odd = [look for look in looks if look.status != "ok"]
    people = f" of {one.info.identities:,} people" if one.info.has_identities else ""
    text = f"whole, {counted(one.info.images, 'image')}{people}"
    yield Finding("ok", one.name, f"{text}; to be looked at: {len(odd)}" if odd else f"{text}; nothing odd")
    source = one.info.options.get("from")
    if isinstance(source, str) and not Path(unspelled(source)).is_dir():
        yield Finding("ok", f"{one.name}: source", f"{source} is gone; only a new preparation would need it")
    for look in odd:
        yield Finding(look.status, f"{one.name}: {look.what}", look.text)


def _unfinished(one: Shelved, sets: list[Shelved]) -> Finding:
    whole = one.folder.with_name(one.name)
    if any(other.folder == whole for other in sets) and not (one.progress and one.progress.replaces):
        text = f"is left over, for {whole.name} is there. Remove the folder; or {one.text}"
        return Finding("warn", one.folder.name, text)
    return Finding("warn", one.folder.name, f"is unfinished: {one.text}")


def _set_aside(root: Path) -> Iterator[Finding]:
    """What a process that was killed while it replaced a set has left of the old one."""
    for folder in sorted(root.glob(".*.replaced")):
        name = folder.name[1:].removesuffix(".replaced")
        kept = sorted(file.name for file in (folder / SPLITS).glob("*.json"))
        held = f", among it {SPLITS}/ with {', '.join(kept)}" if kept else ""
        text = (
            f"holds the rest of a set that was replaced{held}. The command that prepared {name} brings it "
            f"back; or move what you need to {root / name}, and remove the folder"
        )
        yield Finding("warn", folder.name, text)
