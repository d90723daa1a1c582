"""What stands behind a cell's number, image by image: `evidence.json` beside the cell's images.

Written where the images are exported, read by pages and the command line without torch. The suite of the
cell alone lies in `cell.toml` beside it, so that the cell can be run again wherever its folder is.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mibench.errors import RecordError
from mibench.key import canonical
from mibench.record import SWEEP, finite
from mibench.report.escape import plain, printable
from mibench.report.frame import Json, part

SCHEMA = 1
FILE, SUITE_FILE = "evidence.json", "cell.toml"
FACTS = (
    *("suite", "attack", "defense", "view", "seed", "data", "victim_net", "judge", "targets", "chance"),
    *("status", "queries", "keys", "provenance"),
)  # fields of the record: what was run, on what, under which keys, with which software


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One reconstruction, and what each model says of it.

    Probabilities lie in [0, 1]: of the deployed victim as it releases them, of judge and audit judge by
    softmax. Distances are Euclidean in the judge's penultimate features. All have six significant digits.

    Args:
        model: number of the attacked model of the cell, from 0.
        label: the attacked label.
        index: which image of this label and model, from 0, as in `got.png`.
        protected: whether the model protects the label.
        confidence: the attack's own score; None where it gives none.
        loss: the attack's own last loss; None where it gives no curve.
        victim_top, victim_p: label that the deployed victim gives, and the probability of the attacked one.
        judge_top, judge_p: the same of the judge.
        audit_top, audit_p: the same of the audit judge; None without one.
        nearest: number of the nearest private training image, in the order of the data artifact.
        nearest_label: whom it shows.
        distance: to it.
        own_distance: to the nearest training image of the attacked label.
        other_label: whom the nearest training image of anybody else shows.
        other_distance: to that image.
    """

    model: int
    label: int
    index: int
    protected: bool
    confidence: float | None
    loss: float | None
    victim_top: int
    victim_p: float | None
    judge_top: int
    judge_p: float | None
    audit_top: int | None
    audit_p: float | None
    nearest: int
    nearest_label: int
    distance: float | None
    own_distance: float | None
    other_label: int
    other_distance: float | None


_TYPES: dict[str, set[type]] = {
    "int": {int},
    "bool": {bool},
    "int | None": {int, type(None)},
    "float | None": {float, int, type(None)},
}
COLUMNS = tuple(one.name for one in dataclasses.fields(Shot))


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is kept of one cell.

    Args:
        cell: name of the cell.
        facts: the fields FACTS of its record.
        shots: every reconstruction; None where the artifacts were gone when this was written.
        files: what `mibench run` needs to repeat the cell, relative to the cell's folder: the suite, then
            single-file plugins; empty where a suite file cannot say what the cell is.
        options: of that command, beside the files.
    """

    cell: str
    facts: Json
    shots: tuple[Shot, ...] | None = None
    files: tuple[str, ...] = ()
    options: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> str:
        """Canonical JSON and a line end; reconstructions as rows under the names of their columns."""
        rows = [[getattr(one, name) for name in COLUMNS] for one in self.shots or ()]
        content = {
            "schema": SCHEMA,
            "cell": self.cell,
            "facts": self.facts,
            "reconstructions": None if self.shots is None else {"columns": list(COLUMNS), "rows": rows},
            "repeat": {"files": list(self.files), "options": list(self.options)},
        }
        return canonical(finite(content)) + "\n"


def facts_of(record: Json) -> dict[str, Any]:
    """The fields of a record that say what was run."""
    return {name: record.get(name) for name in FACTS}


def read_evidence(folder: Path) -> Evidence | None:
    """The evidence in a cell's folder; None where there is none.

    Raises:
        RecordError: the file cannot be read or understood, or a newer mibench wrote it.
    """
    path = folder / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != SCHEMA:
            raise RecordError(
                f"{path}: its schema is {raw['schema']!r}, known is {SCHEMA}. Run the suite again."
            )
        table, repeat = raw["reconstructions"], raw["repeat"]
        return Evidence(
            cell=str(raw["cell"]),
            facts=raw["facts"],
            shots=None if table is None else tuple(_shots(table)),
            files=tuple(map(str, repeat["files"])),
            options=tuple(map(str, repeat["options"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: not the evidence of a cell ({error}). Run the suite again.") from error


def _shots(table: Mapping[str, Any]) -> list[Shot]:
    """The reconstructions of a table; TypeError where a value is not of its column's type."""
    found = [Shot(**dict(zip(table["columns"], row, strict=True))) for row in table["rows"]]
    for shot in found:
        for column in dataclasses.fields(Shot):
            value = getattr(shot, column.name)
            if type(value) not in _TYPES[str(column.type)]:  # True is no number, though Python says it is
                raise TypeError(f"{column.name} is {value!r}, not of type {column.type}")
    return found


