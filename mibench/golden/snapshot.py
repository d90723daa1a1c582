"""What a run gave, small enough to commit: a digest of every artifact, a few of its numbers, every cell."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mibench.key import Key, canonical
from mibench.plan import Plan
from mibench.record import Json, Record, finite
from mibench.store import Artifact, Store

PROBES = 32  # numbers kept of all tensors of one kind in an artifact
_DIGITS = 7  # significant ones of a float32
_LIBRARIES = ("numpy", "scipy", "torchvision", "opacus")


@dataclass(frozen=True)
class Print:
    """What is kept of one artifact.

    Args:
        stage: of the task.
        title: of the task.
        key: of the task; equal keys ask for equal results.
        digest: SHA-256 over names, types, shapes and bytes of its tensors and over its JSON values.
        kinds: by type of number (`float32`, `uint8`, ...): `count` of numbers and `probes`, some of them
            evenly spaced over all tensors of that type in the order of their names.
        accuracy: of a trained net on test images, in [0, 1]; None where there is none.
    """

    stage: str
    title: str
    key: Key
    digest: str
    kinds: Json
    accuracy: float | None


@dataclass(frozen=True)
class Outcome:
    """One cell: which, how it ended, what was measured, hits of protected images, keys of its inversions."""

    name: str
    status: str
    estimates: Json
    hits: Json
    inverts: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """All of a run.

    Args:
        made: where, see `here`.
        prints: one an artifact, in plan order.
        cells: one a cell, in plan order.
        percent: names of the metrics that are fractions of images.
    """

    made: Json
    prints: tuple[Print, ...]
    cells: tuple[Outcome, ...]
    percent: tuple[str, ...]

    def to_json(self) -> Json:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Json) -> Snapshot:
        """From JSON values; KeyError or TypeError where they are of another shape."""
        return cls(
            made=dict(content["made"]),
            prints=tuple(Print(**one) for one in content["prints"]),
            cells=tuple(Outcome(**{**one, "inverts": tuple(one["inverts"])}) for one in content["cells"]),
            percent=tuple(content["percent"]),
        )


def here() -> Json:
    """All that the bits of a result on this machine's CPU hang on, as far as it is known.

    `capability` is what torch chose its kernels by. The CPU's model is told too, because libraries below
    torch choose theirs by makers and caches.
    """
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "torch": torch.__version__,
        **{name: version(name) for name in _LIBRARIES},
    }


def snapshot(plan: Plan, store: Store, records: Sequence[Record]) -> Snapshot:
    """What the tasks of a plan left in a store, and the records of its cells."""
    prints = [
        _print(key, artifact)
        for key in plan.tasks
        if (artifact := store.get(key)) is not None  # a failed task leaves none, and is told by its cells
    ]
    cells = [
        Outcome(
            name=f"{one.attack['label']} on {one.defense['label']}, {one.view}, seed {one.seed}",
            status=one.status,
            estimates=cast(Json, finite(one.estimates)),
            hits=one.hits,
            inverts=tuple(str(model["invert"]) for model in one.keys.get("models", ())),
        )
        for one in records
    ]
    infos = {name: info for one in records for name, info in one.metric_info.items()}
    percent = sorted(name for name, info in infos.items() if info["percent"])
    return Snapshot(here(), tuple(prints), tuple(cells), tuple(percent))


def _print(key: Key, artifact: Artifact) -> Print:
    value = {name: part for name, part in artifact.value.items() if name != "provenance"}
    accuracy = value.get("accuracy")
    return Print(
        stage=str(artifact.task["stage"]),
        title=str(artifact.task["title"]),
        key=key,
        digest=_digest(artifact.tensors, value),
        kinds=_kinds(artifact.tensors),
        accuracy=float(accuracy) if isinstance(accuracy, int | float) else None,
    )


def _digest(tensors: Mapping[str, Tensor], value: Json) -> str:
    """SHA-256 of an artifact's content, whatever file format it is stored in."""
    digest = hashlib.sha256(canonical(finite(value)).encode())
    for name in sorted(tensors):
        one = tensors[name].detach().cpu().contiguous()
        digest.update(canonical([name, str(one.dtype), list(one.shape)]).encode())
        digest.update(one.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _kinds(tensors: Mapping[str, Tensor]) -> Json:
    """Count and probes of all numbers, by their type."""
    flat: dict[str, list[Tensor]] = {}
    for name in sorted(tensors):
        kind = str(tensors[name].dtype).removeprefix("torch.")
        flat.setdefault(kind, []).append(tensors[name].detach().cpu().flatten())
    return {kind: _probed(torch.cat(parts)) for kind, parts in flat.items()}


def _probed(numbers: Tensor) -> Json:
    count = len(numbers)
    taken = min(PROBES, count)
    places = [i * (count - 1) // max(taken - 1, 1) for i in range(taken)]
    return {"count": count, "probes": [_short(float(one)) for one in numbers[places]]}


def _short(value: float) -> float | None:
    """The number in so many digits as a float32 has; None where JSON has no word for it."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _cpu_model() -> str:
    """The maker's name of the CPU with its family and model, or what the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    facts: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())  # the first core's
    if "model name" not in facts:
        return platform.processor()
    return f"{facts['model name']}, family {facts.get('cpu family', '?')}, model {facts.get('model', '?')}"


def as_probes(kind: Mapping[str, Any]) -> list[float]:
    """The probes as floats, NaN for what was not finite."""
    return [math.nan if one is None else float(one) for one in kind["probes"]]
