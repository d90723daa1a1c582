"""Records as rows: one a cell, and one an estimate. A report starts here.

Tables are made of plain rows, because pandas takes as long to load as a thousand records to compare; what is
written as CSV, cell by cell, is a frame.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mibench.errors import RecordError
from mibench.record import Record
from mibench.report.escape import plain
from mibench.report.flag_meanings import flags

if TYPE_CHECKING:
    import pandas as pd

Json = Mapping[str, Any]
CELL_NAME = re.compile(r"[0-9a-f]{6,64}")
WITHHELD = "withheld"  # images of real persons, for whoever has the data; never part of a report
_PARTS = ("private", "public", "defender")
SHOWN_KINDS = frozenset({"synthfaces"})  # rendered faces belong to nobody


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is printed: its title, the defender's better direction, whether it is a fraction."""

    name: str
    title: str
    better: Literal["lower", "higher"]
    percent: bool

    @property
    def heading(self) -> str:
        """Title with an arrow towards what is better for the defender."""
        return f"{self.title} {'↓' if self.better == 'lower' else '↑'}"


def is_withheld(record: Json) -> bool:
    """True where a report may not contain the cell's images."""
    return not may_show_images(record)


def may_show_images(record: Json) -> bool:
    """True where a report may contain the cell's images: of rendered faces, or where their terms allow it."""
    data = part(record, "data")
    return data.get("kind") in SHOWN_KINDS or data.get("may_publish") is True


def part(record: Json, name: str) -> Json:
    """The table `name` of a record; empty where a failed cell never came to it."""
    value = record.get(name)
    # asking for a dict first, which JSON gives, takes a tenth of the time
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def latest(records: Iterable[Json | Record]) -> list[Json]:
    """The last record of every cell as a dict, cells in order of first appearance.

    Raises:
        RecordError: a cell's name is not hexadecimal; names become folders, so nothing else is let through.
    """
    by_cell: dict[tuple[str, str], Json] = {}
    for one in records:
        record = vars(one) if isinstance(one, Record) else one
        name = str(record.get("cell"))
        if not CELL_NAME.fullmatch(name):
            raise RecordError(
                f"records: a cell is named {name[:40]!r}, not 12 hexadecimal digits. Run the suite again."
            )
        by_cell[str(record.get("suite")), name] = record
    return list(by_cell.values())


def metric_infos(records: Iterable[Json]) -> dict[str, MetricInfo]:
    """Every metric of the records, in order of first appearance."""
    infos: dict[str, MetricInfo] = {}
    for record in records:
        for name, info in part(record, "metric_info").items():
            if name not in infos:
                infos[name] = MetricInfo(
                    name, plain(info["title"], 30), info["better"], bool(info["percent"])
                )
    return infos


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRow:
    """The flat facts of one record: who met whom on what, the outcome, and what a caption states.

    Args:
        suite, cell, victim_net, view, seed, status: see `mibench.record.Record`.
        data: the dataset in a few words, with the parameters in which datasets of one name differ.
        attack, access, control: label, access and kind of the attack.
        defense, acts: label of the defense, and where it acts.
        reason: why it failed or was blocked; empty where it did not.
        flags: in the words of tables.
        chance, judge_accuracy, judge_gate, judge_audit_accuracy: fractions; NaN where unknown.
        judge_net: name of the judge's architecture.
        protected: number of protected labels; NaN where unknown.
        queries_forward, queries_gradient: of each image; NaN where unknown.
        scene: what must be equal for cells to be compared: suite and data and victim network, each written
            out only as far as the records differ.
    """

    suite: str
    cell: str
    data: str
    victim_net: str
    attack: str
    access: str
    control: bool
    defense: str
    acts: str
    view: str
    seed: int
    status: str
    reason: str
    flags: tuple[str, ...]
    chance: float
    judge_net: str
    judge_accuracy: float
    judge_gate: float
    judge_audit_accuracy: float
    protected: float
    queries_forward: float
    queries_gradient: float
    scene: str


