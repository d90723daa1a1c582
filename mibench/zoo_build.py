"""Fills the zoo: trains the priors of a suite through its plan and puts them into the package."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from safetensors.torch import save

from mibench import zoo
from mibench.atomic import write_atomically
from mibench.benchmark import pick_device, pick_jobs
from mibench.errors import StoreError
from mibench.key import Key
from mibench.plan import Plan, build_plan
from mibench.runner import Event, OnEvent, TaskFailed, ignore, run
from mibench.store import Store
from mibench.suite import Suite
from mibench.task import Task

_MAY_SHIP = frozenset({"synthfaces"})  # a generator repeats the faces that it was trained on


def plan_zoo(suite: Suite) -> Plan:
    """The part of a suite's plan that makes its generative priors; it has no cells.

    What a run meets only where it is named is planned for as well. What an attack learns in its own way (a
    mean face) is left out: it takes no time worth saving.

    Raises:
        StoreError: the suite's images show real people, whose faces a prior would carry along.
    """
    if suite.data.kind not in _MAY_SHIP:
        raise StoreError(
            f"zoo: suite {suite.name} has real images ({suite.data.kind}), and a generator repeats the faces "
            "that it was trained on. Only priors of procedural faces belong into the zoo."
        )
    attacks, defenses = (*suite.attacks, *suite.more.attacks), (*suite.defenses, *suite.more.defenses)
    plan = build_plan(dataclasses.replace(suite, attacks=attacks, defenses=defenses, crossed=None), zoo=False)
    priors = tuple(key for key, task in plan.tasks.items() if is_generative(task))
    kept = {*priors, *(one for key in priors for one in plan.ancestors(key))}
    tasks = {key: task for key, task in plan.tasks.items() if key in kept}
    return dataclasses.replace(plan, tasks=tasks, cells=(), wanted=priors)


def is_generative(task: Task) -> bool:
    """Whether a task trains a prior by its spec; a ready one is its owner's, and of real faces."""
    return task.stage == "prior" and "spec" in task.params and "half" in task.params


def build_zoo(
    plan: Plan,
    store: Store,
    *,
    jobs: int | None = None,
    device: str = "auto",
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> list[Path]:
    """Train the priors of a plan from `plan_zoo`, write them and the manifest; returns the tensor files.

    Priors that an earlier call left for the same suite, and that it no longer asks for, are removed.

    Args:
        plan: from `plan_zoo`.
        store: where training leaves its results, and finds those of earlier runs.
        jobs: worker processes; None suits the device.
        device: `auto`, `cpu` or `cuda`.
        folder: the zoo; None takes the package's.
        on_event: told of everything that happens.

    Raises:
        StoreError: a prior could not be trained; the zoo is then as before.
    """
    where, shelf = pick_device(device), folder or zoo.ZOO
    failed: list[str] = []

    def watch(event: Event) -> None:
        if isinstance(event, TaskFailed):
            failed.append(f"{event.task.title}: {event.failure.type}: {event.failure.message}")
        on_event(event)

    run(plan, store, jobs=jobs or pick_jobs(where), device=where, on_event=watch)
    if failed:
        raise StoreError(f"zoo: {failed[0]} Nothing was written. Mend it and build again.")
    fresh: dict[Key, dict[str, object]] = {}
    for key in plan.wanted:
        data = _read(store, key)
        write_atomically(shelf / f"{key}.safetensors", data)
        task = plan.tasks[key]
        fresh[key] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "title": task.title,
            "params": task.params,
            "bytes": len(data),
            "suite": plan.suite.name,
        }
    _write_manifest(shelf, plan.suite.name, fresh)
    return [shelf / f"{key}.safetensors" for key in fresh]


def _read(store: Store, key: Key) -> bytes:
    artifact = store.get(key)
    if artifact is None:
        raise StoreError(f"zoo: prior {key[:12]} is gone from the store. Build again.")
    data: bytes = save(artifact.tensors)
    return data


def _write_manifest(folder: Path, suite: str, fresh: dict[Key, dict[str, object]]) -> None:
    zoo.manifest.cache_clear()
    before = zoo.manifest(folder)
    stale = [key for key, entry in before.items() if entry.get("suite") == suite and key not in fresh]
    kept = {key: entry for key, entry in before.items() if key not in stale}
    text = json.dumps(dict(sorted({**kept, **fresh}.items())), indent=1, sort_keys=True)
    write_atomically(folder / "manifest.json", f"{text}\n".encode())
    for key in stale:
        (folder / f"{key}.safetensors").unlink(missing_ok=True)
    zoo.manifest.cache_clear()