def repeat_command(record: Json, evidence: Evidence | None, place: str = "") -> str:
    """The command that computes a cell again, into a folder and a store of its own.

    Args:
        record: of the cell.
        evidence: of the cell; None falls back on what the record alone can name, which is right for cells
            of built-in suites without plugins of files.
        place: the cell's folder as the command shall name it, with a slash behind; empty for that folder.
    """
    if evidence is None or not evidence.files:
        return _by_names(record)
    suite, *plugins = evidence.files
    words = ["mibench", "run", place + suite]
    for file in plugins:
        words += ["--plugin", place + file]
    return shlex.join(map(printable, [*words, *evidence.options, "--out", "repeated"]))


def _by_names(record: Json) -> str:
    words = [
        *("mibench", "run", str(record.get("suite")).removesuffix(SWEEP)),
        *("--attack", str(part(record, "attack").get("label"))),
        *("--defense", str(part(record, "defense").get("label"))),
        *("--seed", str(record.get("seed")), "--out", "repeated"),
    ]
    return shlex.join(plain(word) for word in words)


def protected_shots(evidence: Evidence | None) -> dict[int, list[Shot]]:
    """The reconstructions of each protected label, in the order of its images."""
    found: dict[int, list[Shot]] = {}
    for one in (evidence.shots or ()) if evidence else ():
        if one.protected:
            found.setdefault(one.label, []).append(one)
    return found


def exemplars(shots: Sequence[Shot]) -> dict[str, Shot]:
    """Best, median and worst of one label's reconstructions, by the judge's probability of the label.

    The median is the lower of two middle ones; equals keep the order of their images. Fewer than three
    reconstructions give as many.
    """
    ordered = sorted(shots, key=lambda one: (-(one.judge_p or 0.0), one.index))
    chosen = {"best": ordered[0], "median": ordered[len(ordered) // 2], "worst": ordered[-1]}
    if len(ordered) < 3:
        del chosen["median"]
    if len(ordered) < 2:
        del chosen["worst"]
    return chosen


@dataclass(frozen=True)
class Verdicts:
    """How many of the protected labels' reconstructions each model takes for their label.

    Args:
        count: reconstructions.
        victim: taken by the deployed victim.
        judge: by the judge.
        both: by the judge and the audit judge; None without an audit judge.
        own: nearest, in the judge's features, to a training image of the attacked person.
    """

    count: int
    victim: int
    judge: int
    both: int | None
    own: int


def verdicts(evidence: Evidence | None) -> Verdicts | None:
    """What the models say of all protected labels' reconstructions; None without evidence."""
    shots = [one for group in protected_shots(evidence).values() for one in group]
    if not shots:
        return None
    hits = [one for one in shots if one.judge_top == one.label]
    is_audited = any(one.audit_top is not None for one in shots)
    return Verdicts(
        count=len(shots),
        victim=sum(one.victim_top == one.label for one in shots),
        judge=len(hits),
        both=sum(one.audit_top == one.label for one in hits) if is_audited else None,
        own=sum(one.nearest_label == one.label for one in shots),
    )
