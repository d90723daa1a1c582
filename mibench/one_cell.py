"""A suite of one cell as a TOML file: the same tasks under the same keys, without any other cell.

Whoever holds one cell of somebody's results can run it from this file alone, whatever the suite was that it
comes from: built in, a file, narrowed by the command line, a sweep.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mibench.attack import Attack
from mibench.compose import Composition, parts_of
from mibench.data.folder import FolderData
from mibench.data.prepared_source import PreparedData
from mibench.errors import MibenchError, SuiteError
from mibench.net_choice import NetChoice
from mibench.plan import Plan, build_plan
from mibench.plugin import Plugin
from mibench.suite import Entry, Suite, parse_suite
from mibench.task import Cell
from mibench.victim import WhiteBoxVictim

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_WRITTEN = frozenset(
    {"name", "data", "attacks", "defenses", "metrics", "seeds", "share_priors", "prior_seed", "white_box",
     "crossed", "more"}
)  # fmt: skip
_FAMILIES = ("metric", "attacks", "defenses")
_NETS = ("victim", "judge", "audit", "public_net", "embedder")
_PATHS = frozenset({"path", "split", "weights"})  # fields of tables that name files
_MOST_UP = 4  # from RESULTS/SUITE/cells/CELL to the folder that RESULTS lies in
_HEAD = """\
# One cell of suite {suite}: {attack} against {defense}, {view} view, seed {seed}.
# All settings are written out, so that the file needs no other; the keys of its tasks are those of the cell.
"""
_SPLIT = """\
# The images of people are not part of the results. Let `split` in [data] name your split file, or give it by
# `mibench run cell.toml --split FILE`.
"""
_FOLDER = """\
# The images of people are not part of the results. Let `path` in [data] name your copy, whose digest is
# {digest}.
"""


def cell_suite(plan: Plan, cell: Cell, folder: Path) -> str:
    """The text of a suite file that plans this cell alone, under the same keys.

    Args:
        plan: that the cell is of.
        cell: to write down.
        folder: where the file will lie; paths of images and weights are as `_beside` tells them.

    Raises:
        SuiteError: a setting cannot be written as TOML.
    """
    suite = plan.suite
    attack = next(one for one in suite.attacks if one.label == cell.attack.label)  # before it met the defense
    head: dict[str, Any] = {
        "name": f"{suite.name}-{cell.id}",
        "seeds": [cell.seed],
        "metrics": [metric.name for metric in suite.metrics],
    }
    if suite.seed_of_priors(cell.seed) != cell.seed:
        head["prior_seed"] = suite.seed_of_priors(cell.seed)
    if issubclass(attack.plugin.needed_access, WhiteBoxVictim):
        head["white_box"] = [cell.view]
    tables = {
        "data": _located({"kind": suite.data.kind, **dataclasses.asdict(suite.data)}, folder),
        **{
            one.name: _located(_table(value), folder)
            for one in dataclasses.fields(Suite)
            if one.name not in _WRITTEN and (value := getattr(suite, one.name)) is not None
        },
    }
    text = _HEAD.format(
        suite=_one_line(suite.name),
        attack=_one_line(cell.attack.label),
        defense=_one_line(cell.defense.label),
        view=cell.view,
        seed=cell.seed,
    )
    if isinstance(suite.data, PreparedData):
        text += _SPLIT
    if isinstance(suite.data, FolderData):
        digest = next(task.params["digest"] for task in plan.tasks.values() if task.stage == "data")
        text += _FOLDER.format(digest=digest)
    families = {
        "metric": {one.name: _located(one.params(), folder) for one in suite.metrics if one != type(one)()},
        "attacks": {
            name: {**table, **_parts(attack.plugin, folder)} for name, table in _entry(attack).items()
        },
        "defenses": _entry(cell.defense),
    }
    return text + toml_text({**head, **tables, **families}, where=suite.name)


def check_cell_suite(text: str, plan: Plan, cell: Cell, folder: Path) -> None:
    """Raise SuiteError unless the file plans exactly this cell, under the same keys.

    Args:
        text: of the suite file.
        plan: that the cell is of.
        cell: that the file should plan.
        folder: where the file will lie.
    """
    where = f"suite of cell {cell.id}"
    try:
        suite = parse_suite(tomllib.loads(text), where=where, folder=folder)
        found = build_plan(_with_files_of(suite, plan.suite), zoo=plan.zoo).cells
    except (MibenchError, ValueError) as error:
        raise SuiteError(f"{where}: cannot be read again ({error}). Run the whole suite instead.") from error
    if [(one.id, one.measure) for one in found] != [(cell.id, cell.measure)]:
        raise SuiteError(
            f"{where}: plans {[one.id for one in found]}. A setting is no value that a suite file can hold; "
            "run the whole suite instead."
        )


def _with_files_of(suite: Suite, original: Suite) -> Suite:
    """The suite with files named as the original names them: by other paths all would be read once more."""
    changes: dict[str, Any] = {
        "metrics": tuple(
            dataclasses.replace(one, **other.paths()) if type(one) is type(other) else one
            for one, other in zip(suite.metrics, original.metrics)
        )
    }
    if isinstance(suite.data, FolderData) and isinstance(original.data, FolderData):
        changes["data"] = dataclasses.replace(suite.data, path=original.data.path)
    if isinstance(suite.data, PreparedData) and isinstance(original.data, PreparedData):
        changes["data"] = dataclasses.replace(suite.data, split=original.data.split)
    known = {one.label: one.plugin for one in original.attacks}
    changes["attacks"] = tuple(
        dataclasses.replace(one, plugin=_with_parts_of(one.plugin, known.get(one.label, one.plugin)))
        for one in suite.attacks
    )
    for name in _NETS:
        net, other = getattr(suite, name), getattr(original, name)
        if net is not None and other is not None:
            changes[name] = dataclasses.replace(net, weights=other.weights)
    return dataclasses.replace(suite, **changes)


def _with_parts_of(attack: Attack[Any], other: Attack[Any]) -> Attack[Any]:
    """The attack with the files of another, where both have a prior of one kind."""
    found, wanted = attack.spelled(), other.spelled()
    changes: dict[str, Any] = {
        name: dataclasses.replace(part, weights=wanted[name].weights)  # type: ignore[type-var, attr-defined]  # a spec
        for name, part in found.items()
        if hasattr(part, "weights") and type(part) is type(wanted.get(name))
    }
    return dataclasses.replace(attack, **changes) if changes else attack


def plugin_files(plan: Plan, cell: Cell) -> dict[str, Path]:
    """The single-file plugins that a cell needs, by the path under which they lie beside its suite."""
    plugins: list[tuple[str, Plugin]] = [
        ("attacks", cell.attack.plugin),
        *(("defenses", part) for part in parts_of(cell.defense.plugin)),
        *(("metrics", metric) for metric in plan.suite.metrics),
    ]
    found = {}
    for family, plugin in plugins:
        source = inspect.getsourcefile(type(plugin))
        if source is not None and Path(source) in plan.plugin_files:
            found[f"{family}/{Path(source).name}"] = Path(source)
    return found


def toml_text(tables: Mapping[str, Any], *, where: str) -> str:
    """Values as TOML: plain ones first, then a section for each table, or for each table of plugins.

    None is left out, since TOML has none; whoever reads the text takes the default there.

    Raises:
        SuiteError: a value that TOML cannot carry, with `where`.

    >>> print(toml_text({"a": {"b": 1.5, "c": {"d": None, "e f": "x"}}, "n": [1, True]}, where="x"), end="")
    n = [1, true]
    <BLANKLINE>
    [a]
    b = 1.5
    c = { "e f" = "x" }
    """
    plain = {name: value for name, value in tables.items() if not isinstance(value, Mapping)}
    lines = _lines(plain, where)
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            continue
        if name in _FAMILIES:
            for label, values in table.items():
                lines += ["", f"[{name}.{_key(label)}]", *_lines(values, where)]
        else:
            lines += ["", f"[{_key(name)}]", *_lines(table, where)]
    return "\n".join(lines) + "\n"


def _table(part: Any) -> dict[str, Any]:  # noqa: ANN401 - a dataclass of the suite
    """A part of a suite as its table."""
    return part.table() if isinstance(part, NetChoice) else dataclasses.asdict(part)


def _parts(plugin: Plugin, folder: Path) -> dict[str, Any]:
    """The fields of a plugin that may name files, as a cell's folder may tell them."""
    return {name: _located(part.as_table(), folder) for name, part in plugin.spelled().items()}


