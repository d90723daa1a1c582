"""Records as pandas frames: one row a cell, and one row an estimate. A report starts here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from mibench.errors import RecordError
from mibench.record import Record
from mibench.report.escape import plain
from mibench.report.flag_meanings import flags

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
    return value if isinstance(value, Mapping) else {}


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


def cells_frame(records: Sequence[Json]) -> pd.DataFrame:
    """One row a record: who met whom on what, the outcome, and the facts that a caption states.

    `scene` names what must be equal for cells to be compared: suite and data and victim network, each
    written out only as far as the records differ. Raises RecordError where two cells of one scene, attack,
    defense, view and seed are in the way of each other.
    """
    frame = pd.DataFrame([_cell_row(record) for record in records])
    if frame.empty:
        return frame
    frame["data"] = _distinct_data(frame)
    scene = frame["data"] + " · " + frame["victim_net"]
    if frame["suite"].nunique() > 1:
        scene = frame["suite"] + ": " + scene
    frame["scene"] = scene
    _refuse_clashes(frame)
    return frame


def _cell_row(record: Json) -> dict[str, Any]:
    """The flat facts of one record."""
    attack, defense, data = part(record, "attack"), part(record, "defense"), part(record, "data")
    judge, targets, queries = part(record, "judge"), part(record, "targets"), part(record, "queries")
    return {
        "suite": plain(record.get("suite", ""), 60),
        "cell": str(record["cell"]),
        "data": data_label(data),
        "data_params": json.dumps(part(data, "params"), sort_keys=True, default=str),
        "victim_net": plain(record.get("victim_net") or "?", 40),
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


def _distinct_data(frame: pd.DataFrame) -> pd.Series[str]:
    """Data labels, with the parameters that differ added where two datasets share one label."""
    kinds = frame[["data", "data_params"]].drop_duplicates()
    names: dict[tuple[str, str], str] = {}
    for label, group in kinds.groupby("data", sort=False):
        tables = [json.loads(text) for text in group["data_params"]]
        fields = sorted({name for table in tables for name in table})
        differ = [name for name in fields if len({json.dumps(table.get(name)) for table in tables}) > 1]
        for text, table in zip(group["data_params"], tables):
            extra = ", ".join(f"{name} = {table.get(name)}" for name in differ)
            names[str(label), text] = f"{label} ({plain(extra, 60)})" if extra else str(label)
    pairs = zip(frame["data"], frame["data_params"])
    return pd.Series([names[pair] for pair in pairs], index=frame.index, dtype="object")


def _refuse_clashes(frame: pd.DataFrame) -> None:
    """RecordError where two cells claim one place of the table."""
    place = ["scene", "attack", "defense", "view", "seed"]
    double = frame[frame.duplicated(place, keep=False)]
    if double.empty:
        return
    first = double.iloc[0]
    same = double[(double[place] == first[place]).all(axis=1)]
    cells = " and ".join(f"'{cell}'" for cell in same["cell"].iloc[:2])
    raise RecordError(
        f"records: cells {cells} are both attack '{first['attack']}' against defense '{first['defense']}' "
        f"({first['scene']}, {first['view']} view, seed {first['seed']}). Give the plugins different labels."
    )


def scenes(records: Iterable[Json | Record]) -> dict[str, list[Json]]:
    """The records of each scene, by its name."""
    kept = latest(records)
    groups: dict[str, list[Json]] = {}
    for name, record in zip(cells_frame(kept)["scene"] if kept else (), kept):
        groups.setdefault(name, []).append(record)
    return groups


def defense_acts(records: Iterable[Json]) -> dict[str, str]:
    """Where each defense acts, by its label, in order of first appearance."""
    return {
        plain(part(r, "defense").get("label", "?"), 40): str(part(r, "defense").get("acts")) for r in records
    }


def estimates_frame(records: Sequence[Json], metrics: Iterable[str] | None = None) -> pd.DataFrame:
    """One row an estimate: index of the record, metric, value, low, high, count; absent ones left out."""
    wanted = None if metrics is None else set(metrics)
    rows = [
        (index, name, entry.get("value"), entry.get("low"), entry.get("high"), entry.get("count"))
        for index, record in enumerate(records)
        for name, entry in part(record, "estimates").items()
        if entry is not None and (wanted is None or name in wanted)
    ]
    frame = pd.DataFrame(rows, columns=["record", "metric", "value", "low", "high", "count"])
    for name in ("value", "low", "high", "count"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    frame = frame[frame["value"].abs() < math.inf]
    return frame.fillna({"low": frame["value"], "high": frame["value"], "count": 0.0})


def long_frame(records: Iterable[Json | Record]) -> pd.DataFrame:
    """One row a cell with every metric as columns NAME, NAME_low, NAME_high, NAME_count; fractions."""
    kept = latest(records)
    cells = cells_frame(kept)
    estimates = estimates_frame(kept)
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
    facts = cells.drop(columns=["data_params"]).assign(flags=cells["flags"].map("; ".join))
    return pd.concat([facts, params, pd.DataFrame(columns, index=cells.index)], axis=1)
