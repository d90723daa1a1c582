"""A Ray to run tasks on: one of this machine that ends with the run, or a cluster that goes on."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mibench.errors import ClusterError
from mibench.executors import WORKER_ENV
from mibench.gpu_share import TASKS_PER_CARD, GpuShares

_REACH_S = 5.0  # for a head node to answer
_OBJECTS_BYTES = 2**27  # Ray's shared memory, of which hardly anything is used; its least is 75 MiB
# Ray reads these when it is imported or starts: no statistics about users are sent; a local Ray listens on
# 127.0.0.1 alone, which this switch, named for other systems, turns on; a task without a GPU keeps its view
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_LOCAL_ONLY = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # as the workers of the other executor; by default Ray's stand back
}
_FOLDER, _LOCK = "mibench-ray-", "lock"
_TOKEN = secrets.token_hex(32)


class RayCluster:
    """A Ray to run tasks on; use it as a context manager.

    Without an address a Ray of this machine is started with the first job and stopped at the end.

    Args:
        address: `HOST:PORT` of the head node of a cluster; None starts a Ray of this machine.
        jobs: tasks at once; None takes what a cluster has. A Ray of one's own needs the number.
        device: on which tasks compute.
        shares: which share of a GPU a task gets; None gives each a whole one.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        jobs: int | None = None,
        device: torch.device,
        shares: GpuShares | None = None,
    ) -> None:
        if address is None and jobs is None:
            raise ValueError("a local Ray needs the number of its jobs.")
        self.address, self.jobs, self.device, self.shares = address, jobs or 0, device, shares
        self.is_up = False
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        """Look whether Ray is installed, and connect to a cluster.

        Raises:
            ClusterError: it is not, or no cluster answers, or it has not what tasks need.
        """
        if importlib.util.find_spec("ray") is None:
            raise ClusterError(
                "executor ray: Ray is not installed. `pip install 'mibench[ray]'`, or leave --executor out."
            )
        if self.address is None:
            sweep_folders(_parent())
        else:
            self.start()
            try:
                self.jobs = self.jobs or self._room()
            except BaseException:
                self._ending.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the cluster, or stop the Ray of one's own with all its processes."""
        self.is_up = False
        self._ending.close()

    def start(self) -> None:
        """Connect, or start a Ray of one's own; nothing where that has been done.

        Raises:
            ClusterError: no cluster answers, or Ray does not start.
        """
        if self.is_up:
            return
        self._set_variables()
        with ExitStack() as ending:
            ending.enter_context(_sigterm_kept())
            where = self._where(ending)
            import ray

            # registered before, so that an interrupt while it starts leaves nothing behind
            ending.callback(ray.shutdown)
            try:
                # put back at once: Ray's own answer to SIGTERM is to abort
                with _sigterm_kept():
                    ray.init(
                        **where,
                        include_dashboard=None if self.address else False,
                        log_to_driver=False,
                        logging_level=logging.CRITICAL,
                        runtime_env={"env_vars": {**WORKER_ENV, **_QUIET}},
                    )
            except (OSError, RuntimeError, ValueError, AssertionError, ray.exceptions.RayError) as error:
                raise ClusterError(_no_answer(self.address, str(error))) from error
            self._ending = ending.pop_all()
        self.is_up = True

    def _set_variables(self) -> None:
        """Tell Ray what it reads once, when it is imported; so the variables stay."""
        if self.address is not None:
            os.environ.update(_QUIET)
            return
        # whoever else is on this machine may reach 127.0.0.1, and could have code run in our name
        private = {**_QUIET, **_LOCAL_ONLY, "RAY_AUTH_TOKEN": _TOKEN}
        if "ray" in sys.modules and not private.items() <= os.environ.items():
            raise ClusterError(
                "executor ray: Ray was imported before, and would be open to other machines. Import it after "
                "the first task was started."
            )
        os.environ.update(private)

    def _where(self, ending: ExitStack) -> dict[str, Any]:
        """The arguments of `ray.init` that say which Ray."""
        if self.address is not None:
            _reach(self.address)
            return {"address": self.address}
        folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=_parent())
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        ending.enter_context(_held(Path(folder)))
        return {
            "address": "local",
            "num_cpus": self.jobs,
            "num_gpus": torch.cuda.device_count() if self.device.type == "cuda" else 0,
            "object_store_memory": _OBJECTS_BYTES,
            "_temp_dir": folder,
        }

    def _room(self) -> int:
        """Tasks that a cluster can do at once, as it is now."""
        import ray

        has = ray.cluster_resources()
        cores, cards = int(has.get("CPU", 0)), int(has.get("GPU", 0))
        if cores < 1 or (self.device.type == "cuda" and cards < 1):
            raise ClusterError(
                f"ray {self.address}: the cluster has {cores} cores and {cards} GPUs, too few for tasks on "
                f"'{self.device.type}'. Add nodes, or choose another --device."
            )
        return cores if self.device.type == "cpu" else min(cores, TASKS_PER_CARD * cards)


def _parent() -> Path:
    """Where folders of Rays lie: short, because the path of a socket may have no more than 107 characters."""
    return Path("/tmp") if Path("/tmp").is_dir() else Path(tempfile.gettempdir())


def sweep_folders(parent: Path) -> None:
    """Remove what Rays of killed processes have left in a folder: whose lock nobody holds any more."""
    for left in list(parent.glob(f"{_FOLDER}*")):
        # ImportError: Windows has no such locks; OSError: in use, or gone meanwhile
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            found = left.lstat()  # not what a link of another user leads to
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            with (left / _LOCK).open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(left)


def _empty(folder: Path) -> None:
    """Remove a folder, its lock last: while its Ray is still ending, that tells the next sweep of it."""
    for place in folder.iterdir():
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        elif place.name != _LOCK:
            place.unlink()
    if len(list(folder.iterdir())) == 1:
        (folder / _LOCK).unlink()
        folder.rmdir()


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which the kernel frees when this process dies, however that happens."""
    aside = folder / f"{_LOCK}.new"
    with aside.open("wb") as lock:
        with contextlib.suppress(ImportError, OSError):  # no locks: then nobody sweeps
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside.rename(folder / _LOCK)  # only now, so that nobody finds it free before
        yield


def _reach(address: str) -> None:
    """ClusterError where an address is none, or nothing answers there: Ray itself would ask for a minute."""
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16) or "/" in address:
        raise ClusterError(
            f"ray address '{address}': is none. Give HOST:PORT of the head node, such as 10.0.0.1:6379."
        )
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise ClusterError(_no_answer(address, error.strerror or str(error))) from error


def _no_answer(address: str | None, reason: str) -> str:
    said = first_line(reason)
    if address is None:
        return f"executor ray: Ray does not start on this machine ({said}). Leave --executor out."
    return (
        f"ray address '{address}': no cluster answers ({said}). Start one with `ray start --head`, and run "
        "mibench on one of its nodes."
    )


def first_line(text: str) -> str:
    """The first line of what Ray says, without its dot."""
    lines = text.strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else "no reason given"


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what answers to SIGTERM, which Ray replaces for good."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
