"""Stages: one function for each row of the stage table; the only place that calls plugin code.

A stage reads the artifacts of its inputs, calls the plugin, and returns an artifact. What is passed on is
always what was read from the store, so that a resumed run computes with the same bits as an unbroken one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from mibench.memory import halved, watched
from mibench.plugin import Context, Progress
from mibench.precision import exact, rounded
from mibench.stages.answering import answer
from mibench.stages.attacking import adapt, invert
from mibench.stages.measuring import measure
from mibench.stages.preparing import embedder, judge, load_data, public_net, train_prior
from mibench.stages.protecting import learn_output, train
from mibench.stages.work import Work
from mibench.store import Artifact, Store
from mibench.task import Task

__all__ = ["STAGES", "execute"]

STAGES: dict[str, Callable[[Work], Artifact]] = {
    "data": load_data,
    "judge": judge,
    "embedder": embedder,
    "prior": train_prior,
    "public_net": public_net,
    "train": train,
    "output": learn_output,
    "answer": answer,
    "adapt": adapt,
    "invert": invert,
    "measure": measure,
}
_MEASURED = frozenset({"answer", "measure"})  # float32 on every device, see mibench.precision


def execute(
    task: Task,
    store: Store,
    *,
    device: torch.device,
    scratch: Path,
    on_progress: Progress | None = None,
    by: Callable[[Work], Artifact] | None = None,
) -> Artifact:
    """The artifact of a task; its inputs must lie in the store, and it is not yet put there.

    Args:
        task: what to do.
        store: where the inputs lie.
        device: where to compute.
        scratch: the only folder that plugins may write to.
        on_progress: called with (steps done, steps in all, named losses).
        by: does the work; None takes the stage's own function.

    Raises:
        StoreError: an input is missing.
        OutOfRoomError: it does not fit into memory, however small its chunks are.
        Exception: whatever the plugin raises.
    """
    wanted = int(task.locator["max_batch"])

    def attempt(rows: int) -> Artifact:
        # a new context and a new folder: what an attempt before left in them is no part of this one
        folder = scratch if rows == wanted else scratch / f"rows-{rows}"
        folder.mkdir(parents=True, exist_ok=True)
        ctx = Context(seed=task.task_seed, device=device, scratch=folder, max_batch=rows)
        if on_progress is not None:
            ctx = dataclasses.replace(ctx, on_progress=on_progress)
        return (by or STAGES[task.stage])(Work(task, store, ctx))

    advice = "Take a smaller net, smaller images or smaller batches, or another device."
    with watched() as room, (exact if task.stage in _MEASURED else rounded)(device):
        got = halved(attempt, wanted, what=f"stage {task.stage}", advice=advice)
    return dataclasses.replace(got, costs={**got.costs, **room.costs()})
