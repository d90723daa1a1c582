"""The options that say where tasks run, and what they stand for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
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
    """What the options stand for, as long as it is needed.

    Raises:
        ClusterError: an address without `--executor ray`, Ray is not installed, or no cluster answers.
    """
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
