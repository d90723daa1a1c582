"""The folder of a site, replaced as a whole: a reader and a crash find the old site or the new one."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mibench.errors import BoardError

MARK = ".mibench-site"
"""The file by which a folder is known as a site that may be replaced."""
_ASIDE, _BEFORE = ".new-", ".old-"


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A new folder beside `out` to write into; it takes the place of `out` where the block ends well.

    Two renames do it, and what a crash between them left is put back by the next build.

    Raises:
        BoardError: `out` is a link, or holds something that is no site, or cannot be written.
    """
    _mend(out)
    _check(out)
    aside = out.with_name(f"{out.name}{_ASIDE}{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        (aside / MARK).write_text("Written by `mibench board build`, which replaces this folder.\n")
        yield aside
        _swap(aside, out)
    except OSError as error:
        why = error.strerror or str(error)
        raise BoardError(
            f"site {out}: cannot be written ({why}). Free some space, or choose --out."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _swap(new: Path, out: Path) -> None:
    """Put a finished folder in the place of another."""
    if not out.exists():
        new.replace(out)
        return
    before = out.with_name(f"{out.name}{_BEFORE}{secrets.token_hex(4)}")
    out.replace(before)
    try:
        new.replace(out)
    except OSError:
        before.replace(out)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _mend(out: Path) -> None:
    """Put back the site that a crash between two renames left aside; remove what crashes left otherwise."""
    with contextlib.suppress(OSError):
        if not out.parent.is_dir():
            return
        old = sorted(_left(out, _BEFORE), key=lambda one: one.stat().st_mtime)
        if old and not out.exists():
            old.pop().replace(out)
        for one in old:
            shutil.rmtree(one, ignore_errors=True)


def _left(out: Path, kind: str) -> list[Path]:
    """Sites beside `out` with names of a kind."""
    start = f"{out.name}{kind}"
    return [one for one in out.parent.iterdir() if one.name.startswith(start) and (one / MARK).is_file()]


def _check(out: Path) -> None:
    """BoardError unless `out` is a site, an empty folder or nothing."""
    if out.is_symlink():
        raise BoardError(f"site {out}: is a link. Give --out the folder itself.")
    if not out.exists():
        return
    if not out.is_dir():
        raise BoardError(f"site {out}: is a file. Give --out a folder.")
    if any(out.iterdir()) and not (out / MARK).is_file():
        raise BoardError(f"site {out}: holds other things than a site. Give --out an empty or new folder.")
