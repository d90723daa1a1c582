"""From a plan and what its tasks gave to records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch

from mibench.attack import Attack
from mibench.audit import control_flags, judge_flags
from mibench.compose import parts_of
from mibench.data.source import PARTS
from mibench.defense import Defense
from mibench.flags import masking_flags
from mibench.key import canonical
from mibench.plan import Plan
from mibench.prior import PriorSpec
from mibench.provenance import provenance
from mibench.record import Json, Record, Status
from mibench.store import Artifact
from mibench.suite import Entry, Suite
from mibench.task import Cell
from mibench.victim import LabelVictim

_FAKES = ("fake_confidence_private", "fake_confidence_public")  # notes of the NetGuard family
_LEAST_CONFIDENCE = 0.5  # below it the label is, on average, not what the classifier sees in the fakes
_SCRUTINY = ("restarts", "rise", "silent_gradients", "second_hits")  # the last only with a second opinion


@dataclass(frozen=True)
class Failure:
    """Why a task gave nothing.

    Args:
        stage: of the task.
        type: class name of the exception.
        message: its text, after the notes that were left on it.
        trace: the traceback, for people; on no record.
    """

    stage: str
    type: str
    message: str
    trace: str = ""

    def to_json(self) -> Json:
        """Stage, type and message."""
        return {"stage": self.stage, "type": self.type, "message": self.message}


def measured_record(plan: Plan, cell: Cell, artifact: Artifact) -> Record:
    """The record of a cell that was measured."""
    value = artifact.value
    suite = plan.suite
    judge = {
        **_judge(suite),
        "accuracy": value["judge_accuracy"],
        "audit_accuracy": value["audit_accuracy"],
    }
    if value.get("embedder_accuracy") is not None:  # no metric asks for it, or the measurement is older
        judge["embedder_accuracy"] = value["embedder_accuracy"]
    return _record(
        plan,
        cell,
        status="ok",
        judge=judge,
        estimates=value["estimates"],
        metric_info={
            m.name: {"title": m.title, "better": m.better, "percent": m.percent} for m in suite.metrics
        },
        queries=value["queries"],
        notes=value["notes"],
        hits=value["scrutiny"]["hits"],
        effort=tuple(value["scrutiny"]["effort"]),
        scrutiny={name: value["scrutiny"][name] for name in _SCRUTINY if name in value["scrutiny"]},
        flags=(
            *_flags(suite, judge, value["notes"]),
            *masking_flags(value["scrutiny"]),
            *_audit_flags(suite, cell, judge, value),
        ),
        provenance={**value["provenance"], **_weights_json(plan)},
    )


def failed_record(plan: Plan, cell: Cell, failure: Failure, device: torch.device) -> Record:
    """The record of a cell that gave no numbers: failed, or blocked where it makes no sense."""
    status: Status = "blocked" if failure.type == "BlockedError" else "failed"
    return _record(
        plan,
        cell,
        status=status,
        error=failure.to_json(),
        judge=_judge(plan.suite),
        provenance={**provenance(device), **_weights_json(plan)},
    )


def _record(plan: Plan, cell: Cell, **found: Any) -> Record:  # noqa: ANN401 - fields of Record, checked there
    suite = plan.suite
    attacked = sorted({label for model in cell.models for label in model.targets})
    return Record(
        suite=suite.name,
        cell=cell.id,
        attack={**_attack_json(cell.attack), "params": _told(plan, cell)},
        defense=_defense_json(cell.defense),
        view=cell.view,
        seed=cell.seed,
        data=_data_json(suite),
        victim_net=suite.victim.net,
        chance=1 / suite.data.private,
        targets={
            "protected": list(cell.protected),
            "bystanders": [label for label in attacked if label not in cell.protected],
            "attacked": attacked,
            "images": suite.targets.images,
        },
        keys={"measure": cell.measure, "models": [model.to_json() for model in cell.models]},
        **found,
    )


def _told(plan: Plan, cell: Cell) -> Json:
    """The fields of a cell's attack; of a user's file the digest that the cell was planned with."""
    plugin = cell.attack.plugin
    if not cell.models:
        return plugin.told_params()
    planned = plan.tasks[cell.models[0].invert].params["attack"]
    ready = [name for name, part in plugin.spelled().items() if isinstance(part, PriorSpec) and part.is_ready]
    return {**plugin.params(), **{name: planned[name] for name in ready}}


def _attack_json(entry: Entry[Attack[Any]]) -> Json:
    plugin = entry.plugin
    access: type[LabelVictim] = plugin.needed_access
    return {**_plugin_json(entry), "access": access.level, "control": plugin.control}


def _defense_json(entry: Entry[Defense]) -> Json:
    plugin = entry.plugin
    parts = [{"name": one.name, "version": one.version} for one in parts_of(plugin)]
    return {
        **_plugin_json(entry),
        "acts": plugin.acts,
        "knows": sorted(plugin.knows),
        "per_target": plugin.per_target,
        **({"parts": parts} if len(parts) > 1 else {}),
        "strength": plugin.strength,
    }


def _plugin_json(entry: Entry[Any]) -> Json:
    plugin = entry.plugin
    return {
        "label": entry.label,
        "name": plugin.name,
        "version": plugin.version,
        "params": plugin.params(),
        "title": plugin.card.title,
        "year": plugin.card.year,
    }


def _data_json(suite: Suite) -> Json:
    """The split in figures; its digest covers all parts, also those that this plan does not read."""
    data = suite.data
    parts = {part: data.part_params(part) for part in PARTS}
    fields = {name: value for params in parts.values() for name, value in params.items()}
    content = {"kind": data.kind, "version": data.version, "parts": parts}
    return {
        "kind": data.kind,
        "params": {name: value for name, value in fields.items() if name not in {"part", "digest"}},
        "num_classes": data.private,
        "size": [data.channels, data.size, data.size],
        "digest": hashlib.sha256(canonical(content).encode()).hexdigest(),
        **data.told(),
    }


def _weights_json(plan: Plan) -> Json:
    """SHA-256 of each weights file that a net of the suite starts from or is, by the net's table."""
    return {"weights": plan.weights} if plan.weights else {}


