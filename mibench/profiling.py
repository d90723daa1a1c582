"""Where the time of a suite goes: seconds measured, operations counted, and what the device could have done.

Seconds are those of the run that made an artifact. Operations are counted, and waiting is watched, in later
passes over one task of each kind, whose results are dropped: both take time by themselves. A count stays
beside its artifact. The model FLOP utilization (MFU) of tasks is the time that the device would need for
their operations at its peaks, each precision at its own, over the time that they took: of the wall on CUDA,
of the process on a CPU.
Source of the word: Chowdhery et al., PaLM, 2022 (arXiv:2204.02311), section 4.1; there for one precision.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mibench.counting import FlopCounter
from mibench.errors import ProfileError
from mibench.idleness import Idle, Progress, watched
from mibench.key import Key
from mibench.kinds import Kinds
from mibench.peaks import Peak, peaks_of
from mibench.plan import Plan
from mibench.provenance import provenance
from mibench.stages import execute
from mibench.store import Store
from mibench.task import Task
from mibench.worker import steady
from mibench.workload import work_of

SCHEMA = 1
_FLOPS = "flops_"  # begins the names of counts beside an artifact, which a precision ends
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Spent:
    """What a task took.

    Args:
        task: which.
        cost: as it lies in the store.
        flops: operations by precision; None where no task of its kind could be counted.
        work: see `mibench.workload`, in multiply-adds.
    """

    task: Task
    cost: Mapping[str, Any]
    flops: Mapping[str, float] | None
    work: float


@dataclass
class Profile:
    """A profile as JSON values; see docs/gpu.md for what its fields mean.

    Args:
        suite: its name.
        machine: versions and device.
        peaks: of the device by precision: operations a second, and where that is from.
        stages: a row for each stage.
        plugins: a row for each plugin of each stage.
        total: one row.
        idle: for each stage, and the plugin of it that took longest, the share of time the device waits.
        missing: tasks without seconds on this device: never run, or taken from the zoo.
    """

    suite: str
    machine: dict[str, Any]
    peaks: dict[str, dict[str, Any]]
    stages: list[dict[str, Any]]
    plugins: list[dict[str, Any]]
    total: dict[str, Any]
    idle: list[dict[str, Any]] = field(default_factory=list)
    missing: int = 0
    schema: int = SCHEMA


def profile_of(
    plan: Plan, store: Store, *, device: torch.device, is_traced: bool = False, tell: Tell = lambda _: None
) -> Profile:
    """The profile of a plan whose artifacts lie in a store.

    Args:
        plan: what was run.
        store: where artifacts and costs lie; counts are left there.
        device: where the tasks ran, and are counted.
        is_traced: whether to watch one task of each stage for how long the device waits.
        tell: told in a line what is being counted or watched.

    Raises:
        ProfileError: no task of the plan has seconds on this device.
        StoreError: the store cannot be read or written.
    """
    costs = {key: store.cost(key) for key in plan.tasks}
    ran = {key: cost for key, cost in costs.items() if cost.get("device") == device.type}
    if not ran:
        raise ProfileError(
            f"profile {plan.suite.name}: no task of it has run on device '{device.type}' in store "
            f"{store.root}. Leave --no-run out."
        )
    counts = _counts(plan, store, ran, device, tell)
    kinds = Kinds(plan.tasks)
    spent = [
        Spent(task, ran[key], counts.get(kinds.of(key)), _work(plan, task))
        for key, task in plan.tasks.items()
        if key in ran
    ]
    peaks = peaks_of(device)
    return Profile(
        suite=plan.suite.name,
        machine=provenance(device),
        peaks={name: {"flops_per_s": one.flops_per_s, "source": one.source} for name, one in peaks.items()},
        stages=_rows(spent, peaks, lambda one: (one.task.stage,)),
        plugins=_rows(spent, peaks, lambda one: (one.task.stage, one.task.plugin)),
        total=_row(spent, peaks),
        idle=_idle(plan, store, spent, device, tell) if is_traced else [],
        missing=len(plan.tasks) - len(ran),
    )


def run_again(task: Task, store: Store, device: torch.device, report: Progress | None = None) -> None:
    """Do a task whose inputs lie in the store as a worker does it, and drop its result."""
    with steady(device), tempfile.TemporaryDirectory() as folder:
        execute(task, store, device=device, scratch=Path(folder), on_progress=report)


def count(task: Task, store: Store, device: torch.device) -> dict[str, float]:
    """The operations of a task by precision; its inputs must lie in the store."""
    with FlopCounter() as counter:
        run_again(task, store, device)
    return {name: float(flops) for name, flops in counter.flops.items()}


def _counts(
    plan: Plan, store: Store, ran: Mapping[Key, dict[str, Any]], device: torch.device, tell: Tell
) -> dict[str, Mapping[str, float]]:
    """The operations of each kind of task: those that lie beside a task of it, or counted now."""
    kinds, members = Kinds(plan.tasks), defaultdict[str, list[Key]](list)
    for key in ran:
        members[kinds.of(key)].append(key)
    found: dict[str, Mapping[str, float]] = {}
    for kind, keys in members.items():
        known = next((ran[key] for key in keys if ran[key].get("is_counted")), None)
        if known is None:
            # the inputs of a task may be gone from a store that was thinned out
            one = next((key for key in keys if _is_there(plan.tasks[key], store)), None)
            if one is None:
                continue
            tell(f"count {plan.tasks[one].title}")
            own = count(plan.tasks[one], store, device)
            known = {**ran[one], "is_counted": 1.0, **{f"{_FLOPS}{name}": n for name, n in own.items()}}
            store.put_cost(one, known)
        found[kind] = {
            name.removeprefix(_FLOPS): value for name, value in known.items() if name.startswith(_FLOPS)
        }
    return found


def _is_there(task: Task, store: Store) -> bool:
    return all(store.contains(key) for key in task.inputs.values())


def _work(plan: Plan, task: Task) -> float:
    return work_of(task.description(), lambda key: plan.tasks[key].description()) or 0.0


def _rows(
    spent: Sequence[Spent], peaks: Mapping[str, Peak], by: Callable[[Spent], tuple[str, ...]]
) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Spent]] = defaultdict(list)
    for one in spent:
        groups[by(one)].append(one)
    rows = [
        {**dict(zip(("stage", "plugin"), names)), **_row(group, peaks)} for names, group in groups.items()
    ]
    return sorted(rows, key=lambda row: -row["wall_s"])


def _row(spent: Sequence[Spent], peaks: Mapping[str, Peak]) -> dict[str, Any]:
    """Sums over tasks; rates and MFU are over those that are counted."""
    counted = [one for one in spent if one.flops is not None]
    flops: Counter[str] = Counter()
    for one in counted:
        flops.update(one.flops or {})
    counted_s = sum(map(_device_s, counted))
    cpu = [one.cost["cpu_s"] for one in spent if "cpu_s" in one.cost]
    return {
        "tasks": len(spent),
        "counted": len(counted),
        "wall_s": sum(one.cost["wall_s"] for one in spent),
        "cpu_s": sum(cpu) if len(cpu) == len(spent) else None,
        "peak_mib": max(one.cost.get("peak_mib", 0.0) for one in spent),
        "work": sum(one.work for one in counted),
        "flops": flops.total(),
        "flops_by_precision": dict(sorted(flops.items())),
        "flops_per_s": flops.total() / counted_s if counted_s else None,
        "mfu": at_peak_s(flops, peaks) / counted_s if counted_s else None,
    }


def _device_s(spent: Spent) -> float:
    """Seconds of the device: on a CPU of this process alone, since others may be at work beside it."""
    wall_s: float = spent.cost["wall_s"]
    return wall_s if spent.cost["device"] == "cuda" else float(spent.cost.get("cpu_s", wall_s))


def at_peak_s(flops: Mapping[str, float], peaks: Mapping[str, Peak]) -> float:
    """Seconds for operations, each precision at its peak; one without a peak at that of float32."""
    return sum(n / peaks.get(name, peaks["float32"]).flops_per_s for name, n in flops.items())


def _idle(
    plan: Plan, store: Store, spent: Iterable[Spent], device: torch.device, tell: Tell
) -> list[dict[str, Any]]:
    """Of each stage the plugin that took longest, and of that the longest task whose inputs are there."""
    groups: dict[str, dict[str, list[Spent]]] = defaultdict(lambda: defaultdict(list))
    for one in spent:
        if _is_there(one.task, store):
            groups[one.task.stage][one.task.plugin].append(one)
    rows = []
    for stage, plugins in groups.items():
        longest = max(plugins.values(), key=lambda some: sum(one.cost["wall_s"] for one in some))
        task = max(longest, key=lambda one: float(one.cost["wall_s"])).task
        tell(f"watch {task.title}")
        seen = _watch(task, store, device)
        if seen is not None:
            row = {"stage": stage, "plugin": task.plugin, "title": task.title}
            rows.append({**row, "idle": seen.share, "window_s": seen.window_s})
    return rows


def _watch(task: Task, store: Store, device: torch.device) -> Idle | None:
    return watched(lambda report: run_again(task, store, device, report), device)
