"""The command `mibench run smoke` as a process that can be killed and started again."""

import os
import subprocess
import sys
import time
from pathlib import Path

from .noting import BEGAN, HIT, RAN
from .timeline import Log, Note

ROOT = Path(__file__).parents[2]
CELL_FAILED = 3  # see mibench.cli
_STORE, _LOG = "store", "did.log"


class Command:
    """A command with a results folder of its own, on a store that it may share.

    Args:
        folder: of the store; the command's own folder lies in it.
        name: of its own folder.
        options: of `mibench run smoke`, beside those that name folders.
    """

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        folder = folder.absolute()
        self.folder, self.own, self.options = folder, folder / name, options
        self.log = Log(self.own / _LOG)
        self.seen: set[str] = set()  # tasks whose artifacts it knows of
        self._marks: dict[str, Note] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.codes: list[int] = []  # of the lives that ended, killed ones as the negative signal
        self.pids: list[int] = []

    @property
    def pid(self) -> int:
        """Of the life that runs, or ran last."""
        return self.pids[-1]

    @property
    def records(self) -> bytes:
        """What it has written; nothing where it has not."""
        file = self.own / "smoke" / "records.jsonl"
        return file.read_bytes() if file.is_file() else b""

    def start(self) -> None:
        """Begin a life, as the leader of a session of its own."""
        self.own.mkdir(parents=True, exist_ok=True)
        self.log.file.touch()
        argv = ["-m", "chaos.noting", str(self.log.file), "run", "smoke", "--device", "cpu"]
        argv += ["--out", str(self.own), "--store", str(self.folder / _STORE), *self.options]
        with (self.own / "said.txt").open("ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=ROOT / "tests",
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.pids.append(self.process.pid)

    def ended(self) -> bool:
        """Whether its life is over; notes how."""
        if self.process is None:
            return True
        code = self.process.poll()
        if code is None:
            return False
        self.codes.append(code)
        self.process = None
        return True

    def wait(self, within_s: float) -> int:
        """How its life has ended, in time; TimeoutError where it goes on."""
        end = time.monotonic() + within_s
        while not self.ended():
            if time.monotonic() > end:
                raise TimeoutError(f"process {self.pid} has not ended within {within_s:.0f} s: {self.own}")
            time.sleep(0.05)
        return self.codes[-1]

    def life(self) -> dict[str, Note]:
        """What the life that runs has noted of itself, by kind; `seen` is brought up to date."""
        for note in self.log.fresh():
            if note.what in {RAN, HIT}:
                self.seen.add(note.key)
            if note.what == BEGAN:
                self._marks.clear()
            if not note.key:
                self._marks[note.what] = note
        began = self._marks.get(BEGAN)
        return self._marks if began is not None and began.pid == self.pid else {}


def store_of(folder: Path) -> Path:
    """The store that the commands of a folder share."""
    return folder / _STORE