def _judge(suite: Suite) -> Json:
    return {
        "net": suite.judge.net,
        "accuracy": None,
        "gate": suite.judge.min_accuracy,
        "audit_net": None if suite.audit is None else suite.audit.net,
        "audit_accuracy": None,
        **({} if suite.embedder is None else {"embedder_net": suite.embedder.net, "embedder_accuracy": None}),
    }


def _flags(suite: Suite, judge: Json, notes: Json) -> tuple[str, ...]:
    """Reasons to read the numbers with care."""
    flags = []
    if judge["accuracy"] < suite.judge.min_accuracy:
        flags.append("judge_below_gate")
    if suite.audit is not None and judge["audit_accuracy"] < suite.audit.min_accuracy:
        flags.append("audit_below_gate")
    space = judge.get("embedder_accuracy")
    if suite.embedder is not None and space is not None and space < suite.embedder.min_accuracy:
        flags.append("embedder_below_gate")
    if suite.judge.net == suite.victim.net:
        flags.append("judge_has_the_victims_architecture")
    if any(_least(notes.get(name)) < _LEAST_CONFIDENCE for name in _FAKES):
        flags.append("fakes_missed_label")
    return tuple(flags)


def _audit_flags(suite: Suite, cell: Cell, judge: Json, value: Json) -> tuple[str, ...]:
    """Signs that the judge accepts images that show nobody."""
    seconds, hits = value["scrutiny"].get("second_hits", {}), value["scrutiny"]["hits"]
    accuracies = {name: judge[f"{name}_accuracy"] for name in seconds}
    return (
        *judge_flags(hits, seconds, accuracies),
        *control_flags(_attack_json(cell.attack), value["estimates"], hits, 1 / suite.data.private),
    )


def _least(note: object) -> float:
    """The smallest number of a note, which is one value or a list over the models; 1 where it has none."""
    values = note if isinstance(note, list) else [note]
    return min((value for value in values if isinstance(value, int | float)), default=1.0)
