"""`mibench submit pack`: the cells of one plugin, and all that its numbers were computed from, as one file.

The same results give the same bytes: times are fixed, names sorted, JSON canonical.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import io
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mibench.atomic import write_atomically
from mibench.boards.bundle import (
    MANIFEST,
    PLUGIN,
    RECORDS,
    SCHEMA,
    SUITE,
    CellFiles,
    Manifest,
    SuiteLabel,
    answers_of,
    images_of,
)
from mibench.boards.entry import NAME, Kind
from mibench.boards.ground import BASELINE, ground_digest
from mibench.boards.merging import merged_tables, suite_text
from mibench.boards.recomputing import JUDGES, tensors_digest
from mibench.boards.strict import build
from mibench.boards.submitted import LABEL, check_text, read_submitted
from mibench.compose import Composition
from mibench.errors import BoardError, MibenchError
from mibench.plan import Plan, build_plan
from mibench.plugin import Plugin
from mibench.provenance import package_version
from mibench.record import Record, read_records
from mibench.registry import get_attack, get_defense, load_plugin_file, source_digest
from mibench.report.frame import may_show_images
from mibench.store import Artifact, Store
from mibench.suite import Entry, Suite, parse_suite
from mibench.task import Cell

_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name
_MODE = 0o100644 << 16
_TEXTS = (".json", ".jsonl", ".toml", ".py")  # deflated; bytes of images hardly shrink


@dataclass(frozen=True)
class Texts:
    """What a person says of an entry: name on a board, title, paper, authors; what is empty the card says."""

    name: str = ""
    title: str = ""
    paper: str = ""
    authors: str = ""


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Args:
        file: the bundle.
        manifest: its `bundle.json`.
        cells: number of records in it.
        is_withheld: whether images were left out, since the terms of the data do not let them be shown.
    """

    file: Path
    manifest: Manifest
    cells: int
    is_withheld: bool


def pack(
    results: Path,
    *,
    kind: Kind,
    label: str,
    out: Path,
    store: Store,
    texts: Texts = Texts(),
    split: Path | None = None,
) -> Packed:
    """Write the bundle of one defense or attack of a results folder.

    Args:
        results: folder of a run, with `records.jsonl` and `cells/`.
        kind: what is submitted.
        label: of its row.
        out: the file to write; one that is there is replaced.
        store: of the run.
        texts: title, authors, paper and name.
        split: file of the prepared faces of the run, where it has them; None takes the path that the run had.

    Raises:
        BoardError: the results lack the row, a cell of it failed, or an artifact is gone.
        MibenchError: the results or the plugin cannot be read.
    """
    records = _own_records(results, kind, label)
    _load_plugins(results, records)
    tables = merged_tables(results, records)
    suite = _suite(tables, results / "cells" / records[0].cell, split, f"suite {results.name}")
    plan = build_plan(suite)
    cells = _planned(plan, records, results)
    plugin, source = _plugin(plan, kind, label)
    members = {RECORDS: _lines(records), SUITE: suite_text(_portable(tables)).encode()}
    if source is not None:
        members[PLUGIN] = source
    is_withheld = not all(may_show_images(vars(record)) for record in records if record.status == "ok")
    parts = _Parts(plan, store) if not is_withheld else None
    for record in records:
        if parts is not None and record.status == "ok":
            parts.add(cells[record.cell])
    members |= parts.members if parts else {}
    manifest = _manifest(
        {
            "kind": kind,
            "name": _name(texts.name, label),
            "label": label,
            "plugin": plugin.name,
            "params": _changed(plugin),
            "title": texts.title or plugin.card.title,
            "paper": texts.paper or plugin.card.paper,
            "authors": texts.authors,
            "suite": dataclasses.asdict(SuiteLabel(name=records[0].suite, digest=ground_digest(suite))),
            "rulers": parts.rulers(cells) if parts else {},
            "cells": {name: dataclasses.asdict(one) for name, one in parts.cells.items()} if parts else {},
        },
        members,
    )
    read_submitted(members[RECORDS], f"results {results}")
    write_atomically(out, zipped({MANIFEST: manifest.to_bytes(), **members}))
    return Packed(out, manifest, len(records), is_withheld)


