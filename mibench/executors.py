"""Where tasks run: in this process, or in a kept pool of single-threaded worker processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pickle import PicklingError
from typing import Any, Protocol

from mibench.time_limit import Clocks, stopped
from mibench.worker import Job, Outcome, failure_of, start_worker, work

OnProgress = Callable[[Job, int, int, dict[str, float]], None]
MakeExecutor = Callable[[OnProgress], "Executor"]
_POLL_S = 0.2
# read by the math libraries when a worker starts; one thread each, see mibench.worker
WORKER_ENV = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Executor(Protocol):
    """Runs jobs, at most `jobs` at once."""

    jobs: int

    def submit(self, job: Job) -> None:
        """Take a job."""
        ...

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        """Jobs that have ended since; None instead of an outcome where the worker process was killed."""
        ...

    def stop(self) -> None:
        """Give up what runs."""
        ...


class InProcess:
    """Runs one job at a time, here, where nothing can stop it: its limit does not hold."""

    jobs = 1

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        self.waiting: list[Job] = []

    def submit(self, job: Job) -> None:
        """Take a job; it runs at the next poll."""
        self.waiting.append(job)

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        """Run what was taken."""
        jobs, self.waiting = self.waiting, []
        return [(job, work(job, partial(self.on_progress, job))) for job in jobs]

    def stop(self) -> None:
        """Nothing runs between polls."""
        self.waiting.clear()


class Pool:
    """Runs jobs in worker processes that are kept for the next run of this program."""

    def __init__(self, jobs: int, on_progress: OnProgress) -> None:
        self.jobs = jobs
        self.on_progress = on_progress
        self.pool: Any = None  # loky has no types
        self.flying: dict[Future[Outcome | None], Job] = {}
        self.refused: list[Job] = []
        self.seen: dict[str, str] = {}
        self.clocks = Clocks()

    def submit(self, job: Job) -> None:
        """Hand a job to a worker; a broken pool is replaced, at the latest for the next job."""
        from loky import get_reusable_executor

        job.drop_progress()  # a run that was killed leaves it, and it would start the clock of the job
        self.pool = get_reusable_executor(
            max_workers=self.jobs,
            timeout=None,
            initializer=start_worker,
            initargs=(os.getpid(),),
            env=WORKER_ENV,
        )
        try:
            self.flying[self.pool.submit(work, job)] = job
        except BrokenProcessPool:  # a worker died since; the next poll says so
            self.refused.append(job)

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        """Wait a moment, pass progress on, and return what has ended."""
        done, _ = wait(self.flying, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        for future, job in self.flying.items():
            if future not in done:
                self._pass_progress(job)
        refused, self.refused = self.refused, []
        ended = [(job, _result(job, future)) for future in done for job in [self.flying.pop(future)]]
        for job in (*refused, *(job for job, _ in ended)):
            job.drop_progress()
            self.clocks.stop(job)
        return [*((job, None) for job in refused), *ended, *self._stop_late()]

    def stop(self) -> None:
        """Kill the workers; what they were writing is left aside and never read."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, kill_workers=True)
        for job in self.flying.values():
            job.drop_progress()
            self.clocks.stop(job)
        self.flying.clear()
        self.refused.clear()

    def _stop_late(self) -> list[tuple[Job, Outcome | None]]:
        """Kill jobs that are over their limit, and all their workers; the other jobs begin anew.

        Nothing says which worker has which job, and a worker that is killed takes the pool with it anyway.
        """
        late = self.clocks.late(job for future, job in self.flying.items() if not future.done())
        if not late:
            return []
        others = [job for job in self.flying.values() if job not in late]
        self.stop()
        for job in others:
            self.submit(job)
        return [(job, stopped(job)) for job in late]

    def _pass_progress(self, job: Job) -> None:
        try:
            text = job.progress_file.read_text(encoding="utf-8")
            done, total, values = json.loads(text)
        except (OSError, ValueError):
            return
        self.clocks.start(job)
        if total and self.seen.get(job.task.key) != text:
            self.seen[job.task.key] = text
            self.on_progress(job, done, total, values)


def _result(job: Job, future: Future[Outcome | None]) -> Outcome | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None
    except PicklingError as error:  # the job or its outcome cannot travel between processes
        return Outcome(job.task.key, failure_of(job.task, error))
