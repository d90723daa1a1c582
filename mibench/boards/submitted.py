"""Records and texts of a submission, checked field by field: they are from anybody and end on pages."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from mibench.boards.strict import MOST_DEPTH, parse_json
from mibench.errors import BoardError, RecordError
from mibench.record import SCHEMA, Record
from mibench.report.escape import UNPRINTABLE

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,59}")
"""Labels of attacks and defenses: no markup of any kind begins so, and no formula."""
MOST_LINE = 2**21  # bytes of a record; real ones have up to 60 kB
MOST_CELLS = 2000
_LONGEST = 4000  # characters of a text; hits have one for each image of a label
_MOST_KEYS = 20_000
_LINE_ENDS = frozenset({"Zl", "Zp"})  # Unicode's own line ends, which a terminal obeys too
_SHOWN = 40
_CELL = re.compile(r"[0-9a-f]{12}")
_KEY = re.compile(r"[0-9a-f]{64}")
_PLUGIN = re.compile(r"[a-z][a-z0-9_]{0,39}(\+[a-z][a-z0-9_]{0,39})*")
_METRIC = re.compile(r"[a-z][a-z0-9_]{0,39}")
_HITS = re.compile(r"[01]*")


def check_text(value: Any, where: str) -> None:  # noqa: ANN401 - it is JSON or TOML
    """BoardError where a value holds a long text, or a character that no line of text has.

    Terminals obey control characters, and bidirectional ones show a text as another; so none is let through,
    in keys neither.
    """
    open_values: list[tuple[Any, int]] = [(value, 0)]
    count = 0
    while open_values:
        one, depth = open_values.pop()
        count += 1
        if depth > MOST_DEPTH or count > _MOST_KEYS:
            raise BoardError(f"{where}: has too many values or is nested too deeply. Make it smaller.")
        if isinstance(one, dict):
            open_values += [(part, depth + 1) for pair in one.items() for part in pair]
        elif isinstance(one, list):
            open_values += [(part, depth + 1) for part in one]
        elif isinstance(one, str):
            _check_word(one, where)
        elif isinstance(one, float) and not math.isfinite(one):
            raise BoardError(f"{where}: holds {one}, which is no finite number. Write a finite one.")


def _check_word(text: str, where: str) -> None:
    if len(text) > _LONGEST:
        raise BoardError(
            f"{where}: a text has {len(text):,} characters; {_LONGEST:,} may be. It begins with "
            f"{text[:_SHOWN]!a}. Shorten it."
        )
    for char in text if not text.isprintable() else "":
        if unicodedata.category(char) in UNPRINTABLE | _LINE_ENDS:
            raise BoardError(
                f"{where}: a text holds the character U+{ord(char):04X}, which cannot be shown: "
                f"{text[:_SHOWN]!a}. Leave it out."
            )


def read_submitted(raw: bytes, where: str) -> tuple[Record, ...]:
    """The records of a submission, one a line, each cell once.

    Raises:
        BoardError: a line is no strict JSON, no record of this schema, failed, or a field is wrong.
    """
    lines = raw.splitlines()
    if not 0 < len(lines) <= MOST_CELLS:
        raise BoardError(
            f"{where}: has {len(lines):,} cells; from 1 to {MOST_CELLS:,} may be. Pack it again."
        )
    found: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        record = _record(line, f"{where}, line {number}")
        if record.cell in found:
            raise BoardError(f"{where}, line {number}: cell {record.cell} stands there twice. Pack it again.")
        found[record.cell] = record
    return tuple(found.values())


def _record(line: bytes, where: str) -> Record:
    value = parse_json(line, where=where, most_bytes=MOST_LINE)
    check_text(value, where)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        raise BoardError(f"{where}: is no record of schema {SCHEMA}. Run the suite again, and pack it.")
    try:
        record = Record.from_json(json.dumps(value))
        fault = next((name for name, is_right in _FIELDS.items() if not is_right(record)), "")
    except (RecordError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise BoardError(f"{where}: is no record ({error!s:.200}).") from error
    if record.status == "failed":
        raise BoardError(f"{where}: its cell failed. Mend the plugin, and run the suite again.")
    if fault:
        raise BoardError(f"{where}: field '{fault}' is not what a record has there. Run the suite again.")
    if [one.name for one in dataclasses.fields(Record) if one.name not in value]:
        raise BoardError(f"{where}: lacks a field. Run the suite again.")
    return record


def _is_side(side: Any) -> bool:  # noqa: ANN401 - it is JSON
    """Whether a record's `attack` or `defense` has what is read of it, of the right types."""
    return (
        isinstance(side, dict)
        and isinstance(side["label"], str)
        and LABEL.fullmatch(side["label"]) is not None
        and isinstance(side["name"], str)
        and _PLUGIN.fullmatch(side["name"]) is not None
        and isinstance(side["title"], str)
        and type(side["version"]) is int
        and type(side["year"]) is int
        and isinstance(side["params"], dict)
    )