def _suite(tables: Mapping[str, Any], folder: Path, split: Path | None, where: str) -> Suite:
    """The suite of merged tables, read as a file in a cell's folder would be."""
    raw = tomllib.loads(suite_text(tables))
    if split is not None:
        raw["data"] = {"kind": "prepared", "split": str(split.absolute())}
    return parse_suite(raw, where=where, folder=folder)


def zipped(members: Mapping[str, bytes]) -> bytes:
    """The bytes of a zip file of members by name: the same for the same members."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system, info.external_attr = 3, _MODE  # as on Unix, wherever it is packed
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(_TEXTS) else zipfile.ZIP_STORED
            archive.writestr(info, members[name], compresslevel=9)
    return found.getvalue()


def _own_records(results: Path, kind: Kind, label: str) -> list[Record]:
    """The records of the row, and of no defense against the same attacks; BoardError where one failed."""
    records = read_records(results / "records.jsonl")
    own = [record for record in records if getattr(record, kind)["label"] == label]
    if not own:
        known = ", ".join(dict.fromkeys(str(getattr(record, kind)["label"]) for record in records))
        raise BoardError(f"results {results}: have no {kind} '{label}'. There are: {known or 'none'}.")
    cells = {record.cell for record in own}
    if kind == "defense":
        met = {(record.attack["label"], record.view, record.seed) for record in own}
        own = [
            record
            for record in records
            if record.cell in cells
            or (
                record.defense["name"] == BASELINE
                and (record.attack["label"], record.view, record.seed) in met
            )
        ]
    failed = [record for record in own if record.status == "failed"]
    if failed:
        why = str((failed[0].error or {}).get("message", ""))
        raise BoardError(
            f"results {results}: cell {failed[0].cell} failed ({why:.120}); {len(failed)} of {len(own)} did. "
            "Mend the plugin, and run again."
        )
    return own


def _load_plugins(results: Path, records: Sequence[Record]) -> None:
    """Load the single-file plugins that lie beside the cells, so that their suite can be read."""
    loaded = set()
    for record in records:
        for file in sorted((results / "cells" / record.cell).glob("*s/*.py")):
            name = file.parent.name, file.name
            if name not in loaded and not _is_known(file):
                load_plugin_file(file)
            loaded.add(name)


def _is_known(file: Path) -> bool:
    """Whether the plugin of a file was loaded from another place already, with the same source."""
    get = {"attacks": get_attack, "defenses": get_defense}.get(file.parent.name)
    try:
        digest = "" if get is None else source_digest(get(file.stem))
    except MibenchError:
        return False
    return digest == hashlib.sha256(file.read_bytes()).hexdigest()


def _planned(plan: Plan, records: Sequence[Record], results: Path) -> dict[str, Cell]:
    """The cells of the plan by name; BoardError unless they are those of the records, under the same keys."""
    cells = {cell.id: cell for cell in plan.cells}
    wanted = {record.cell: record.keys.get("measure") for record in records}
    found = {name: cell.measure for name, cell in cells.items()}
    if found != wanted:
        lacking = sorted(found.keys() - wanted.keys())
        what = "were made by another version of mibench or of a plugin"
        if lacking:
            cell = cells[lacking[0]]
            what = f"lack cell {cell.id} ({cell.attack.label} against {cell.defense.label})"
        raise BoardError(f"results {results}: {what}. Run the suite again.")
    return cells


def _plugin(plan: Plan, kind: Kind, label: str) -> tuple[Plugin, bytes | None]:
    """The submitted plugin, and its source where it is a file; BoardError where a bundle cannot hold it."""
    sides: dict[str, tuple[Entry[Any], ...]] = {
        "attack": plan.suite.attacks,
        "defense": plan.suite.defenses,
    }
    plugin: Plugin = next(one.plugin for one in sides[kind] if one.label == label)
    if isinstance(plugin, Composition) or not NAME.fullmatch(plugin.name):
        raise BoardError(f"{kind} '{label}': is made of several plugins. Write one that does what they do.")
    for other in (one.plugin for family in sides.values() for one in family):
        if type(other) is not type(plugin) and source_digest(type(other)):
            raise BoardError(
                f"results: '{other.name}' comes from a file too, and a bundle holds one plugin. Run the "
                f"suite with plugins that mibench has beside '{plugin.name}'."
            )
    digest = source_digest(type(plugin))
    return plugin, _source(plugin, digest) if digest else None


def _source(plugin: Plugin, digest: str) -> bytes:
    source = Path(inspect.getsourcefile(type(plugin)) or "").read_bytes()
    if hashlib.sha256(source).hexdigest() != digest:
        raise BoardError(f"plugin '{plugin.name}': its file changes at the moment. Pack again.")
    return source


def _changed(plugin: Plugin) -> dict[str, Any]:
    """The fields of a plugin that are not its defaults."""
    try:
        usual = type(plugin)().params()
    except (TypeError, ValueError):
        usual = {}
    return {name: value for name, value in plugin.params().items() if usual.get(name, ...) != value}


def _name(name: str, label: str) -> str:
    """The name of an entry: the one that is asked for, or the label as far as it is one."""
    found = name or "".join(char if char.isalnum() else "_" for char in label.lower())
    if not NAME.fullmatch(found):
        raise BoardError(
            f"name {found!r:.60}: must be lowercase letters, digits and _, at most 40. Give --as NAME."
        )
    if not LABEL.fullmatch(label):
        raise BoardError(f"label {label!r:.60}: is none that pages can show. Give the row another one.")
    return found


def _portable(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables without the ways to files of this machine: their names alone."""

    def told(value: Any) -> Any:  # noqa: ANN401 - a part of a suite's tables
        if isinstance(value, Mapping):
            return {
                name: Path(part).name
                if name in {"path", "split", "weights"} and isinstance(part, str) and part
                else told(part)
                for name, part in value.items()
            }
        return [told(part) for part in value] if isinstance(value, list) else value

    found: dict[str, Any] = told(tables)
    return found


