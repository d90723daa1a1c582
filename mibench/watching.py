"""How a run goes, read from its `status.json` by whoever wants to know: without torch."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench.errors import RecordError

FILE = "status.json"
_SILENCE_S = 60.0  # a sign comes every second; of a slow disk more rarely, and then the file says so


@dataclass(frozen=True)
class Sight:
    """A run as it is seen from outside.

    Args:
        file: that was read.
        status: its content.
        is_gone: whether it says that it runs and does not.
        age_s: seconds since its last sign.
    """

    file: Path
    status: dict[str, Any]
    is_gone: bool
    age_s: float

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return self.is_gone or self.status["state"] != "running"


def find_status(results: Path) -> Path:
    """The status file of a results folder, or the latest of the folders below it.

    Raises:
        RecordError: there is none.
    """
    if (results / FILE).is_file():
        return results / FILE
    found = list(results.glob(f"*/{FILE}"))
    if not found:
        raise RecordError(
            f"results {results}: no run has left a {FILE} there. Start one with `mibench run`, or give its "
            "folder, such as results/quick."
        )
    return max(found, key=lambda file: file.stat().st_mtime)


def look(file: Path) -> Sight:
    """Read a status file and see whether its process still lives.

    Raises:
        RecordError: it cannot be read, or is none.
    """
    try:
        status = json.loads(file.read_text(encoding="utf-8"))
        # on another machine the clocks may differ a little
        age = max(0.0, time.time() - float(status["updated"]))
        is_gone = status["state"] == "running" and not _lives(status, age)
        return Sight(file, status, is_gone, age)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"status {file}: cannot be read ({error}). Wait for the run's next sign, or start it again."
        ) from error


def lines(sight: Sight) -> list[str]:
    """The run in a few plain lines.

    Raises:
        RecordError: the file lacks a field.
    """
    try:
        return list(_lines(sight))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"status {sight.file}: lacks or garbles a field ({error}). It is of another version of mibench; "
            "start the run again."
        ) from error


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    >>> duration(8), duration(150), duration(9000)
    ('8 s', '2.5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def _lives(status: dict[str, Any], age_s: float) -> bool:
    """Whether the process may still be there: seen on its own machine, else judged by its last sign."""
    is_silent = age_s > max(_SILENCE_S, 5 * float(status.get("every_s", 1.0)))
    if status["host"] != socket.gethostname() or os.name != "posix":
        return not is_silent
    try:
        os.kill(int(status["pid"]), 0)
    except ProcessLookupError:
        # in another container of the same name its number means nothing here
        return age_s < 5 * float(status.get("every_s", 1.0))
    except OSError:  # it is another user's
        return not is_silent
    return not is_silent


def _lines(sight: Sight) -> Iterator[str]:
    status = sight.status
    cells, tasks = status["cells"], status["tasks"]
    failed = f", {cells['failed']} failed" if cells["failed"] else ""
    yield (
        f"{status['suite']}: {_state(sight)}. {cells['done']} of {cells['total']} cells{failed}, "
        f"{tasks['done']} of {tasks['total']} tasks"
    )
    yield f"  {_times(status)}; {status['jobs']} at once on {status['device']}, host {status['host']}"
    if budget := status["budget"]:
        out = f", {budget['left_out']} cells left out for it" if budget["left_out"] else ""
        yield f"  budget {duration(budget['seconds'])}, {duration(budget['left_s'])} of it left{out}"
    if status["queue"]:
        yield "  waiting: " + ", ".join(f"{count} {stage}" for stage, count in status["queue"].items())
    # what was running when it vanished is no news of now
    for one in [] if sight.is_over else status["running"]:
        yield f"  at work: {one['title']}{_progress(one)}"
    if last := status["last_cell"]:
        yield f"  last cell: {_cell(last)}"
        if last["images"]:
            yield f"  images: {sight.file.parent / last['images']}"


def _state(sight: Sight) -> str:
    if sight.is_gone:
        return f"stopped without a word, last sign {duration(sight.age_s)} ago"
    message = f" ({sight.status['message']})" if sight.status["message"] else ""
    return f"{sight.status['state']}{message}"


def _times(status: dict[str, Any]) -> str:
    spent = duration(max(0.0, status["updated"] - status["started"])) + " spent"
    return spent if status["eta_s"] is None else f"{spent}, about {duration(status['eta_s'])} left"


def _progress(one: dict[str, Any]) -> str:
    share = f" {100 * one['done'] / one['total']:.0f} %" if one["total"] else ""
    losses = "".join(
        f"  {name} {'not finite' if value is None else format(value, '.3g')}"
        for name, value in one["losses"].items()
    )
    return share + losses


def _cell(last: dict[str, Any]) -> str:
    place = f"{last['attack']} on {last['defense']} ({last['view']}, seed {last['seed']})"
    if last["status"] != "ok":
        return f"{place}: {last['status']}: {last['error']}"
    shown = {name: value for name, value in last["estimates"].items() if value is not None}
    figures = [f"{name} {value:.3g}" for name, value in list(shown.items())[:6]]
    return f"{place}: {', '.join(figures)}" if figures else place
