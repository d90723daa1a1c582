"""A process that has loaded everything and forks runs on request, so that a test can have many of them.

Reads lines from standard input and answers each with one: `start FOLDER NAME JOBS` with the number of the new
process, which runs `FOLDER/toy.toml` on `FOLDER/store`, and `wait PID` with how that one has ended.
"""

import os
import sys
from pathlib import Path

from mibench.plan import build_plan
from mibench.registry import load_plugin_file
from mibench.runner import Event, TaskDone, TaskFailed, run
from mibench.store import Store
from mibench.suite import load_suite

PLUGINS = ("toy_scores", "toy_gradient", "toy_failing", "toy_short", "toy_rounded")


def walk(folder: Path, name: str, jobs: int) -> None:
    """Run, and note in a file of this run alone what it does itself."""
    results = folder / name
    results.mkdir(exist_ok=True)
    with (results / "did.log").open("a", encoding="utf-8") as log:

        def note(event: Event) -> None:
            if isinstance(event, TaskFailed) or (isinstance(event, TaskDone) and event.how == "ran"):
                log.write(f"{type(event).__name__} {event.task.key}\n")
                log.flush()

        run(build_plan(load_suite(folder / "toy.toml")), Store(folder / "store"), jobs=jobs, results=results,
            on_event=note)  # fmt: skip


def main() -> None:
    """Answer until the input ends."""
    for name in PLUGINS:
        load_plugin_file(Path(__file__).parent / "plugins" / f"{name}.py")
    for line in sys.stdin:
        word, *rest = line.split()
        if word == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(int(rest[0]), 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                os.close(0)
                os.dup2(2, 1)  # a worker whose main process is dead when it starts prints that: no answer
                code = 1
                try:
                    walk(Path(rest[0]), rest[1], int(rest[2]))
                    code = 0
                finally:
                    os._exit(code)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
