"""Files on a file system that fsspec knows, with errors in one sentence and nothing answered from memory."""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mibench.errors import StoreError

# where `create` is one step of the service, by the sources of s3fs (If-None-Match), gcsfs
# (ifGenerationMatch) and adlfs (overwrite=False); in memory there is one process only
EXCLUSIVE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"}
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})  # have no folders, and no `mkdir`
_PRIVATE = frozenset({"memory"})  # seen by the process alone
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_AT_ONCE = 128  # files asked for in one go
_TRIES, _PAUSE_S = 4, 0.5  # where a service says that two have written at the same moment
_DENIED = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError"}


class RemoteFiles:
    """The files below a URL; may be used from several threads.

    Args:
        url: as `mibench.store_root.parse_root` gives it.

    Raises:
        StoreError: fsspec does not know the file system, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.protocol = url.partition("://")[0]
        self.fs, self.base = _opened(url)
        self.is_exclusive = self.protocol in EXCLUSIVE
        self.is_private = self.protocol in _PRIVATE

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("read"):
            try:
                data: bytes = self.fs.cat_file(self._path(name))
            except FileNotFoundError:
                return None
            return data

    def read_many(self, names: Sequence[str]) -> dict[str, bytes]:
        """The contents of the files that are there, asked for together where the file system can.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        found: dict[str, bytes] = {}
        for first in range(0, len(names), _AT_ONCE):
            paths = {self._path(name): name for name in names[first : first + _AT_ONCE]}
            with self._told("read"):
                answers = self.fs.cat(list(paths), on_error="return")
                for path, answer in answers.items():
                    if isinstance(answer, bytes):
                        found[paths[path]] = answer
                    elif not isinstance(answer, FileNotFoundError):
                        raise answer
        return found

    def write(self, name: str, data: bytes) -> None:
        """Put a file whole; one that is there is replaced.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("written to"):
            self._with_parents(name, lambda path: self.fs.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Put a file whole where there is none; whether it lies there now with this content.

        Of several at once one succeeds if `is_exclusive`; else one that comes between is replaced.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        for left in reversed(range(_TRIES)):
            try:
                with self._told("written to"):
                    self._with_parents(name, lambda path: self.fs.pipe_file(path, data, mode="create"))
            except (StoreError, FileExistsError) as error:
                # asked for, because the answer may have got lost, and because services say it in several ways
                found = self.read(name)
                if found is not None:
                    return found == data
                if isinstance(error, StoreError) and not _is_conflict(error.__cause__):
                    raise
                if left:
                    time.sleep(_PAUSE_S)
                continue
            return True
        return False

    def upload(self, file: Path, name: str) -> None:
        """Put a copy of a local file, whole or not at all.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("written to"):
            self._with_parents(name, lambda path: self.fs.put_file(str(file), path))

    def download(self, name: str, file: Path) -> bool:
        """Copy a file to a local one; whether there is any. What comes may be damaged: check it.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("read"):
            try:
                self.fs.get_file(self._path(name), str(file))
            except FileNotFoundError:
                return False
            return True

    def copy(self, name: str, other: str) -> bool:
        """Copy a file there, on the side of the service; whether there is any.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("written to"):
            try:
                self._with_parents(other, lambda path: self.fs.cp_file(self._path(name), path))
            except FileNotFoundError:
                return False
            return True

    def remove(self, name: str) -> None:
        """Remove a file; none is fine.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("written to"):
            try:
                self.fs.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def names(self, folder: str = "") -> list[str]:
        """Names of all files below a folder, or of all, as they are now.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("read"):
            try:
                found = self.fs.find(self._path(folder) if folder else self.base)
            except FileNotFoundError:
                return []
            start = len(self.base) + 1
            return sorted(path[start:] for path in found)

    def age_s(self, name: str) -> float:
        """Seconds since a file was written, by the clocks of both sides; 0 where that is not known.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._told("read"):
            try:
                then: Any = self.fs.modified(self._path(name))
            except (FileNotFoundError, NotImplementedError):
                return 0.0
            return float(time.time() - then.timestamp())

    def check_bucket(self) -> None:
        """Look whether the bucket is there, in which nothing was found.

        Raises:
            StoreError: it is not, or the file system does not answer, or refuses.
        """
        if self.protocol not in _BUCKETS:
            return
        with self._told("read"):
            if not self.fs.exists(self.base.partition("/")[0]):
                raise FileNotFoundError(errno.ENOENT, "there is no such bucket")

    def _path(self, name: str) -> str:
        return f"{self.base}/{name}"

    def _with_parents(self, name: str, write: Any) -> None:  # noqa: ANN401 - a function of a path
        path = self._path(name)
        try:
            write(path)
        except FileNotFoundError:
            # a bucket that is missing is a slip of the pen, and not to be made
            if self.protocol in _BUCKETS:
                raise
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            write(path)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """StoreError for whatever a file system raises: each has exceptions of its own."""
        try:
            yield
        except (StoreError, FileExistsError):
            raise
        except Exception as error:
            raise StoreError(f"store {self.url}: {_reason(error, what)}") from error


def _reason(error: Exception, what: str) -> str:
    """What is wrong, and what to do."""
    lines = str(error).strip().splitlines()
    said = lines[0].strip().rstrip(".") if lines else ""
    said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, FileNotFoundError):
        return f"cannot be {what}: its bucket or folder is not there ({said}). Make it, or mend the name."
    if isinstance(error, PermissionError) or type(error).__name__ in _DENIED:
        return f"may not be {what} ({said}). Check the credentials, and what they allow in the bucket."
    return (
        f"cannot be {what} ({said}). Check the network and the service; the same command goes on from here."
    )


def _is_conflict(error: BaseException | None) -> bool:
    """Whether a service refused because another was writing the same file at that moment."""
    return isinstance(error, OSError) and error.errno in {errno.EBUSY, errno.EINVAL}


def _opened(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path on it."""
    return _opened_in(os.getpid(), url)


@functools.lru_cache(maxsize=8)
def _opened_in(_pid: int, url: str) -> tuple[Any, str]:
    """As `_opened`; kept, because connections are; not over a fork, which would share them."""
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0]
    try:
        fs, base = url_to_fs(url, skip_instance_cache=True)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"Run `pip install 'mibench[{extra}]'`." if extra else "Install it."
        raise StoreError(f"store {url}: needs a package that is not here ({error}). {advice}") from error
    except ValueError as error:
        raise StoreError(
            f"store {url}: '{protocol}' is no file system that fsspec can open ({error}). Take s3://, gs:// "
            "or a folder."
        ) from error
    except Exception as error:  # some look for credentials now
        raise StoreError(f"store {url}: {_reason(error, 'opened')}") from error
    # other processes write as well, so what was listed a moment ago is no answer
    fs.dircache.use_listings_cache = False
    return fs, str(base).rstrip("/")


__all__ = ["EXCLUSIVE", "RemoteFiles"]
