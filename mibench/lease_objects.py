"""Leases on object stores, which create exclusively but neither link, rename nor lock.

The lease of a key is an object `leases/<key>.<number>.json` that is created where there is none and never
changed. Whoever takes it over creates the next number, which of several succeeds for one; the highest number
is the lease. An object `leases/<session>.beat` of its own is rewritten by each process as long as it lives,
so that a process that was suspended never writes over another's lease.

No clocks are compared: a lease is stale when whoever wants it has itself watched its owner's beat for a
while and saw no change. Owners that are dead processes of the same machine are known at once.

As with `mibench.lease`, what is guarded is time and not truth.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import secrets
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from mibench.errors import StoreError
from mibench.key import Key
from mibench.lease import Lease, Leases, Owner, parsed_lease, this_process
from mibench.remote_files import RemoteFiles

_LOG = logging.getLogger(__name__)
# each beat is a request that is paid for, and a service may be out of reach for some seconds
_BEAT_S = 10.0
_STALE_S = 60.0
_LOOK_EVERY_S = 2.0  # at the lease of a key that another process holds
_LEASE = re.compile(r"leases/([0-9a-f]+)\.([0-9]+)\.json")


class TakesLeases(Protocol):
    """What a run asks of leases; see `mibench.lease.Leases`."""

    def take(self, key: Key) -> Lease | None:
        """The lease of a key, or None while another process holds it."""
        ...

    def drop(self, key: Key) -> None:
        """Give the lease of a key back if this object holds one."""
        ...

    def holder(self, key: Key) -> Owner | None:
        """Who holds the lease of a key; None where nobody does or that cannot be read."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


def leases_of(root: Path, files: RemoteFiles | None) -> TakesLeases:
    """The leases of a store.

    Args:
        root: its folder.
        files: where it lies, if not in that folder.
    """
    return Leases(root) if files is None else ObjectLeases(files)