class EstimateRow(NamedTuple):
    """One finite estimate: number of its record, metric, value, ends of its interval, things averaged."""

    record: int
    metric: str
    value: float
    low: float
    high: float
    averaged: float


def cell_rows(records: Sequence[Json]) -> list[CellRow]:
    """One row a record, in order.

    Raises:
        RecordError: two cells of one scene, attack, defense, view and seed are in the way of each other.
    """
    labels = _distinct_data(records)
    nets = [plain(record.get("victim_net") or "?", 40) for record in records]
    suites = [plain(record.get("suite", ""), 60) for record in records]
    heads = [f"{suite}: " for suite in suites] if len(set(suites)) > 1 else [""] * len(records)
    rows = [
        CellRow(
            **_facts(record), suite=suite, data=label, victim_net=net, scene=f"{head}{label} · {net}"
        )
        for record, suite, label, net, head in zip(records, suites, labels, nets, heads)
    ]  # fmt: skip
    _refuse_clashes(rows)
    return rows


def cells_frame(records: Sequence[Json]) -> pd.DataFrame:
    """The rows of `cell_rows` as a frame."""
    import pandas as pd

    names = [one.name for one in dataclasses.fields(CellRow)]
    return pd.DataFrame([{name: getattr(row, name) for name in names} for row in cell_rows(records)])


def _facts(record: Json) -> dict[str, Any]:
    """The fields of a row that say nothing of other records."""
    attack, defense = part(record, "attack"), part(record, "defense")
    judge, targets, queries = part(record, "judge"), part(record, "targets"), part(record, "queries")
    return {
        "cell": str(record["cell"]),
        "attack": plain(attack.get("label", "?"), 40),
        "access": plain(attack.get("access", ""), 20),
        "control": bool(attack.get("control", False)),
        "defense": plain(defense.get("label", "?"), 40),
        "acts": plain(defense.get("acts", ""), 40),
        "view": plain(record.get("view", ""), 20),
        "seed": int(record.get("seed", 0)),
        "status": str(record.get("status")),
        "reason": reason(record),
        "flags": flags(record),
        "chance": number(record.get("chance")),
        "judge_net": plain(judge.get("net", ""), 40),
        "judge_accuracy": number(judge.get("accuracy")),
        "judge_gate": number(judge.get("gate")),
        "judge_audit_accuracy": number(judge.get("audit_accuracy")),
        "protected": size_of(targets.get("protected")),
        "queries_forward": number(queries.get("forward_per_image")),
        "queries_gradient": number(queries.get("gradient_per_image")),
    }


def number(value: object) -> float:
    """The value as a float; NaN for anything that is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def size_of(value: object) -> float:
    """How many: a list's length, a number as it is, NaN for anything else."""
    return float(len(value)) if isinstance(value, list | tuple) else number(value)


def reason(record: Json) -> str:
    """Why a cell failed or was blocked, in one line: stage, type and message; empty where it did not."""
    error = part(record, "error")
    if not error:
        return ""
    words = [plain(error.get(name, "")) for name in ("stage", "type", "message")]
    return ": ".join(word for word in words if word)


def data_label(data: Json) -> str:
    """A dataset in a few words: its sets or its kind, image size, number of identities."""
    size = data.get("size")
    height, width = size[-2:] if isinstance(size, list | tuple) and len(size) > 1 else (size, size)
    sets = data.get("sets")
    told = sets if isinstance(sets, Mapping) else {}
    named = " + ".join(dict.fromkeys(str(told[part]) for part in _PARTS if part in told))
    words = [plain(named, 40) or str(data.get("kind") or "?")]
    if size is not None:
        words[0] += f" {height}\N{MULTIPLICATION SIGN}{width}"
    if data.get("num_classes") is not None:
        words.append(f"{data['num_classes']} ids")
    return plain(", ".join(words), 60)


