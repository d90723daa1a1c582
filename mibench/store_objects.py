"""A store in a bucket, or on any other file system that fsspec knows.

Objects cannot be renamed together, so an artifact is made by its last one: first its tensors are put, under
a name that holds their digest, then `artifact.json`, which names the digest and makes it exist. Whoever is
killed in between leaves tensors that nobody reads, and two that write one key never mix.

Tensors are copied to a folder of this machine, by digest, so that a copy is never out of date.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mibench.atomic import write_atomically
from mibench.key import Key
from mibench.remote_files import RemoteFiles
from mibench.store_folder import COST, STALE_S, TENSORS, VALUE, sweep_folder

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SWEEP_EVERY_S = 24 * 3600  # a sweep lists the whole store, which takes time and costs money
_SWEPT = "swept"
# all that this package ever puts there; what else lies below the same URL is not ours to remove
_OURS = re.compile(
    r"([0-9a-f]{2}/[0-9a-f]{64}(\.corrupt-[0-9a-f]+)?/(artifact|cost|tensors|[0-9a-f]{64})\.(json|safetensors))"
    r"|(leases/[0-9a-f]+(\.[0-9]+)?\.(json|beat|probe))"
)


class Objects:
    """A `mibench.store_folder.Shelf` on a file system of fsspec.

    Args:
        files: below the URL of the store.
        cache: folder of this machine for copies; made when first needed. All processes may share it.
    """

    def __init__(self, files: RemoteFiles, cache: Path) -> None:
        self.files, self.cache = files, cache

    def contains(self, key: Key) -> bool:
        """See `Shelf`."""
        return self.files.read(_name(key, VALUE)) is not None

    def present(self, keys: Iterable[Key]) -> set[Key]:
        """See `Shelf`."""
        names = {_name(key, VALUE): key for key in keys}
        found = {names[name] for name in self.files.read_many(list(names))}
        if not found:
            self.files.check_bucket()
        return found

    def document(self, key: Key) -> str | None:
        """See `Shelf`."""
        data = self.files.read(_name(key, VALUE))
        return None if data is None else data.decode()

    def tensors(self, key: Key, digest: str) -> Path:
        """See `Shelf`; fetched where there is no copy yet.

        Raises:
            ValueError: the artifact is not whole.
            StoreError: the file system does not answer, or refuses.
        """
        place = self._copy(digest)
        try:
            os.utime(place)  # in use, so not to be swept
        except FileNotFoundError:
            aside = place.with_name(f"{digest}.tmp-{secrets.token_hex(8)}")
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                # the plain name is that of a folder store, which may have been copied here as it was
                if not any(self.files.download(_name(key, one), aside) for one in (_stored(digest), TENSORS)):
                    raise ValueError("its tensors are gone") from None
                aside.replace(place)
            finally:
                aside.unlink(missing_ok=True)
        return place

    def forget(self, digest: str) -> bool:
        """See `Shelf`."""
        self._copy(digest).unlink(missing_ok=True)
        return True

    def aside(self, key: Key) -> Path:
        """See `Shelf`."""
        aside = self.cache / "making" / f"{key}.tmp-{secrets.token_hex(8)}"
        aside.mkdir(parents=True)
        return aside

    def place(self, aside: Path, key: Key, digest: str) -> None:
        """See `Shelf`; where the file system cannot create exclusively, the last of two at once stays."""
        if self.contains(key):
            return
        self.files.upload(aside / TENSORS, _name(key, _stored(digest)))
        if self.files.create(_name(key, VALUE), (aside / VALUE).read_bytes()):
            place = self._copy(digest)
            place.parent.mkdir(parents=True, exist_ok=True)
            (aside / TENSORS).replace(place)
        elif digest not in (self.document(key) or digest):
            # another was first, with tensors that differ: below a whole artifact no sweep would find these
            self.files.remove(_name(key, _stored(digest)))

    def set_aside(self, key: Key) -> None:
        """See `Shelf`; the tensors keep their name and are replaced when the artifact is made again."""
        aside = f"{key[:2]}/{key}.corrupt-{secrets.token_hex(8)}"
        self.files.copy(_name(key, VALUE), f"{aside}/{VALUE}")
        self.files.remove(_name(key, VALUE))

    def put_cost(self, key: Key, cost: bytes) -> None:
        """See `Shelf`."""
        if self.contains(key):
            self.files.write(_name(key, COST), cost)
            self._past(key).unlink(missing_ok=True)

    def cost(self, key: Key) -> bytes:
        """See `Shelf`."""
        return self.files.read(_name(key, COST)) or b""

    def past(self) -> Iterator[tuple[Key, str, str]]:
        """See `Shelf`; what was seen once is kept here, since all of a large store takes long to ask for."""
        keys = [name.split("/")[1] for name in self._names() if name.endswith(f"/{COST}")]
        unknown = []
        for key in keys:
            try:
                document, cost = json.loads(self._past(key).read_text(encoding="utf-8"))
                yield key, str(document), str(cost)
            except (OSError, ValueError):
                unknown.append(key)
        documents = self.files.read_many([_name(key, VALUE) for key in unknown])
        costs = self.files.read_many([_name(key, COST) for key in unknown])
        for key in unknown:
            with contextlib.suppress(KeyError, UnicodeDecodeError):  # set aside just now, or damaged
                found = documents[_name(key, VALUE)].decode(), costs[_name(key, COST)].decode()
                write_atomically(self._past(key), json.dumps(found).encode())
                yield key, *found

    def sweep(self) -> None:
        """See `Shelf`; at most once a day, and copies that nobody used for a week go as well."""
        mark = self.cache / _SWEPT
        with contextlib.suppress(OSError):
            if time.time() - mark.stat().st_mtime < _SWEEP_EVERY_S:
                return
        patterns = ("making/*", "scratch/*.tmp-*", "progress/*", "past/*/*", "tensors/*/*")
        sweep_folder(self.cache, patterns)
        names = self._names()
        whole = {name.rpartition("/")[0] for name in names if name.endswith(f"/{VALUE}")}
        for name in names:
            folder = name.rpartition("/")[0]
            if (".corrupt-" in folder or folder not in whole) and self.files.age_s(name) > STALE_S:
                self.files.remove(name)
        write_atomically(mark, b"")

    def _names(self) -> list[str]:
        return [name for name in self.files.names() if _OURS.fullmatch(name)]

    def _copy(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError("it names no digest")
        return self.cache / "tensors" / digest[:2] / f"{digest}.safetensors"

    def _past(self, key: Key) -> Path:
        return self.cache / "past" / key[:2] / f"{key}.json"


def _name(key: Key, file: str) -> str:
    return f"{key[:2]}/{key}/{file}"


def _stored(digest: str) -> str:
    return f"{digest}.safetensors"


__all__ = ["Objects"]