def _lines(records: Sequence[Record]) -> bytes:
    return "".join(f"{record.to_json()}\n" for record in records).encode()


def _manifest(fields: dict[str, Any], members: Mapping[str, bytes]) -> Manifest:
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in members.items()
    }
    value = {"schema": SCHEMA, "mibench": package_version(), "files": files, **fields}
    check_text(value, "submission")
    return build(Manifest, value, where="submission")


class _Parts:
    """Reconstructions and answers of cells as members of a bundle."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.members: dict[str, bytes] = {}
        self.cells: dict[str, CellFiles] = {}

    def add(self, cell: Cell) -> None:
        """Take in a measured cell; BoardError where an artifact of it is gone."""
        inputs = self.plan.tasks[cell.measure].inputs
        tensors: dict[str, Tensor] = {}
        answers, goals = [], set()
        for index in range(len(cell.models)):
            invert = self.artifact(inputs[f"invert{index}"], cell)
            tensors |= {f"{index}/{name}": one for name, one in invert.tensors.items()}
            goals.add(str(invert.value.get("goal", "class")))
            key = inputs[f"answer{index}"]
            answers.append(key)
            if answers_of(key) not in self.members:
                self.members[answers_of(key)] = _saved(self.artifact(key, cell).tensors)
        self.members[images_of(cell.id)] = _saved(tensors)
        self.cells[cell.id] = CellFiles(goal=goals.pop(), answers=tuple(answers))

    def rulers(self, cells: Mapping[str, Cell]) -> dict[str, str]:
        """SHA-256 of what judged the cells, by role."""
        cell = next(one for one in cells.values() if one.measure)
        inputs = self.plan.tasks[cell.measure].inputs
        return {
            role: tensors_digest(self.artifact(inputs[role], cell).tensors)
            for role in JUDGES
            if role in inputs
        }

    def artifact(self, key: str, cell: Cell) -> Artifact:
        """What the store holds under a key."""
        found = self.store.get(key)
        if found is None:
            raise BoardError(
                f"store: '{self.plan.tasks[key].title}' of cell {cell.id} is not there. Give the --store of "
                "the run, or run the suite again with a new one."
            )
        return found


def _saved(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file; the same for the same tensors."""
    content: bytes = save({name: tensors[name].contiguous() for name in sorted(tensors)})
    return content
