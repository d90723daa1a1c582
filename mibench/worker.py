"""One task from inputs to stored artifact, wherever it runs: in this process or in a worker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mibench.errors import DeviceError, StoreError
from mibench.key import Key
from mibench.plugin import Progress
from mibench.recording import Failure
from mibench.registry import get_attack, get_defense, get_metric, load_plugin_file
from mibench.serving import AttackKilledError, Served, served_stage
from mibench.stages import execute
from mibench.stages.work import check_source, prior_spec_of
from mibench.store import Store
from mibench.store_root import local_folder
from mibench.task import Task

_REPORT_EVERY_S = 0.3
_WATCH_EVERY_S = 0.5


@dataclass(frozen=True)
class Job:
    """A task and where it runs.

    Args:
        task: what to do.
        root: folder or URL of the store.
        device: name of the device to compute on.
        plugin_files: single-file plugins that the task may need.
        limit_s: seconds after which the task has failed; None for no limit.
        served: how its attack runs in a process of its own; None runs the task's plugin in this one.
    """

    task: Task
    root: Path | str
    device: str
    plugin_files: tuple[Path, ...] = ()
    limit_s: float | None = None
    served: Served | None = None

    @property
    def folder(self) -> Path:
        """The folder of this machine that belongs to the store."""
        return local_folder(self.root)

    @property
    def progress_file(self) -> Path:
        """Where a worker process says how far it is."""
        return self.folder / "progress" / f"{self.task.key}.json"

    def drop_progress(self) -> None:
        """Remove what a worker said about how far it is: one that was killed leaves it."""
        with contextlib.suppress(OSError):
            self.progress_file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a task; its artifact lies in the store unless it failed.

    Args:
        key: of the task.
        failure: why it gave nothing.
        wall_s: seconds it took.
        stops: whether the store itself failed, so that no other task could be stored either.
    """

    key: Key
    failure: Failure | None = None
    wall_s: float = 0.0
    stops: bool = False


def find_device(name: str | torch.device) -> torch.device:
    """The device of this name; DeviceError where it is unknown or not there."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device '{name}': is unknown. Take 'cpu' or 'cuda:0'.") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device '{name}': is not there ({torch.cuda.device_count()} CUDA devices). Take 'cpu'."
        )
    return device


def start_worker(parent: int) -> None:
    """Set a worker process up: the main process alone answers to Ctrl-C, and none outlives it.

    Args:
        parent: process id of the main process, which may be dead by now.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), name="mibench-parent", daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, which frees the leases of what it works on.

    Asked every now and then: the signal that Linux sends instead comes when the thread that made the worker
    ends, and the main process may have made it in any thread.
    """
    while os.getppid() == parent:
        time.sleep(_WATCH_EVERY_S)
    os._exit(1)  # sys.exit would end this thread alone


def work(job: Job, on_progress: Progress | None = None) -> Outcome | None:
    """Do a task and store its artifact; whatever the plugin raises becomes a Failure.

    None where an attack that runs apart was killed, as an executor answers for a worker that was.

    Args:
        job: the task and where it runs.
        on_progress: called with every report; None writes a small file for the main process.
    """
    device, started = torch.device(job.device), time.monotonic()
    with steady(device):
        try:
            store = Store(job.root)
            if on_progress is None and job.limit_s is not None:
                _FileProgress(job.progress_file).write(0, 0, {})  # its clock starts
            for file in job.plugin_files:
                load_plugin_file(file)
            if job.served is None:  # else the other process does
                _check_sources(job.task)
            reset_peak(device)
            began = time.process_time()
            with _scratch(job) as scratch:
                report = on_progress or _FileProgress(job.progress_file)
                by = None if job.served is None else served_stage(job.served)
                artifact = execute(job.task, store, device=device, scratch=scratch, on_progress=report, by=by)
            store.put(job.task.key, artifact)
            cost: dict[str, float | str] = {
                "wall_s": time.monotonic() - started,
                "cpu_s": time.process_time() - began,
                "peak_mib": peak_mib(device) + artifact.costs.get("attack_peak_mib", 0.0),
                "device": device.type,
                **artifact.costs,
            }
            store.put_cost(job.task.key, cost)
        except AttackKilledError:
            return None
        except Exception as error:
            wall_s = time.monotonic() - started
            # not a subclass: a plugin may have a StoreError of its own
            return Outcome(job.task.key, failure_of(job.task, error), wall_s, stops=type(error) is StoreError)
        finally:
            with contextlib.suppress(OSError):
                job.progress_file.unlink(missing_ok=True)
    return Outcome(job.task.key, wall_s=time.monotonic() - started)


def failure_of(task: Task, error: Exception) -> Failure:
    """An exception as it stands on a record."""
    notes = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    trace = "".join(traceback.format_exception(error))
    return Failure(task.stage, type(error).__name__, notes + str(error), trace)


def _check_sources(task: Task) -> None:
    """PluginError where a plugin from outside the package is not the code that the task's key names."""
    if task.source:
        check_source(_plugin_class(task), task.source, task.plugin)
    for metric in task.params.get("metrics", ()):
        if metric["source"]:
            check_source(get_metric(metric["name"]), metric["source"], metric["name"])


def _plugin_class(task: Task) -> type:
    """The class whose source a task names: a defense, an attack, or a prior spec of either."""
    if task.stage in {"train", "output"}:
        return get_defense(task.plugin)
    spec = prior_spec_of(task.locator) if task.stage == "prior" else None
    return get_attack(task.plugin) if spec is None else type(spec)


@contextmanager
def steady(device: torch.device) -> Iterator[None]:
    """One thread and deterministic algorithms, so that any number of workers gives the same bits.

    Two threads on shared cores wait for each other and were measured 5 times slower than one. On a GPU the
    deterministic algorithms are left off: some operations have none there.
    """
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    # the same switch as torch.use_deterministic_algorithms, which imports the compiler and takes 2 s
    torch.set_deterministic_debug_mode("warn" if device.type == "cpu" else "default")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    """A folder of its own for a task; the store sweeps what killed runs leave."""
    folder = job.folder / "scratch" / f"{job.task.key}.tmp-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"store {job.folder}: cannot be written to ({error.strerror or error}). "
            "Free some space, or choose another folder."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _FileProgress:
    """Writes the last report to a file, at most every 0.3 s; never in the way of the work."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.last = 0.0

    def __call__(self, done: int, total: int, values: dict[str, float]) -> None:
        now = time.monotonic()
        if now - self.last < _REPORT_EVERY_S:
            return
        self.last = now
        self.write(done, total, values)

    def write(self, done: int, total: int, values: dict[str, float]) -> None:
        """Write a report, whenever the last one was; 0 of 0 steps says that the task has begun."""
        aside = self.file.with_suffix(f".tmp-{os.getpid()}")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps([done, total, values]), encoding="utf-8")
            aside.replace(self.file)


def reset_peak(device: torch.device) -> None:
    """Start measuring peak memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # Linux: 5 resets the peak resident size of this process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mib(device: torch.device) -> float:
    """Peak memory in MiB since `reset_peak`: of the GPU, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
