"""Leases: who is at which task, so that several processes on one store do not repeat each other's work.

A lease is a file `leases/<key>.json` that names its owner and a random token. It is written aside and
hard-linked into place: of several processes one succeeds, also over NFS, where creating a file exclusively
was long unsafe. A thread touches the files of the leases that this process holds. A stale lease may be taken
over: at once if its owner is a dead process of this machine, and otherwise when it was not touched for a
while. Times are compared on the clock of the file system alone, so the clocks of two hosts may differ.

What leases guard is time, not truth: artifacts lie under their keys and are written whole, so if two
processes ever do the same task, because one of them was suspended for a minute, say, the second is dropped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mibench.errors import StoreError
from mibench.key import Key

_LOG = logging.getLogger(__name__)
_BEAT_S = 2.0
_JUDGE_EVERY_S = 1.0  # asking takes a lock and a write; whether a lease is still there, reading alone
_STALE_S = 20.0  # ten missed beats: longer than a busy machine keeps a thread waiting
_ZOMBIE = "ZX"  # proc(5): states of a process that has ended and that nobody has asked about


@dataclass(frozen=True)
class Owner:
    """A process.

    Args:
        host: name of its host, for people.
        pid: its number.
        machine: boot and process namespace in which the number means something; empty where unknown.
        started: when it started, in clock ticks since the boot, so that another process with the same number
            is not taken for it; empty where unknown.
    """

    host: str
    pid: int
    machine: str = ""
    started: str = ""

    def is_dead(self) -> bool:
        """Whether this is surely a process of this machine that has ended."""
        if not self.machine or self.machine != _machine():
            return False
        started = _started(self.pid)
        return started is None or bool(started and self.started and started != self.started)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Lease:
    """The right to do a task.

    Args:
        key: of the task.
        token: random, so that a lease is told from the next one of the same owner.
        owner: the process that does it.
    """

    key: Key
    token: str
    owner: Owner


class Leases:
    """The leases of a store as one process takes them; a context manager that gives back what it holds.

    Args:
        root: folder of the store; made when the first lease is taken.
        beat_s: seconds between two touches of the leases that are held.
        stale_s: seconds without a touch after which a lease of a live or unknown owner is free.
    """

    def __init__(self, root: Path, *, beat_s: float = _BEAT_S, stale_s: float = _STALE_S) -> None:
        self.folder = root / "leases"
        self.beat_s, self.stale_s = beat_s, stale_s
        self.held: dict[Key, Lease] = {}
        self._judged: dict[Key, float] = {}
        self._guard = threading.Lock()  # between a touch and a release of the same lease
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
            StoreError: the store cannot be written to.
        """
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._read(key) is not None and not self._is_free_now(key):
                return None
            lease = Lease(key, secrets.token_hex(16), this_process())
            if not self._create(lease):
                return None
        self.held[key] = lease
        self._start_beating()
        return lease

    def _is_free_now(self, key: Key) -> bool:
        """As `take_over`, and no without looking where that was the answer a moment ago."""
        now = time.monotonic()
        if now - self._judged.get(key, -math.inf) < _JUDGE_EVERY_S:
            return False
        self._judged[key] = now
        return self.take_over(key)

    def take_over(self, key: Key) -> bool:
        """Whether the place of a key is free now: a stale lease is removed, by one process alone.

        Raises:
            OSError: the folder cannot be written to.
        """
        with self._alone() as now:
            found = self._read(key)
            if found is None:
                return True
            lease, touched = found
            is_stale = now - touched > self.stale_s or (lease is not None and lease.owner.is_dead())
            return is_stale and self._remove(key, lease)

    def renew(self, lease: Lease) -> bool:
        """Touch a lease; whether it is still ours. One whose file was deleted is written again."""
        found = self._read(lease.key)
        if found is None:
            return self._create(lease)
        if found[0] != lease:
            return False
        os.utime(self._place(lease.key))
        return True

    def release(self, lease: Lease) -> None:
        """Give a lease back; one that another process has taken over stays.

        Raises:
            StoreError: the store cannot be written to.
        """
        with self._guard, self._writing():
            self.held.pop(lease.key, None)
            with self._alone():
                found = self._read(lease.key)
                if found is not None and found[0] == lease:
                    self._place(lease.key).unlink()

    def drop(self, key: Key) -> None:
        """Give the lease of a key back if this object holds one."""
        lease = self.held.get(key)
        if lease is not None:
            self.release(lease)

    def holder(self, key: Key) -> Owner | None:
        """Who holds the lease of a key, dead or alive; None where nobody does or the file cannot be read."""
        try:
            found = self._read(key)
        except OSError:
            return None
        return None if found is None or found[0] is None else found[0].owner

    def close(self) -> None:
        """Give everything back; what the disk refuses goes stale, for the process will not touch it again."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        for key in list(self.held):
            with contextlib.suppress(StoreError):
                self.drop(key)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what dead processes have left; nobody else asks for the lease of a task that is done."""
        for file in list(self.folder.glob("*.json")):
            with contextlib.suppress(OSError):
                self.take_over(file.stem)

    def _place(self, key: Key) -> Path:
        return self.folder / f"{key}.json"

    def _read(self, key: Key) -> tuple[Lease | None, float] | None:
        """The lease that lies under a key and when it was touched; no lease where the file is not whole."""
        try:
            # opened and then asked, because NFS answers a bare stat from its cache
            with self._place(key).open("rb") as file:
                return parsed_lease(file.read()), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def _create(self, lease: Lease) -> bool:
        """Put a lease where there is none; whether it lies there now."""
        place, text = self._place(lease.key), json.dumps(asdict(lease)).encode()
        aside = place.with_name(f"{lease.key}.tmp-{lease.token}")
        try:
            aside.write_bytes(text)
            with contextlib.suppress(FileExistsError):
                try:
                    os.link(aside, place)
                except FileExistsError:
                    raise
                except OSError:  # a file system without hard links
                    with place.open("xb") as file:
                        file.write(text)
        finally:
            aside.unlink(missing_ok=True)
        # asked for again, because over NFS the answer to a link that was made may get lost
        found = self._read(lease.key)
        return found is not None and found[0] == lease

    def _remove(self, key: Key, lease: Lease | None) -> bool:
        """Remove the lease that was judged, and not one that another process has put there since."""
        place = self._place(key)
        aside = place.with_name(f"{key}.tmp-{secrets.token_hex(16)}")
        try:
            place.rename(aside)
        except FileNotFoundError:
            return True
        try:
            if parsed_lease(aside.read_bytes()) == lease:
                return True
            with contextlib.suppress(OSError):  # only where locks are not to be had
                os.link(aside, place)
            return False
        finally:
            aside.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[float]:
        """Hold the one lock under which leases are removed, if there are locks; gives the time of the disk.

        The kernel frees such a lock when its process dies, however that happens.
        """
        with (self.folder / "lock").open("ab") as file:
            with contextlib.suppress(ImportError, OSError):  # Windows; a file system without locks
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)
            os.utime(file.name)
            yield os.fstat(file.fileno()).st_mtime

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store {self.folder.parent}: cannot be written to ({error.strerror or error}). "
                "Free some space, or choose another folder."
            ) from error

    def _start_beating(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="mibench-leases", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        """Touch what is held until the end; a disk that does not answer is asked again."""
        while not self._closing.wait(self.beat_s):
            for lease in list(self.held.values()):
                with self._guard, contextlib.suppress(OSError):
                    if self.held.get(lease.key) is lease and not self.renew(lease):
                        del self.held[lease.key]
                        _LOG.warning(
                            "task %s: was taken over by another process, because this one gave no sign for "
                            "%.0f s. Both finish it; nothing is lost.",
                            lease.key[:12],
                            self.stale_s,
                        )


def parsed_lease(text: bytes) -> Lease | None:
    """A lease from its file; None where it is no lease, or not a whole one yet."""
    try:
        value = json.loads(text)
        return Lease(value["key"], value["token"], Owner(**value["owner"]))
    except (ValueError, KeyError, TypeError):
        return None


def this_process() -> Owner:
    """This process; asked anew each time, because a fork is another one."""
    pid = os.getpid()
    return Owner(socket.gethostname(), pid, _machine(), (_started(pid) or "") if _machine() else "")


@functools.cache
def _machine() -> str:
    """Where process numbers mean the same as here; empty where that is unknown, as on anything but Linux.

    Containers of one machine share the boot, and often the name of the host, but not the process numbers.
    """
    if sys.platform != "linux":
        return ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process of this machine started, in ticks since the boot (proc(5), field 22); None if it ended.

    Empty where it is there but cannot be asked.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # it belongs to somebody else
        pass
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # the name of the program comes first, in brackets, and may hold spaces and brackets
    state, *rest = text.rpartition(")")[2].split()
    return None if state in _ZOMBIE else rest[18]


__all__ = ["Lease", "Leases", "Owner", "parsed_lease", "this_process"]
