"""When to kill: moments of an undisturbed run, found again in a run that is killed over and over.

A run that was killed goes on from where it was, so its clock is the number of tasks that are done, except
before the first and after the last one, where it is the seconds that this process has spent there.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from .noting import BEGAN, RAN, WALKED


@dataclass(frozen=True)
class Note:
    """A line of a log; see `noting`."""

    at: float
    pid: int
    what: str
    key: str
    why: str


class Log:
    """A log that grows, read on from where it was read to."""

    def __init__(self, file: Path) -> None:
        self.file, self.read_to = file, 0
        self.notes: list[Note] = []

    def fresh(self) -> list[Note]:
        """What was written since; a line that is not whole yet comes later."""
        with self.file.open("rb") as opened:
            opened.seek(self.read_to)
            whole = opened.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self.read_to += len(whole) + 1
        fresh = [Note(**json.loads(line)) for line in whole.splitlines()]
        self.notes += fresh
        return fresh


@dataclass(frozen=True, order=True)
class Moment:
    """A moment of a run.

    Args:
        tasks: that are done by then.
        late_s: seconds since the process began where no task is done, since the last was done where all are.
    """

    tasks: int
    late_s: float


@dataclass(frozen=True)
class Timeline:
    """How an undisturbed run went.

    Args:
        began: when.
        done: when each task was.
        walked: when the last record was written.
        ended: when the process had ended, on the same clock.
    """

    began: float
    done: tuple[float, ...]
    walked: float
    ended: float

    @classmethod
    def of(cls, notes: list[Note], ended: float) -> "Timeline":
        """From the log of a run."""
        times = {note.what: note.at for note in notes}
        done = tuple(note.at for note in notes if note.what == RAN)
        return cls(times[BEGAN], done, times[WALKED], ended)

    def moment(self, share: float, *, at_work: bool = False) -> Moment:
        """The moment after a share of the run, in [0, 1), or of the time in which there are workers."""
        first, last = (self.done[0], self.done[-1]) if at_work else (self.began, self.ended)
        at = first + share * (last - first)
        count = sum(one <= at for one in self.done)
        if count == 0:
            return Moment(0, at - self.began)
        if count == len(self.done):
            return Moment(count, max(0.0, at - self.walked))
        return Moment(count, 0.0)
