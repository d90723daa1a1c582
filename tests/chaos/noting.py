"""The command `mibench` with a log of what it does itself: python -m chaos.noting LOG run smoke ...

Each line of the log is one event as JSON, written at once, so that a kill loses the last one at most.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

BEGAN, WALKS, WALKED = "began", "walks", "walked"
STARTED, RAN, HIT, FAILED = "started", "ran", "hit", "failed"


class Notes:
    """A log that several processes may append to."""

    def __init__(self, file: Path) -> None:
        self.descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self(BEGAN)

    def __call__(self, what: str, key: str = "", why: str = "") -> None:
        line = {"at": time.monotonic(), "pid": os.getpid(), "what": what, "key": key, "why": why}
        os.write(self.descriptor, f"{json.dumps(line)}\n".encode())


def note_runs(notes: Notes) -> None:
    """Have every run of this process tell the log what happens to its tasks."""
    from mibench import benchmark
    from mibench.runner import Event, TaskDone, TaskFailed, TaskStarted

    inner = vars(benchmark)["run"]  # which it imports for itself

    def run(*args: Any, **options: Any) -> Any:
        told = options["on_event"]

        def tell(event: Event) -> None:
            match event:
                case TaskStarted(task):
                    notes(STARTED, task.key)
                case TaskDone(task, "ran" | "zoo"):
                    notes(RAN, task.key)
                case TaskDone(task):
                    notes(HIT, task.key)
                case TaskFailed(task, failure):
                    notes(FAILED, task.key, failure.type)
            told(event)

        notes(WALKS)
        records = inner(*args, **{**options, "on_event": tell})
        notes(WALKED)
        return records

    vars(benchmark)["run"] = run


def main() -> int:
    """Run the command line, and return its exit code."""
    notes = Notes(Path(sys.argv[1]))
    from mibench.cli import main as command

    note_runs(notes)
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
