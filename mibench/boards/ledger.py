"""What a machine knows of a board's nights beside their history: `.night/ledger.json`.

The history says what was measured, and is the same wherever it lies. This says what has been tried here and
how long it took here, so it stays on the machine; without it nothing is lost but a failed task's second try
and the times that are compared.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from mibench.atomic import write_atomically
from mibench.boards.strict import FORBID, build, parse_json
from mibench.errors import BoardError
from mibench.key import Key
from mibench.recording import Failure

FILE = "ledger.json"
_MOST_BYTES = 2**26
_TRIES = 2  # nights on which a task under one key may fail


@dataclass(kw_only=True)
class Failed:
    """A task that failed.

    Args:
        nights: on which it was tried.
        stage, type, message: see `mibench.recording.Failure`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    nights: list[int]
    stage: str
    type: str
    message: str


@dataclass(kw_only=True)
class Pace:
    """What one task took here.

    Args:
        wall_s: seconds.
        work: see `mibench.workload`; None where unknown.
        peak_mib: peak memory; 0 where unknown.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    wall_s: float
    work: float | None = None
    peak_mib: float = 0.0


@dataclass(kw_only=True)
class Ledger:
    """The content of the file.

    Args:
        night: that has begun and is not in the history; 0 for none.
        started: when it began, UTC, ISO 8601.
        ran: keys of the tasks that it has computed so far.
        failures: by key of the task.
        paces: by name of the row and name of the task, the level that later nights are held against.
        accepted: by name of the row (of an attack `attack:` and its label) the night whose level was taken.
        offered: by name of the row and key of a measurement, the digest of what a recheck gave that differed.
        levels: by key of a measurement, the digest of those of them that a keeper took.
        rechecked: by key of a measurement, the night of its last recheck.
        imported: SHA-256 of plugin files that were imported without harm.
    """

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    night: int = 0
    started: str = ""
    ran: list[str] = field(default_factory=list)
    failures: dict[str, Failed] = field(default_factory=dict)
    paces: dict[str, dict[str, Pace]] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    offered: dict[str, dict[str, str]] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)
    rechecked: dict[str, int] = field(default_factory=dict)
    imported: list[str] = field(default_factory=list)

    def open(self, night: int, started: str) -> None:
        """Begin a night, or go on with the one that was begun."""
        if self.night != night:
            self.night, self.started, self.ran = night, started, []

    def close(self) -> None:
        """The night is in the history."""
        self.night, self.started, self.ran = 0, "", []

    def failed(self, key: Key, failure: Failure) -> None:
        """Note that a task failed this night."""
        known = self.failures.get(key)
        nights = sorted({*(known.nights if known else ()), self.night})
        self.failures[key] = Failed(
            nights=nights, stage=failure.stage, type=failure.type, message=failure.message
        )

    def accept(self, name: str, night: int) -> None:
        """Take the level of a row on a night for its new one; an attack's name is `attack:` and its label."""
        self.accepted[name] = night
        self.paces.pop(name, None)  # the next times are the level
        self.levels.update(self.offered.pop(name, {}))

    def given_up(self, key: Key) -> Failure | None:
        """Why a task is not tried this night: it failed this night already, or as often as it may."""
        known = self.failures.get(key)
        if known is None or (len(known.nights) < _TRIES and self.night not in known.nights):
            return None
        return Failure(known.stage, known.type, known.message)


def read_ledger(folder: Path) -> Ledger:
    """The ledger of a folder; an empty one where there is none.

    Raises:
        BoardError: the file is damaged.
    """
    file = folder / FILE
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return Ledger()
    except OSError as error:
        raise BoardError(f"{file}: cannot be read ({error.strerror}). Check it.") from error
    try:
        return build(Ledger, parse_json(text, where=str(file), most_bytes=_MOST_BYTES), where=str(file))
    except BoardError as error:
        raise BoardError(
            f"{error} Or remove it: failed tasks are then tried again, and times are compared anew."
        ) from error


def write_ledger(folder: Path, ledger: Ledger) -> None:
    """Replace the ledger of a folder as a whole."""
    write_atomically(folder / FILE, json.dumps(asdict(ledger), sort_keys=True).encode())
