"""What the page of one cell shows: everything that its record holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mibench.report.caption import judge_facts
from mibench.report.escape import plain
from mibench.report.evidence import FILE, SUITE_FILE, Evidence, repeat_command
from mibench.report.evidence_page import evidence_of, evidence_values
from mibench.report.flag_meanings import explained_flags
from mibench.report.frame import (
    Json,
    MetricInfo,
    cell_rows,
    data_label,
    may_show_images,
    metric_infos,
    number,
    part,
)
from mibench.report.places import attack_label, defense_label
from mibench.report.tiles import read_layout

Pairs = list[tuple[str, str]]


def cell_values(record: Json, folder: Path, siblings: Sequence[Json]) -> dict[str, Any]:
    """The values of the template cell.html.j2.

    Args:
        record: the cell's record.
        folder: the cell's folder; its images are shown if they are there and may be, as is its evidence.
        siblings: records of the same attack.
    """
    attack, defense = attack_label(record), defense_label(record)
    error = part(record, "error")
    may_show = may_show_images(record)
    shows = may_show and (folder / "reconstructions.png").is_file()
    evidence = evidence_of(folder)
    return {
        "cell": str(record["cell"]),
        "suite": plain(record.get("suite", "")),
        "attack": attack,
        "defense": defense,
        "lead": lead_text(record),
        "status": str(record.get("status")),
        "error": {"stage": plain(error.get("stage", "")), "text": _error_text(error)},
        "flags": explained_flags(record),
        "picture": _alt_text(record, folder) if shows else "",
        "strips": [f"{k}.png" for k in ("real", "got", "nearest") if (folder / f"{k}.png").is_file()],
        "withheld": not may_show and record.get("status") == "ok",
        "estimates": _estimates(record),
        "context": _context(record),
        "evidence": evidence_values(record, folder, evidence, shows=shows),
        "repeat": _repeat(record, folder, evidence),
        "tables": _tables(record),
        "neighbors": _neighbors(record, siblings),
    }


def estimate_text(estimate: Json | None, info: MetricInfo) -> tuple[str, str]:
    """Value and interval of an estimate as text; the interval is empty where the metric has none."""
    if estimate is None or math.isnan(value := number(estimate.get("value"))):
        return "n/a", ""
    low, high = (number(estimate.get(name)) for name in ("low", "high"))
    form = _percent if info.percent else _digits
    return form(value), f"{form(low)} to {form(high)}" if low < high else ""


def _repeat(record: Json, folder: Path, evidence: Evidence | None) -> dict[str, Any]:
    """The command that makes the cell again, the files that it needs, and what the reader has to bring."""
    files = [name for name in (() if evidence is None else evidence.files) if (folder / name).is_file()]
    return {
        "command": repeat_command(record, evidence, f"cells/{record['cell']}/"),
        "files": files if SUITE_FILE in files else [],
        "evidence": FILE if (folder / FILE).is_file() else "",
        "needs_images": bool(files) and not may_show_images(record),
    }


def _percent(value: float) -> str:
    """A fraction in percent with one decimal."""
    return f"{100 * value:.1f} %"


def _digits(value: float) -> str:
    """A number with four digits, without an exponent."""
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def lead_text(record: Json) -> str:
    """Who met whom on what, in one line."""
    words = [
        data_label(part(record, "data")),
        plain(record.get("victim_net", "")),
        f"{plain(part(record, 'attack').get('access', ''))} access",
        f"{plain(record.get('view', ''))} view",
        f"seed {record.get('seed')}",
    ]
    return " · ".join(words)


def _error_text(error: Json) -> str:
    """Type and message of an error, its lines kept."""
    message = "\n".join(plain(line) for line in str(error.get("message", "")).splitlines())
    return f"{plain(error['type'])}: {message}" if error.get("type") else message


def _alt_text(record: Json, folder: Path) -> str:
    """The picture in words, for who cannot see it."""
    layout = read_layout(folder)
    labels = "" if layout is None else f" of labels {', '.join(map(str, dict.fromkeys(layout.labels)))}"
    return (
        f"Faces{labels}, a row each: real images, what {attack_label(record)} reconstructed from the model "
        f"with {defense_label(record)}, and the nearest private training images."
    )


def _estimates(record: Json) -> list[dict[str, str]]:
    """Every metric of the cell."""
    lines = []
    for name, info in metric_infos([record]).items():
        estimate = part(record, "estimates").get(name)
        value, interval = estimate_text(estimate, info)
        count = "" if estimate is None else str(estimate.get("count", ""))
        lines.append(
            {"name": name, "title": info.title, "value": value, "interval": interval, "count": count,
             "better": info.better}
        )  # fmt: skip
    return lines


def _context(record: Json) -> list[str]:
    """Chance and judge, without which the estimates say nothing."""
    chance = number(record.get("chance"))
    level = [] if math.isnan(chance) else [f"Chance level of AA: {_percent(chance)}."]
    return [*level, *judge_facts(cell_rows([record]))]


def _tables(record: Json) -> list[tuple[str, Pairs]]:
    """The rest of the record, table by table."""
    top = [("version", record.get("schema")), ("victim network", record.get("victim_net"))]
    named: list[tuple[str, Json]] = [
        ("Attack", _flat(part(record, "attack"))),
        ("Defense", _flat(part(record, "defense"))),
        ("Targets", part(record, "targets")),
        ("Queries", part(record, "queries")),
        ("Notes", part(record, "notes")),
        ("Data", _flat(part(record, "data"))),
        ("Judge", part(record, "judge")),
        ("Keys", part(record, "keys")),
        ("Provenance", {**part(record, "provenance"), **dict(top)}),
    ]
    return [(name, [(_words(k), _text(v)) for k, v in table.items()]) for name, table in named if table]


def _flat(table: Json) -> dict[str, Any]:
    """The table with its params as lines of their own, last."""
    rest = {name: value for name, value in table.items() if name != "params" and (name, value) != ("year", 0)}
    return rest | {f"params: {name}": value for name, value in part(table, "params").items()}


def _words(name: str) -> str:
    """A field's name in words."""
    return plain(name.replace("_", " "))


def _text(value: object) -> str:
    """A field's value as text: short for numbers, `none` for nothing, JSON for tables."""
    if value is None or value in ([], "", {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and not any(isinstance(item, Mapping | list) for item in value):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, Mapping | list):
        return plain(json.dumps(value, ensure_ascii=False, default=str))
    return plain(value)


def _neighbors(record: Json, siblings: Sequence[Json]) -> list[dict[str, str]]:
    """The same attack on the other defenses of this seed and view, and other seeds and views of this cell."""
    place = (record.get("view"), record.get("seed"))
    found = []
    for other in siblings:
        there = (other.get("view"), other.get("seed"))
        same_defense = defense_label(other) == defense_label(record)
        if (there == place) == same_defense:
            continue
        detail = f"{plain(there[0])}, seed {there[1]}" if same_defense else ""
        found.append(
            {"cell": str(other["cell"]), "attack": attack_label(other), "defense": defense_label(other),
             "detail": detail}
        )  # fmt: skip
    return found
