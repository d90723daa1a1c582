"""How long a task may run: since when workers are at their jobs, and which of them are over their limit."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mibench.key import Key
from mibench.recording import Failure
from mibench.worker import Job, Outcome

KIND = "TimeLimit"
"""How failures of tasks that were stopped are named on records."""


class Clocks:
    """The clocks of jobs. One starts when the job's worker says that it has begun, not when it is handed out.

    A worker process takes seconds to start, and on a cluster a job may wait for a free core.
    """

    def __init__(self) -> None:
        self._began: dict[Key, float] = {}

    def start(self, job: Job) -> None:
        """Start a job's clock, unless it runs."""
        self._began.setdefault(job.task.key, time.monotonic())

    def stop(self, job: Job) -> None:
        """Forget a job: it has ended, or will begin anew."""
        self._began.pop(job.task.key, None)

    def late(self, jobs: Iterable[Job]) -> list[Job]:
        """Those jobs that have run for longer than they may."""
        now = time.monotonic()
        return [
            job
            for job in jobs
            if job.limit_s is not None and now - self._began.get(job.task.key, now) > job.limit_s
        ]


def stopped(job: Job) -> Outcome:
    """The outcome of a job that was stopped for its limit."""
    message = (
        f"{job.task.title}: ran for longer than {words(job.limit_s or 0.0)}, the time limit of a task, and "
        "was stopped. Give a longer --task-limit, or make the plugin faster."
    )
    return Outcome(job.task.key, Failure(job.task.stage, KIND, message), wall_s=job.limit_s or 0.0)


def words(seconds: float) -> str:
    """A duration as `--task-limit` takes it, in whole units where it has them.

    >>> words(1800), words(90), words(7200), words(0.5)
    ('30m', '90s', '2h', '0.5s')
    """
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