class ObjectLeases:
    """The leases of a store as one process takes them; a context manager that gives back what it holds.

    Where the file system cannot create exclusively, a warning says so and everybody gets every lease.

    Args:
        files: of the store.
        beat_s: seconds between two beats of this process.
        stale_s: seconds without a beat, as watched from here, after which a lease is free.
        look_s: seconds between two looks at a lease that another process holds.
    """

    def __init__(
        self,
        files: RemoteFiles,
        *,
        beat_s: float = _BEAT_S,
        stale_s: float = _STALE_S,
        look_s: float = _LOOK_EVERY_S,
    ) -> None:
        self.files = files
        self.beat_s, self.stale_s, self.look_s = beat_s, stale_s, look_s
        self.held: dict[Key, tuple[Lease, int]] = {}
        self._session = secrets.token_hex(16)
        self._guards: bool | None = None  # not known before the first lease
        self._looked: dict[Key, float] = {}
        self._watched: dict[str, tuple[bytes | None, float]] = {}  # by token: the last beat seen, and when
        self._guard = threading.Lock()  # between a beat and a release of the same lease
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self, key: Key) -> Lease | None:
        """The lease of a key, or None while another process holds it; a stale one is taken over.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        now = time.monotonic()
        if now - self._looked.get(key, -math.inf) < self.look_s:
            return None
        lease = Lease(key, secrets.token_hex(16), this_process())
        if not self._can_guard():
            return lease
        number = 0
        if not self._create(lease, number):
            self._looked[key] = now
            last = self._number(key)
            if last is None or not self._is_stale(key, last):
                return None
            number = last + 1
            if not self._create(lease, number):
                return None
            # given back, and perhaps taken anew, since it was judged
            if self._number(key, below=number) is None:
                self.files.remove(_name(key, number))
                return None
        self._looked.pop(key, None)
        self.held[key] = lease, number
        self._start_beating()
        return lease

    def drop(self, key: Key) -> None:
        """Give the lease of a key back if this object holds one; one that was taken over stays.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        with self._guard:
            found = self.held.pop(key, None)
            if found is None:
                return
            lease, number = found
            last = self._number(key)
            if last is None or last > number or self._read(key, last) != lease:
                return
            for one in range(number, -1, -1):
                self.files.remove(_name(key, one))

    def holder(self, key: Key) -> Owner | None:
        """Who holds the lease of a key, dead or alive; None where nobody does or it cannot be read."""
        try:
            last = self._number(key)
            lease = None if last is None else self._read(key, last)
        except StoreError:
            return None
        return None if lease is None else lease.owner

    def close(self) -> None:
        """Give everything back; what the service refuses goes stale, for the process beats no more."""
        self._closing.set()
        if self._thread is None:
            return
        self._thread.join()
        with contextlib.suppress(StoreError):
            for key in list(self.held):
                self.drop(key)
            self.files.remove(self._beat_name(self._session))
            self._sweep()

    def beat(self) -> None:
        """Show that this process lives, and drop, with a warning, what others have taken over meanwhile.

        Raises:
            StoreError: the file system does not answer, or refuses.
        """
        self.files.write(self._beat_name(self._session), secrets.token_hex(16).encode())
        with self._guard:
            last = self._numbers()
            for key, (lease, number) in list(self.held.items()):
                if key not in last:  # deleted by hand
                    self._create(lease, number)
                elif last[key] > number:
                    del self.held[key]
                    _LOG.warning(
                        "task %s: was taken over by another process, because this one gave no sign for "
                        "%.0f s. Both finish it; nothing is lost.",
                        key[:12],
                        self.stale_s,
                    )

    def _can_guard(self) -> bool:
        """Whether of several processes one gets a lease; tried, for some services ignore the condition."""
        if self._guards is None:
            self._guards = self.files.is_exclusive and self._is_exclusive_in_truth()
            if not self._guards:
                _LOG.warning(
                    "store %s: cannot create files exclusively, so there are no leases: several processes "
                    "may do the same task. Results stay right.",
                    self.files.url,
                )
        return self._guards

    def _is_exclusive_in_truth(self) -> bool:
        probe = f"leases/{self._session}.probe"
        try:
            return self.files.create(probe, b"1") and not self.files.create(probe, b"2")
        finally:
            self.files.remove(probe)

    def _is_stale(self, key: Key, number: int) -> bool:
        data = self.files.read(_name(key, number))
        if data is None:
            return False  # given back just now
        lease = parsed_lease(data)
        if lease is not None and lease.owner.is_dead():
            return True
        session = _session_of(data)
        beat = None if session is None else self.files.read(self._beat_name(session))
        token = data.decode(errors="replace") if lease is None else lease.token
        now = time.monotonic()
        before = self._watched.get(token)
        if before is None or before[0] != beat:
            self._watched[token] = beat, now
            return False
        return now - before[1] > self.stale_s

    def _create(self, lease: Lease, number: int) -> bool:
        text = json.dumps({**asdict(lease), "session": self._session})
        return self.files.create(_name(lease.key, number), text.encode())

    def _read(self, key: Key, number: int) -> Lease | None:
        data = self.files.read(_name(key, number))
        return None if data is None else parsed_lease(data)

    def _number(self, key: Key, *, below: int | None = None) -> int | None:
        """The highest number of a key's leases, or of those below another number; None without any."""
        return self._numbers(below=below).get(key)

    def _numbers(self, *, below: int | None = None) -> dict[Key, int]:
        """The highest number of the leases of every key."""
        found: dict[Key, int] = {}
        for name in self.files.names("leases"):
            parts = _LEASE.fullmatch(name)
            if parts and (below is None or int(parts[2]) < below):
                found[parts[1]] = max(int(parts[2]), found.get(parts[1], 0))
        return found

    def _sweep(self) -> None:
        """Remove what dead processes of this machine have left; the store sweeps the rest."""
        for key, number in self._numbers().items():
            data = self.files.read(_name(key, number))
            lease = None if data is None else parsed_lease(data)
            if data is None or lease is None or not lease.owner.is_dead():
                continue
            for one in range(number, -1, -1):
                self.files.remove(_name(key, one))
            session = _session_of(data)
            if session is not None:
                self.files.remove(self._beat_name(session))

    @staticmethod
    def _beat_name(session: str) -> str:
        return f"leases/{session}.beat"

    def _start_beating(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beats, name="mibench-leases", daemon=True)
            self._thread.start()

    def _beats(self) -> None:
        """Beat until the end; a service that does not answer is asked again."""
        while True:
            with contextlib.suppress(StoreError):
                self.beat()
            if self._closing.wait(self.beat_s):
                return


def _name(key: Key, number: int) -> str:
    return f"leases/{key}.{number}.json"


def _session_of(data: bytes) -> str | None:
    """The process whose beat keeps a lease; None where it does not say."""
    try:
        session = json.loads(data)["session"]
    except (ValueError, KeyError, TypeError):
        return None
    return session if isinstance(session, str) and re.fullmatch("[0-9a-f]+", session) else None


__all__ = ["ObjectLeases", "TakesLeases", "leases_of"]
