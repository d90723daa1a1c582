"""What a store and its commands have to look like when a storm is over."""

import os
import re
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from mibench.atomic import sweep
from mibench.plan import Plan
from mibench.store import Store

from .command import Command
from .processes import processes_of

_OLD_S = 8 * 24 * 3600.0  # older than what a sweep leaves to processes that may still be at work
_GRACE_S = 30.0  # for the orphans of a killed process to notice
_ARTIFACT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}/(tensors\.safetensors|artifact\.json|cost\.json)")
_LOCK = "leases/lock"


def unsound(plan: Plan, store: Path) -> list[str]:
    """Keys of the plan under which no sound artifact lies; every byte is read."""
    return [key for key in plan.tasks if not Store(store).verify(key)]


def strays(store: Path) -> list[str]:
    """What lies in a store and belongs to no artifact: files, and folders that were written aside."""
    places = [place for place in store.rglob("*") if place.is_file() or ".tmp-" in place.name]
    names = [place.relative_to(store).as_posix() for place in places]
    return sorted(name for name in names if name != _LOCK and not _ARTIFACT.fullmatch(name))


def asides(folder: Path) -> list[str]:
    """Files in a results folder that somebody has written aside and left."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.tmp-*"))


def age(places: Iterable[Path]) -> None:
    """Make files and folders as old as a sweep wants them."""
    old = time.time() - _OLD_S
    for place in places:
        os.utime(place, (old, old))


def left_after_sweep(store: Path, results: Sequence[Path]) -> tuple[int, list[str]]:
    """How many files killed processes have left, and those of them that a sweep does not remove."""
    before = len(strays(store)) + sum(len(asides(folder)) for folder in results)
    age([*store.glob("*/*.tmp-*"), *store.glob("*/*/*.tmp-*")])
    Store(store).sweep()
    left = strays(store)
    for folder in results:
        age(folder.rglob("*.tmp-*"))
        sweep(folder)
        left += asides(folder)
    return before, left


def left_running(commands: Iterable[Command]) -> list[int]:
    """Processes of commands that go on though all commands have ended."""
    leaders = [pid for command in commands for pid in command.pids]
    end = time.monotonic() + _GRACE_S
    while (running := processes_of(leaders)) and time.monotonic() < end:
        time.sleep(0.2)
    return running


def left_elsewhere(commands: Iterable[Command]) -> list[str]:
    """Folders of Ray and semaphores of workers that processes have left outside of the store."""
    found = []
    for pid in (pid for command in commands for pid in command.pids):
        found += [str(place) for place in Path(tempfile.gettempdir()).glob(f"mibench-ray-{pid}-*")]
        found += [str(place) for place in Path("/dev/shm").glob(f"*loky-{pid}-*")]
    return found
