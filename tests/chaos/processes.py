"""Processes, from /proc: which belong to a command, what one is writing just now, and the end of one."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

_PAUSE_S = 0.001
# what an open file says of the moment; the first that fits counts
_WRITES = (
    ("put", re.compile(r"/store/[0-9a-f]{2}/[0-9a-f]+\.tmp-")),
    ("lease", re.compile(r"/store/leases/")),
    ("records", re.compile(r"\.jsonl\.tmp-|/cost\.json\.tmp-")),
    ("report", re.compile(r"/smoke/(?!status\.json)")),
)


def state_of(pid: int) -> list[str]:
    """proc(5): state, parent, group, session, ...; nothing where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    return state_of(pid)[:1] not in ([], ["Z"], ["X"])


def title_of(pid: int) -> bytes:
    """The command line of a process, which it may have rewritten itself; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def processes_of(leaders: Iterable[int]) -> list[int]:
    """The processes that run in the sessions of these leaders, dead or alive."""
    known = {str(leader) for leader in leaders}
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if is_alive(pid) and state_of(pid)[3:4] and state_of(pid)[3] in known]


def local_workers(leader: int) -> list[int]:
    """The worker processes of a command with the local executor."""
    return [pid for pid in processes_of([leader]) if b"LokyProcess" in title_of(pid)]


def ray_workers(leader: int) -> list[int]:
    """The Ray workers of a command that are at a task."""
    return [pid for pid in processes_of([leader]) if is_at_ray_task(pid)]


def is_at_ray_task(pid: int) -> bool:
    """Whether a process is a Ray worker at a task, of which Ray tells by its title."""
    return title_of(pid).startswith(b"ray::_work_for")


def writing(pids: Iterable[int]) -> str:
    """What one of these processes is writing just now: `put`, `lease`, `records`, `report`, or nothing."""
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    place = os.readlink(entry.path)  # noqa: PTH115 - hundreds of times a second
                    for what, pattern in _WRITES:
                        if pattern.search(place):
                            return what
    return ""


def kill_when(
    pid: int,
    aim: str,
    *,
    within_s: float,
    beside: Sequence[int] = (),
    is_fit: Callable[[int], bool] = is_alive,
) -> str | None:
    """Kill a process in the middle of something; what it was writing then, None where it is not to be had.

    It is held first, so that it is surely at what it was seen at when the kill comes.

    Args:
        pid: the process.
        aim: what it shall be writing, see `writing`; empty kills it at once.
        within_s: after which it is killed whatever it writes.
        beside: processes that may do the writing in its stead.
        is_fit: whether it is worth to be killed.
    """
    end = time.monotonic() + within_s
    while is_fit(pid):
        is_late = time.monotonic() > end or not aim
        if not is_late and writing([pid, *beside]) != aim:
            time.sleep(_PAUSE_S)
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            while is_alive(pid) and state_of(pid)[:1] != ["T"]:
                time.sleep(_PAUSE_S)
            seen = writing([pid, *beside])
            if is_fit(pid) and (is_late or seen == aim):
                os.kill(pid, signal.SIGKILL)
                return seen
            os.kill(pid, signal.SIGCONT)
    return None
