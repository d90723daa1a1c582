"""Where tasks run, with Ray: in workers of this machine, or of all machines of a cluster.

A task is one Ray task on one core, and on GPU runs on a share of a card (`mibench.gpu_share`). Results travel
through the store as they do between local workers, so every node has to see its folder; Ray carries the
job and a short answer. Ray itself repeats nothing: the runner tries a task of a killed worker once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mibench.errors import ClusterError
from mibench.executors import OnProgress
from mibench.provenance import package_version
from mibench.ray_cluster import RayCluster, first_line
from mibench.store import Store
from mibench.time_limit import Clocks, stopped
from mibench.worker import Job, Outcome, failure_of, work

_POLL_S = 0.2
_STOP_S = 10.0  # for killed workers to be gone
_APPEAR_S = 90.0  # NFS clients believe for up to a minute (acdirmax) that a name is not there


@dataclass(frozen=True)
class Home:
    """What a worker needs to know of the process that sends it jobs.

    Args:
        folder: its working directory, from which relative paths count.
        version: of its mibench.
        marker: a file in its store, which a worker on another machine sees if the store is shared; None where
            the store is a URL, under which it is the same for all.
    """

    folder: Path
    version: str
    marker: Path | None


class RayExecutor:
    """Runs jobs as Ray tasks; an `Executor`.

    Args:
        cluster: where.
        on_progress: told what workers say about how far they are.
    """

    def __init__(self, cluster: RayCluster, on_progress: OnProgress) -> None:
        self.cluster, self.on_progress = cluster, on_progress
        self.jobs = cluster.jobs
        self.flying: dict[Any, Job] = {}  # by Ray's reference to the answer
        self.seen: dict[str, str] = {}
        self.marker: Path | None = None
        self.clocks = Clocks()

    def submit(self, job: Job) -> None:
        """Hand a job to Ray, which starts it where a core, and a share of a GPU, is free."""
        self.cluster.start()
        import ray

        job.drop_progress()  # a run that was killed leaves it, and it would start the clock of the job
        # not a decorator: Ray is imported where it is used
        task = ray.remote(num_cpus=1, max_retries=0)(_work_for)
        if torch.device(job.device).type == "cuda":
            shares = self.cluster.shares
            # Ray shows a task its own card alone, under the number 0
            job = replace(job, device="cuda:0")
            task = task.options(num_gpus=shares.share(job.task) if shares else 1.0)
        if isinstance(job.root, Path):
            job = replace(job, root=job.root.absolute())
        self.flying[task.remote(job, self._home(job.root))] = job

    def poll(self) -> list[tuple[Job, Outcome | None]]:
        """Wait a moment, pass progress on, and return what has ended.

        Raises:
            ClusterError: the nodes cannot work for this process.
        """
        if not self.flying:
            return []
        import ray

        ray.wait(list(self.flying), num_returns=1, timeout=_POLL_S)
        done, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
        for ref, job in self.flying.items():
            if ref not in done:
                self._pass_progress(job)
        ended = [(job, _result(job, ref)) for ref in done for job in [self.flying.pop(ref)]]
        for job, _ in ended:
            job.drop_progress()
            self.clocks.stop(job)
        ended += self._stop_late()
        if not self.flying:
            self._unmark()
        return ended

    def stop(self) -> None:
        """Kill what runs; what workers were writing is left aside and never read."""
        if self.flying:
            import ray

            with contextlib.suppress(ray.exceptions.RayError):  # the cluster may be what failed
                for ref in self.flying:
                    ray.cancel(ref, force=True)
                ray.wait(list(self.flying), num_returns=len(self.flying), timeout=_STOP_S)
        for job in self.flying.values():
            job.drop_progress()
        self.flying.clear()
        self._unmark()

    def _home(self, root: Path | str) -> Home:
        """What the workers are told, and the marker that it names."""
        if self.marker is None and isinstance(root, Path):
            self.marker = root / "scratch" / f"ray.tmp-{os.getpid()}-{secrets.token_hex(8)}"
            with contextlib.suppress(OSError):  # a store that cannot be written to is the worker's to report
                self.marker.parent.mkdir(parents=True, exist_ok=True)
                self.marker.touch()
        return Home(Path.cwd(), package_version(), self.marker)

    def _stop_late(self) -> list[tuple[Job, Outcome | None]]:
        """Kill the workers of jobs that are over their limit."""
        import ray

        late = {job.task.key for job in self.clocks.late(self.flying.values())}
        refs = [ref for ref, job in self.flying.items() if job.task.key in late]
        for ref in refs:
            ray.cancel(ref, force=True)
        jobs = [self.flying.pop(ref) for ref in refs]
        for job in jobs:
            job.drop_progress()
            self.clocks.stop(job)
        return [(job, stopped(job)) for job in jobs]

    def _unmark(self) -> None:
        if self.marker is not None:
            with contextlib.suppress(OSError):
                self.marker.unlink(missing_ok=True)
            self.marker = None

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


def _work_for(job: Job, home: Home) -> Outcome | None:
    """Do a job in a Ray worker; None as `work` gives it.

    Raises:
        ClusterError: this node has another mibench, or does not see the store.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process alone answers to Ctrl-C
    node = socket.gethostname()
    if package_version() != home.version:
        raise ClusterError(
            f"ray node {node}: has mibench {package_version()}, and the run is of {home.version}. "
            "Install the same on all nodes."
        )
    with contextlib.suppress(OSError):  # relative paths of images and weights, where the folder is shared
        os.chdir(home.folder)
    # a folder that is listed is looked at anew, also on a network file system
    if home.marker is not None and home.marker.name not in _listed(home.marker.parent):
        raise ClusterError(
            f"ray node {node}: does not see the store {job.root}. Name one on a file system that all nodes "
            "share with --store."
        )
    return work(job)


def _result(job: Job, ref: Any) -> Outcome | None:  # noqa: ANN401 - Ray's reference has no type without Ray
    """What a Ray task gave; None where its worker or its node died."""
    import ray

    try:
        outcome: Outcome | None = ray.get(ref)
    except ray.exceptions.RayTaskError as error:  # the job or its outcome cannot travel, or the node is unfit
        if isinstance(error.cause, ClusterError):
            raise ClusterError(str(error.cause)) from None
        return Outcome(job.task.key, failure_of(job.task, error.cause or error))
    except (ray.exceptions.RuntimeEnvSetupError, ray.exceptions.TaskUnschedulableError) as error:
        raise ClusterError(f"ray: cannot start '{job.task.title}' ({first_line(str(error))}).") from error
    except ray.exceptions.RayError:
        return None
    if outcome is not None and outcome.failure is None:
        _await_artifact(job)
    return outcome


def _await_artifact(job: Job) -> None:
    """Wait until this machine sees what another one has stored."""
    if isinstance(job.root, str):  # object stores show at once what was put
        return
    folder = Store(job.root).folder(job.task.key)
    deadline = time.monotonic() + _APPEAR_S
    while folder.name not in _listed(folder.parent):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"store {job.root}: '{job.task.title}' was stored on another node, and is not seen here "
                f"after {_APPEAR_S:.0f} s. Name a store on a file system that all nodes share with --store."
            )
        time.sleep(_POLL_S)


def _listed(folder: Path) -> set[str]:
    """Names in a folder; none where it is not there."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - names alone
    except OSError:
        return set()