def _is_model(model: Any) -> bool:  # noqa: ANN401 - it is JSON
    keys = [model["train"], model["invert"], *(model[name] for name in ("output", "adapt") if model[name])]
    return all(isinstance(key, str) and _KEY.fullmatch(key) for key in keys) and _are_labels(
        model["protects"]
    )


def _are_labels(values: Any) -> bool:  # noqa: ANN401 - it is JSON
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 2**31 for one in values)


def _is_estimate(value: Any) -> bool:  # noqa: ANN401 - it is JSON
    return value is None or (
        isinstance(value, dict)
        and value.keys() == {"value", "low", "high", "count"}
        and type(value["count"]) is int
        and value["count"] >= 0
    )


def _are_hits(value: Any) -> bool:  # noqa: ANN401 - it is JSON
    return isinstance(value, dict) and all(
        label.isdecimal() and isinstance(bits, str) and _HITS.fullmatch(bits) for label, bits in value.items()
    )


def _is_scrutiny(record: Record) -> bool:
    parts = record.scrutiny
    if record.status != "ok":
        return parts == {}
    known = {"restarts", "rise", "silent_gradients", "second_hits"}
    silent = parts.get("silent_gradients")
    return (
        set(parts) <= known
        and all(isinstance(parts[name], dict | None) for name in ("restarts", "rise"))
        and (silent is None or (isinstance(silent, int | float) and 0 <= silent <= 1))
        and all(map(_are_hits, parts.get("second_hits", {}).values()))
    )


# what is read of a record here or drawn of it by a page; fields that are only compared need no rule
_FIELDS: dict[str, Callable[[Record], bool]] = {
    "cell": lambda r: isinstance(r.cell, str) and _CELL.fullmatch(r.cell) is not None,
    "suite": lambda r: isinstance(r.suite, str),
    "attack": lambda r: (
        _is_side(r.attack)
        and r.attack["access"] in {"label", "score", "white-box"}
        and isinstance(r.attack["control"], bool)
    ),
    "defense": lambda r: (
        _is_side(r.defense)
        and isinstance(r.defense["per_target"], bool)
        and isinstance(r.defense["acts"], str)
        and isinstance(r.defense["knows"], list)
    ),
    "view": lambda r: r.view in {"stripped", "deployed", "black-box"},
    "seed": lambda r: type(r.seed) is int and 0 <= r.seed < 2**53,
    "data": lambda r: isinstance(r.data, dict) and isinstance(r.data["kind"], str),
    "victim_net": lambda r: isinstance(r.victim_net, str),
    "judge": lambda r: isinstance(r.judge, dict),
    "status": lambda r: r.status in {"ok", "failed", "blocked"},
    "error": lambda r: isinstance(r.error, dict | None),
    "chance": lambda r: isinstance(r.chance, float) and 0 < r.chance <= 1,
    "targets": lambda r: (
        isinstance(r.targets, dict)
        and all(_are_labels(r.targets[name]) for name in ("protected", "bystanders", "attacked"))
    ),
    "estimates": lambda r: (
        isinstance(r.estimates, dict)
        and all(_METRIC.fullmatch(name) and _is_estimate(one) for name, one in r.estimates.items())
    ),
    "metric_info": lambda r: isinstance(r.metric_info, dict),
    "queries": lambda r: isinstance(r.queries, dict),
    "notes": lambda r: isinstance(r.notes, dict),
    "hits": lambda r: _are_hits(r.hits),
    "effort": lambda r: all(isinstance(one, dict) for one in r.effort),
    "scrutiny": _is_scrutiny,
    "flags": lambda r: all(isinstance(one, str) and _METRIC.fullmatch(one[:40]) for one in r.flags),
    "keys": lambda r: (
        isinstance(r.keys["measure"], str)
        and isinstance(r.keys["models"], list)
        and all(map(_is_model, r.keys["models"]))
    ),
    "provenance": lambda r: isinstance(r.provenance, dict),
}