def _entry(entry: Entry[Any]) -> dict[str, Any]:
    """A configured plugin as a table of its family."""
    plugin = entry.plugin
    params = plugin.params()
    if isinstance(plugin, Composition) and entry.label == plugin.name:
        return {entry.label: params}
    return {entry.label: params if entry.label == plugin.name else {"plugin": plugin.name, **params}}


def _located(table: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The table with its paths, where it has any, as a cell's folder may tell them."""
    return {
        name: _beside(str(value), folder) if name in _PATHS and value else value
        for name, value in table.items()
    }


def _beside(path: str, folder: Path) -> str:
    """A path relative to a cell's folder, where it lies beside the results; else `data/` and its last name.

    A way that leads further up, or down again from above the home folder, tells how a machine calls its users
    and disks. Cells are published; whoever repeats one has the files elsewhere anyway.
    """
    way = Path(os.path.relpath(path, folder))
    last = way.parts[-3:] if way.parent.name == "splits" else way.parts[-1:]
    home = Path(os.path.relpath(os.path.expanduser("~"), folder))  # noqa: PTH111 - Path's may raise
    is_under_home = _steps_up(home) > _MOST_UP or home.name == ".."
    if _steps_up(way) <= _MOST_UP and is_under_home:
        return way.as_posix()
    return Path("data", *last).as_posix()


def _steps_up(way: Path) -> int:
    return way.parts.count("..")


def _lines(table: Mapping[str, Any], where: str) -> list[str]:
    return [f"{_key(name)} = {_value(one, where)}" for name, one in table.items() if one is not None]


def _value(value: object, where: str) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # of what TOML wants escaped, JSON leaves one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        inner = ", ".join(_lines(value, where))
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one, where) for one in value)}]"
    raise SuiteError(f"suite {where}: {value!r} cannot be written as TOML. Run the whole suite instead.")


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _value(name, name)


def _one_line(text: str) -> str:
    """Text for a comment: control characters are not allowed there."""
    return "".join(char if char.isprintable() else " " for char in text)
