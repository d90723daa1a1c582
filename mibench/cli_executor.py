"""The options that say where tasks run, and what they stand for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from mibench.errors import ClusterError

if TYPE_CHECKING:
    import torch

    from mibench.executors import MakeExecutor
    from mibench.plan import Plan
    from mibench.store import Store


class ExecutorName(StrEnum):
    """What runs tasks."""

    local = "local"
    ray = "ray"


ExecutorOption = Annotated[
    ExecutorName,
    typer.Option("--executor", help="ray: over several GPUs or machines; needs the extra 'ray'."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="Head node of the Ray cluster to use. Default: a Ray of this machine alone, for this run.",
    ),
]


@dataclass(frozen=True)
class Where:
    """What the options ask for.

    Args:
        name: what runs tasks.
        ray_address: of a cluster.
    """

    name: ExecutorName = ExecutorName.local
    ray_address: str | None = None


LOCAL = Where()


@dataclass(frozen=True)
class Crew:
    """What runs the tasks of a run: how many at once, and how the executor is made.

    Args:
        jobs: tasks at once.
        make: makes the executor; None is for workers of this machine.
    """

    jobs: int
    make: MakeExecutor | None = None


@contextmanager
def crew_of(
    where: Where, *, jobs: int | None, device: torch.device, plan: Plan, store: Store
) -> Iterator[Crew]:
    """What the options stand for, as long as it is needed; SIGTERM is as good as Ctrl-C meanwhile.

    Raises:
        ClusterError: an address without `--executor ray`, Ray is not installed, or no cluster answers.
    """
    with _heedful(), _crew(where, jobs=jobs, device=device, plan=plan, store=store) as crew:
        yield crew


@contextmanager
def _crew(
    where: Where, *, jobs: int | None, device: torch.device, plan: Plan, store: Store
) -> Iterator[Crew]:
    from mibench.benchmark import pick_jobs

    if where.name is ExecutorName.local:
        if where.ray_address is not None:
            raise ClusterError(
                f"ray address '{where.ray_address}': is used with --executor ray alone. Add it."
            )
        yield Crew(jobs or pick_jobs(device))
        return
    from mibench.gpu_share import TASKS_PER_CARD, GpuShares, card_mib
    from mibench.ray_cluster import RayCluster
    from mibench.ray_executor import RayExecutor

    shares = None
    if device.type == "cuda":
        import torch

        shares = GpuShares(plan, store, card_mib=card_mib(device))
        local_jobs = min(os.cpu_count() or 1, TASKS_PER_CARD * torch.cuda.device_count())
    else:
        local_jobs = pick_jobs(device)
    jobs = jobs or (local_jobs if where.ray_address is None else None)
    with RayCluster(address=where.ray_address, jobs=jobs, device=device, shares=shares) as cluster:
        yield Crew(cluster.jobs, partial(RayExecutor, cluster))


@contextmanager
def _heedful() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does: batch systems send it, and leases and folders shall not stay."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone may say so
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # none where it was not set by Python
