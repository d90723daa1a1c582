"""The numbers of a submitted cell, measured again from its reconstructions by our own judges.

The measuring code is that of a run. What only the attacked model can tell (queries, notes such as a spent
epsilon, the share of silent gradients) is taken over as it was said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.boards.bundle import Bundle
from mibench.boards.ground import BASELINE, ruler_plan
from mibench.boards.tensors import Attacked as Model
from mibench.boards.tensors import read_cell
from mibench.data.split import dequantize
from mibench.errors import BoardError, StoreError
from mibench.key import Key
from mibench.metric import ProtectedVictim
from mibench.plan import Plan
from mibench.plugin import Context
from mibench.precision import exact
from mibench.record import Record
from mibench.recording import measured_record
from mibench.registry import get_defense
from mibench.runner import Event, OnEvent, TaskFailed, ignore, run
from mibench.stages.measuring import case_of, estimates_of
from mibench.stages.scrutiny import Attacked, scrutiny
from mibench.stages.work import Work
from mibench.store import Artifact, Store
from mibench.suite import Entry, Suite
from mibench.task import Cell, Task
from mibench.victim import LabelVictim

JUDGES = ("judge", "audit", "embedder")


@dataclass(frozen=True)
class Rulers:
    """What judges the reconstructions of a suite; nobody's plugin has a part in it.

    Args:
        suite: without what is submitted.
        plan: its tasks.
        keys: of their artifacts, by role.
        measure: the task that measures, of the cell that stands in.
        store: where the artifacts lie.
        device: where to compute.
    """

    suite: Suite
    plan: Plan
    keys: Mapping[str, Key]
    measure: Task
    store: Store
    device: torch.device

    def artifact(self, role: str) -> Artifact:
        """An artifact by its role; StoreError where it is gone."""
        found = self.store.get(self.keys[role])
        if found is None:
            raise StoreError(f"store: what it held of '{role}' is gone. Verify again.")
        return found

    def digests(self) -> dict[str, str]:
        """By role of the nets SHA-256 of their tensors: the numbers of equal ones must be equal."""
        return {role: tensors_digest(self.artifact(role).tensors) for role in JUDGES if role in self.keys}


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in hexadecimal."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        own = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {own.dtype} {list(own.shape)}\n".encode())
        found.update(own.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def make_rulers(
    suite: Suite, store: Store, *, device: torch.device, jobs: int = 1, on_event: OnEvent = ignore
) -> Rulers:
    """Data, judges and the space of faces of a suite: taken from the store, or made and put there.

    Raises:
        BoardError: a task failed.
        MibenchError: data, a weights file, the store or the device cannot be used.
    """
    plan, keys, task = ruler_plan(suite)
    failed: list[TaskFailed] = []

    def watch(event: Event) -> None:
        if isinstance(event, TaskFailed):
            failed.append(event)
        on_event(event)

    run(plan, store, jobs=jobs, device=device, on_event=watch)
    if failed:
        first = failed[0]
        raise BoardError(
            f"suite {suite.name}: '{first.task.title}' failed ({first.failure.type}: "
            f"{first.failure.message!s:.200}). Give a suite that runs."
        )
    return Rulers(suite, plan, keys, task, store, device)


@dataclass(frozen=True)
class _Measured:
    """One model of a cell as `mibench.stages.measuring` asks for it."""

    got: Reconstructions
    protected: Tensor
    victim: ProtectedVictim
    goal: str


def recomputed(bundle: Bundle, record: Record, rulers: Rulers) -> Record:
    """The record of a cell as our judges and our code see its reconstructions.

    Args:
        bundle: that brings the cell.
        record: as it was submitted.
        rulers: of its suite.

    Raises:
        BoardError: its files are not what the suite asks for, or a metric asks the attacked model.
    """
    private, defender = rulers.artifact("private"), rulers.artifact("defender")
    models = read_cell(
        bundle,
        record,
        rulers.suite,
        tests=len(private.tensors["test_labels"]),
        publics=len(defender.tensors["train_labels"]),
    )
    task = dataclasses.replace(
        rulers.measure,
        inputs=dict(rulers.keys),
        params={**rulers.measure.params, "protects": [list(model.protects) for model in models]},
        seed=record.seed,
    )
    goal = bundle.manifest.cells[record.cell].goal
    with tempfile.TemporaryDirectory(prefix="mibench-") as scratch, exact(rulers.device):
        ctx = Context(
            seed=task.task_seed,
            device=rulers.device,
            scratch=Path(scratch),
            max_batch=int(task.locator["max_batch"]),
        )
        work = Work(task, rulers.store, ctx)
        parts = [_measured(model, record, i, goal, rulers) for i, model in enumerate(models)]
        case, accuracies = case_of(work, parts)
        estimates = estimates_of(work, case)
        attacked = [Attacked(None, rulers.device, model.tensors) for model in models]
        looked = scrutiny(case, attacked, ctx.child("scrutiny"))
    looked["silent_gradients"] = record.scrutiny.get("silent_gradients")
    value = {
        "estimates": estimates,
        "queries": record.queries,
        "notes": record.notes,
        "scrutiny": looked,
        **accuracies,
        "provenance": record.provenance,
    }
    return _as_record(record, value, rulers)


def _as_record(record: Record, value: dict[str, Any], rulers: Rulers) -> Record:
    """The record of measured values, with what it says of the submitted plugin taken over."""
    suite = rulers.suite
    attack = _attack_of(record, suite)
    cell = Cell(
        attack=attack,
        defense=Entry(BASELINE, get_defense(BASELINE)()),
        view=record.view,
        seed=record.seed,
        protected=tuple(record.targets["protected"]),
    )
    made = measured_record(rulers.plan, cell, Artifact({}, value))
    return dataclasses.replace(
        made,
        suite=record.suite,
        cell=record.cell,
        attack=made.attack if attack.label == record.attack["label"] else record.attack,
        defense=record.defense,
        targets=record.targets,
        keys=record.keys,
    )


def _attack_of(record: Record, suite: Suite) -> Entry[Attack[Any]]:
    """The attack of a record in its suite; the one that stands in where it is the submitted one."""
    found = [one for one in suite.attacks if one.label == record.attack["label"]]
    return found[0] if found else suite.attacks[0]


def _measured(model: Model, record: Record, index: int, goal: str, rulers: Rulers) -> _Measured:
    pixels, targets = model.tensors["images"], model.tensors["targets"]
    data = rulers.suite.data
    decoy = _decoy(record, index)
    victim = LabelVictim(
        _not_there,
        shape=(data.channels, data.size, data.size),
        num_classes=data.private,
        device=rulers.device,
    )
    return _Measured(
        got=Reconstructions(dequantize(pixels), targets, model.tensors["confidence"]),
        protected=torch.isin(targets, torch.tensor(model.protects)),
        victim=ProtectedVictim(
            victim,
            model.protects,
            decoy,
            test_answers=model.answers["test"],
            public_answers=model.answers.get("public"),
        ),
        goal=goal,
    )


def _decoy(record: Record, index: int) -> int | None:
    """The decoy that the notes name for a model; notes of several models are lists."""
    said = record.notes.get("decoy")
    if isinstance(said, list):
        said = said[index] if index < len(said) else None
    return int(said) if isinstance(said, int | float) else None


def _not_there(_images: Tensor) -> Tensor:
    raise BoardError(
        "a metric of the suite asks the attacked model, which a bundle does not hold. Verify with --rerun."
    )
