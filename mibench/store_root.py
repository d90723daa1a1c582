"""Where a store lies: a folder, or the URL of one on a file system that fsspec knows."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from mibench.errors import StoreError

CACHE_VARIABLE = "MIBENCH_CACHE"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.DOTALL)
_BROKEN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:(/|$)")  # at least two letters: `C:` is a drive
_OF_THIS_MACHINE = frozenset({"file", "local"})
_PATTERNS = "*?[]#"  # fsspec takes the first four for patterns, and services the last two for more


def parse_root(root: Path | str) -> Path | str:
    """The folder that is meant, or the URL without a slash at its end; `file://` is a folder.

    >>> parse_root("s3://faces/store/")
    's3://faces/store'
    >>> parse_root("file:///data/store").as_posix()
    '/data/store'

    Raises:
        StoreError: it is a URL that cannot be one of a store.
    """
    if isinstance(root, Path):
        if _BROKEN_URL.match(root.as_posix()):
            raise StoreError(
                f"store {root}: is a URL that was taken for a path and so lost a slash. Give it as text."
            )
        return root
    found = _URL.fullmatch(root)
    if found is None:
        if "::" in root and "://" in root:
            raise StoreError(
                f"store {root}: is a chain of file systems. Give one, such as s3://bucket/store."
            )
        if _BROKEN_URL.match(root):
            raise StoreError(
                f"store {root}: is neither a folder nor a URL, which has two slashes after its colon. Give "
                "s3://bucket/store, say, or another folder."
            )
        return Path(root)
    protocol, path = found[1].lower(), found[2]
    if not path.strip("/"):
        raise StoreError(f"store {root}: names no place. Give one, such as s3://bucket/store.")
    if protocol in _OF_THIS_MACHINE:
        if not path.startswith("/"):  # by RFC 8089 that is the name of a host
            raise StoreError(
                f"store {root}: names another machine. Give three slashes: {protocol}:///{path}."
            )
        return Path(path)
    if any(sign in path for sign in _PATTERNS) or ".." in path.split("/"):
        raise StoreError(
            f"store {root}: has one of the signs {' '.join(_PATTERNS)} or '..' in it. Give a plain name."
        )
    return f"{protocol}://{path.rstrip('/')}"


def local_folder(root: Path | str) -> Path:
    """The folder of this machine that belongs to a store: itself, or the copies of one elsewhere.

    Args:
        root: as `parse_root` gives it.
    """
    if isinstance(root, Path):
        return root
    return cache_folder() / "stores" / hashlib.sha256(root.encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where copies of what lies elsewhere are kept.

    `MIBENCH_CACHE` names it; without, it is `mibench` in the folder that the XDG Base Directory
    Specification gives to caches.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mibench"


__all__ = ["CACHE_VARIABLE", "cache_folder", "local_folder", "parse_root"]