def _distinct_data(records: Sequence[Json]) -> list[str]:
    """Data labels, with the parameters that differ added where two datasets share one label."""
    labels = [data_label(part(record, "data")) for record in records]
    tables = [part(part(record, "data"), "params") for record in records]
    kinds: dict[str, list[Json]] = {}
    for label, table in zip(labels, tables):
        known = kinds.setdefault(label, [])
        if table not in known:
            known.append(table)
    differ = {
        label: [
            name
            for name in sorted({name for table in known for name in table})
            if len({json.dumps(table.get(name), sort_keys=True, default=str) for table in known}) > 1
        ]
        for label, known in kinds.items()
        if len(known) > 1
    }
    extras = [
        plain(", ".join(f"{name} = {table.get(name)}" for name in differ.get(label, ())), 60)
        for label, table in zip(labels, tables)
    ]
    return [f"{label} ({extra})" if extra else label for label, extra in zip(labels, extras)]


def _refuse_clashes(rows: Sequence[CellRow]) -> None:
    """RecordError where two cells claim one place of the table."""
    places: dict[tuple[str, str, str, str, int], list[CellRow]] = {}
    for row in rows:
        places.setdefault((row.scene, row.attack, row.defense, row.view, row.seed), []).append(row)
    same = next((group for group in places.values() if len(group) > 1), None)
    if same is None:
        return
    first, other = same[:2]
    raise RecordError(
        f"records: cells '{first.cell}' and '{other.cell}' are both attack '{first.attack}' against defense "
        f"'{first.defense}' ({first.scene}, {first.view} view, seed {first.seed}). Give the plugins "
        "different labels."
    )


def scenes(records: Iterable[Json | Record]) -> dict[str, list[Json]]:
    """The records of each scene, by its name."""
    kept = latest(records)
    groups: dict[str, list[Json]] = {}
    for row, record in zip(cell_rows(kept), kept):
        groups.setdefault(row.scene, []).append(record)
    return groups


def defense_acts(records: Iterable[Json]) -> dict[str, str]:
    """Where each defense acts, by its label, in order of first appearance."""
    return {
        plain(part(r, "defense").get("label", "?"), 40): str(part(r, "defense").get("acts")) for r in records
    }


def estimate_rows(records: Sequence[Json], metrics: Iterable[str] | None = None) -> list[EstimateRow]:
    """One row an estimate, records in order; absent ones and those that are no finite number are left out."""
    wanted = None if metrics is None else set(metrics)
    found = []
    for index, record in enumerate(records):
        for name, entry in part(record, "estimates").items():
            if entry is None or (wanted is not None and name not in wanted):
                continue
            value = number(entry.get("value"))
            if value == value:  # noqa: PLR0124 - NaN is unequal to itself
                ends = (number(entry.get(end)) for end in ("low", "high"))
                low, high = (value if math.isnan(end) else end for end in ends)
                count = number(entry.get("count"))
                found.append(EstimateRow(index, name, value, low, high, 0.0 if math.isnan(count) else count))
    return found


def long_frame(records: Iterable[Json | Record]) -> pd.DataFrame:
    """One row a cell with every metric as columns NAME, NAME_low, NAME_high, NAME_count; fractions."""
    import pandas as pd

    kept = latest(records)
    cells = cells_frame(kept)
    estimates = pd.DataFrame(
        estimate_rows(kept), columns=["record", "metric", "value", "low", "high", "count"]
    )
    names = list(metric_infos(kept)) or sorted(estimates["metric"].unique())
    wide = estimates.pivot(index="record", columns="metric", values=["value", "low", "high", "count"])
    columns: dict[str, pd.Series[Any]] = {}
    for name in names:
        for kind in ("value", "low", "high", "count"):
            title = name if kind == "value" else f"{name}_{kind}"
            known = (kind, name) in wide.columns
            columns[title] = wide[kind, name] if known else pd.Series(dtype=float)
    params = pd.DataFrame(
        {
            "attack_params": [json.dumps(part(r, "attack").get("params", {}), sort_keys=True) for r in kept],
            "defense_params": [
                json.dumps(part(r, "defense").get("params", {}), sort_keys=True) for r in kept
            ],
        }
    )
    facts = cells.assign(flags=cells["flags"].map("; ".join))
    return pd.concat([facts, params, pd.DataFrame(columns, index=cells.index)], axis=1)
