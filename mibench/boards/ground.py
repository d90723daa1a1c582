"""The ground that an entry was measured on: data, nets, judges, metrics, targets; nothing that is submitted.

To recompute numbers no submitted plugin is needed, and none is loaded: another attack and no defense stand in
for what the bundle brings, and the tasks of judges and data do not depend on either.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mibench.boards.strict import digest
from mibench.data.source import PARTS
from mibench.data.synthetic import SynthFacesData
from mibench.errors import BoardError, MibenchError
from mibench.graph import Graph, plugin_json
from mibench.key import Key
from mibench.plan import Plan, build_plan
from mibench.registry import get_attack, get_defense, plugin_names
from mibench.ruler import MEASURE_VERSION
from mibench.suite import Entry, Suite, parse_suite
from mibench.task import Task

STAND_IN = "nearest_public"  # a built-in attack that trains nothing, and whose name no flag depends on
BASELINE = "none"
RULERS = ("private", "public", "defender", "judge", "audit", "embedder")
"""Inputs of a measurement that no plugin has a part in."""
_PATHS = frozenset({"path", "split", "weights"})  # fields of a suite's tables that name files
_MOST_BYTES = 2**33  # of the images of a suite that somebody else wrote
_MOST_EPOCHS = 10_000


def ground_suite(tables: Mapping[str, Any], *, kind: str, where: str, split: Path | None) -> Suite:
    """The suite of a bundle without the submitted plugin, which another stands in for.

    Args:
        tables: of its `suite.toml`.
        kind: family of the plugin, `attack` or `defense`.
        where: what messages begin with.
        split: file of prepared faces in place of the data of the suite; None keeps them.

    Raises:
        BoardError: it names files, asks for too much, or cannot be read.
    """
    raw = {name: value for name, value in tables.items() if name not in {"crossed", "more"}}
    if split is not None:
        raw["data"] = {"kind": "prepared", "split": str(split.absolute())}
    named = next(_files(raw if split is None else {**raw, "data": {}}), "")
    if named:
        raise BoardError(
            f"{where}: names a file ('{named}'), and no path of others is followed. Give your suite with "
            "--suite, or for prepared faces your split with --split."
        )
    raw["defenses"] = {BASELINE: {}}
    entries = raw.get("attacks")
    if kind == "attack" or not isinstance(entries, Mapping):
        raw["attacks"] = {STAND_IN: {}}
    else:
        _check_built_in(entries, where)
    try:
        suite = parse_suite(raw, where=where)
    except (MibenchError, RecursionError, OverflowError, MemoryError) as error:
        raise BoardError(f"{error!s:.400}") from error
    _check_size(suite, where)
    return suite


def _check_built_in(entries: Mapping[str, Any], where: str) -> None:
    """BoardError where an attack of the suite is none of ours: its name would be looked for in files."""
    known = plugin_names("attacks")
    for label, table in entries.items():
        name = table.get("plugin", label) if isinstance(table, Mapping) else label
        if name not in known:
            raise BoardError(f"{where}: there is no attack {name!r:.60} here. Take attacks that mibench has.")


def _files(value: Any) -> Iterator[str]:  # noqa: ANN401 - a part of a suite's tables
    """Fields that name files, and are not empty."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            if name in _PATHS and isinstance(part, str) and part:
                yield str(name)
            yield from _files(part)
    elif isinstance(value, list):
        for part in value:
            yield from _files(part)


def _check_size(suite: Suite, where: str) -> None:
    """BoardError where a suite of somebody else asks for more than any benchmark needs."""
    data = suite.data
    if isinstance(data, SynthFacesData):
        images = (
            data.private * (data.private_images + data.test_images)
            + data.public * data.public_images
            + data.defender * data.defender_images
        )
        count = images * data.channels * data.size**2
        if count > _MOST_BYTES:
            raise BoardError(f"{where}: asks for {count:,} bytes of images; {_MOST_BYTES:,} may be.")
    for name in ("judge", "audit", "embedder"):
        net = getattr(suite, name)
        if net is not None and not (net.recipe.epochs <= _MOST_EPOCHS and math.isfinite(net.recipe.lr)):
            raise BoardError(f"{where}: {name} asks for {net.recipe.epochs:,} epochs. Lower them.")


def ruler_plan(suite: Suite) -> tuple[Plan, dict[str, Key], Task]:
    """The tasks that judge a suite's reconstructions, none of which attacks or defends.

    Returns:
        The plan; the keys of what they give, by role; and the task that measures the cell that stands in.

    Raises:
        MibenchError: the data or a weights file cannot be read.
    """
    plan = build_plan(stand_in(suite))
    measure = plan.tasks[plan.cells[0].measure]
    keys = {role: measure.inputs[role] for role in RULERS if role in measure.inputs}
    return dataclasses.replace(plan, cells=(), wanted=tuple(keys.values())), keys, measure


def stand_in(suite: Suite) -> Suite:
    """A suite on the same ground with one cell: the attack that stands in, against no defense."""
    return dataclasses.replace(
        suite,
        attacks=(Entry(STAND_IN, get_attack(STAND_IN)()),),
        defenses=(Entry(BASELINE, get_defense(BASELINE)()),),
        crossed=None,
        seeds=suite.seeds[:1],
    )


def ground_digest(suite: Suite) -> str:
    """SHA-256 of all that decides numbers beside attacks and defenses; no name, path or seed is in it.

    Raises:
        MibenchError: the data or a weights file cannot be read.
    """
    graph = Graph(suite)
    choices = {name: getattr(suite, name) for name in ("victim", "judge", "audit", "embedder", "public_net")}
    data = suite.data
    return digest(
        {
            "measure": MEASURE_VERSION,
            "data": [graph.data(part) for part in PARTS],
            "nets": {
                name: [_net_json(name, choice, suite), choice.min_accuracy]
                for name, choice in choices.items()
                if choice is not None
            },
            "metrics": [plugin_json(metric) for metric in suite.metrics],
            "targets": dataclasses.asdict(suite.targets),
            "limits": dataclasses.asdict(suite.limits),
            "people": data.private,
        }
    )


def _net_json(name: str, choice: Any, suite: Suite) -> dict[str, Any]:  # noqa: ANN401 - a choice of either kind
    if name == "embedder":
        params: dict[str, Any] = choice.task_params(suite.data, suite.data.defender)
        return params
    people = suite.data.defender if name == "public_net" else suite.data.private
    found: dict[str, Any] = choice.params(suite.data, people)
    return found
