"""A finished set takes its place, perhaps that of an older one, of which nothing is lost but its own files.

The older set is renamed to `.NAME.replaced` for a moment. What else lay in it, splits above all, is moved
into the new set before anything of it is removed; where that is cut short, the next preparation goes on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from mibench.data.prepared import IMAGES, INFO, MANIFEST
from mibench.data.preparing_state import GROWING, LOCK, OURS, clear_tmp, sync_folder
from mibench.data.spelling import spelled
from mibench.errors import DataError

SPLITS = "splits"


def aside_of(target: Path) -> Path:
    """Where an older set lies while a new one takes its place."""
    return target.with_name(f".{target.name}.replaced")


def is_remains(folder: Path) -> bool:
    """Whether a folder without a usable `set.json` holds files of a set, and nothing else but splits."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names.isdisjoint({IMAGES, MANIFEST}) and names <= {*GROWING, INFO, SPLITS}


def check_replaceable(target: Path) -> None:
    """Raise DataError where a folder with things in it stands under the name of a file of a set."""
    for name in (*GROWING, INFO):
        path = target / name
        if path.is_dir() and not path.is_symlink() and any(path.iterdir()):
            raise DataError(
                f"prepared set {spelled(str(target))}: {name} is a folder with things in it, which no "
                "preparation put there. Move it away, and give the same command again."
            )


def move_in(root: Path, target: Path, *, replaces: bool) -> str:
    """Put a finished set in its place.

    Args:
        root: folder of the finished set, locked.
        target: its place.
        replaces: whether an older set may lie there; what lies beside its own files, such as splits, stays.

    Returns:
        As for `bring_back`.

    Raises:
        DataError: a still older set is in the way, of which not all could be brought back.
        OSError: something lies at the target and is not to be replaced, or a folder cannot be renamed.
    """
    clear_tmp(root)
    (root / LOCK).unlink(missing_ok=True)
    aside = aside_of(target)
    if replaces and target.is_dir():
        if aside.is_dir():
            raise DataError(
                f"prepared set {spelled(str(target))}: {spelled(str(aside))} is in the way. Move what you "
                "need out of it, remove it, and give the same command again."
            )
        target.rename(aside)
    try:
        root.rename(target)
    except OSError:
        if aside.is_dir() and not target.exists():
            aside.rename(target)
        raise
    left = bring_back(target)
    sync_folder(target.parent)
    return left


def bring_back(target: Path) -> str:
    """Move what was beside the files of a replaced set into the new one, and remove the rest of the old one.

    Nothing that is there is replaced: of two files of one name the older stays where it is.

    Returns:
        A sentence that says where something is left; empty where nothing is.
    """
    aside = aside_of(target)
    if not aside.is_dir() or not target.is_dir():
        return ""
    for path in list(aside.iterdir()):
        if path.name not in OURS:
            _move(path, target / path.name)
    for path in list(aside.iterdir()):
        if path.name in OURS:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        aside.rmdir()
    if not aside.is_dir():
        return ""
    left = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if not path.is_dir())
    return (
        f"{spelled(str(aside))} holds {spelled(', '.join(left))} of the set that was replaced, and other "
        f"files of these names lie in {spelled(str(target))}. Move what you need, and remove that folder"
    )


def _move(path: Path, place: Path) -> None:
    """Move a file or folder; into a folder that is there go the things in it, one by one."""
    if path.is_dir() and not path.is_symlink() and place.is_dir():
        for inner in list(path.iterdir()):
            _move(inner, place / inner.name)
        with contextlib.suppress(OSError):
            path.rmdir()
    elif not place.exists() and not place.is_symlink():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            path.rename(place)
    elif path.is_file() and place.is_file() and path.read_bytes() == place.read_bytes():
        path.unlink(missing_ok=True)
