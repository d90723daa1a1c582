"""What differs between two cells, as text: settings, keys, software, estimates, flags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mibench.record import Record
from mibench.report.cell_page import estimate_text
from mibench.report.escape import plain, printable
from mibench.report.find_cell import FoundCell
from mibench.report.flag_meanings import explained_flags
from mibench.report.frame import Json, MetricInfo, metric_infos, number, part
from mibench.report.places import attack_label, defense_label
from mibench.report.why import MODEL_STAGES, columns
from mibench.statistics import mean_change, sign_flip

_SETTINGS = ("suite", "attack", "defense", "view", "seed", "data", "victim_net", "judge", "targets")
_OF_METHODS = ("label", "name", "version", "access", "acts", "per_target", "control")
_MEASURED = frozenset({"judge.accuracy", "judge.audit_accuracy", "judge.embedder_accuracy"})  # no settings


def diff(one: FoundCell, other: FoundCell) -> str:
    """What differs between two cells, as text of many lines; first and second as given."""
    first, second = vars(one.record), vars(other.record)
    sections = [
        ("", [f"{name}: {_title(found)}" for name, found in (("first ", one), ("second", other))]),
        ("Settings that differ", _settings(first, second)),
        ("Keys", _keys(first, second)),
        ("Software that differs", _changes(part(first, "provenance"), part(second, "provenance"))),
        ("Estimates", _estimates(first, second)),
        ("AA, person by person", _paired(one.record, other.record)),
        ("Flags", _flags(first, second)),
    ]
    return "\n\n".join(
        "\n".join(
            [title, *(f"  {printable(line)}" for line in lines or ["none"])]
            if title
            else map(printable, lines)
        )
        for title, lines in sections
    )


def _title(found: FoundCell) -> str:
    record = vars(found.record)
    who = f"{attack_label(record)} against {defense_label(record)}, {record['view']}, seed {record['seed']}"
    return f"{found.record.cell} of {found.results}: {who} ({found.record.status})"


def _settings(first: Json, second: Json) -> list[str]:
    before, after = ({name: one.get(name) for name in _SETTINGS} for one in (first, second))
    for kind in ("attack", "defense"):
        if part(first, kind).get("name") != part(second, kind).get("name"):
            # settings of two methods cannot be compared one by one
            before[kind], after[kind] = (
                {name: part(one, kind).get(name) for name in _OF_METHODS} for one in (first, second)
            )
    return _changes(before, after)


def _changes(first: Json, second: Json) -> list[str]:
    """The fields whose values differ, nested ones under their path."""
    before, after = _flat(first), _flat(second)
    rows = [
        [name, _word(before.get(name)), "->", _word(after.get(name))]
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name) and name not in _MEASURED
    ]
    return columns(rows)


def _flat(table: Json, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        place = f"{path}{plain(name)}"
        found |= _flat(value, f"{place}.") if isinstance(value, Mapping) and value else {place: value}
    return found


def _word(value: object) -> str:
    return "none" if value is None else plain(value if isinstance(value, str) else json.dumps(value), 60)


def _keys(first: Json, second: Json) -> list[str]:
    """For each stage whether the two cells share its tasks: an equal key is the same result."""
    keys = [_by_stage(one) for one in (first, second)]
    rows = []
    for stage in (*MODEL_STAGES, "measure"):
        before, after = (one.get(stage, set()) for one in keys)
        if not before | after:
            continue
        common = len(before & after)
        if before == after:
            word = "shared"
        elif not before or not after:
            word = f"only the {'second' if after else 'first'} has it"
        else:
            word = f"{common} of {max(len(before), len(after))} shared" if common else "differ"
        rows.append([stage, word])
    return columns(rows)


def _by_stage(record: Json) -> dict[str, set[str]]:
    keys = part(record, "keys")
    found: dict[str, set[str]] = {"measure": {str(keys["measure"])}} if keys.get("measure") else {}
    for model in keys.get("models") or ():
        for stage in MODEL_STAGES:
            if model.get(stage) is not None:
                found.setdefault(stage, set()).add(str(model[stage]))
    return found


def _estimates(first: Json, second: Json) -> list[str]:
    rows = []
    for name, info in metric_infos([first, second]).items():
        before, after = (part(one, "estimates").get(name) for one in (first, second))
        words = [_estimate(one, info) for one in (before, after)]
        rows.append([info.title, words[0], "->", words[1], _difference(before, after, info)])
    return columns(rows)


def _estimate(estimate: Json | None, info: MetricInfo) -> str:
    value, interval = estimate_text(estimate, info)
    return f"{value} [{interval}]" if interval else value


def _difference(before: Json | None, after: Json | None, info: MetricInfo) -> str:
    values = [number((one or {}).get("value")) for one in (before, after)]
    change = values[1] - values[0]
    if change != change:  # noqa: PLR0124  NaN is unequal to itself
        return ""
    return f"{100 * change:+.1f} points" if info.percent else f"{change:+.4g}"


def _paired(first: Record, second: Record) -> list[str]:
    """The difference over the people that both attacked, with its interval and a paired test."""
    if first.data.get("digest") != second.data.get("digest"):
        return ["The cells are of different people, so they cannot be paired."]
    people = sorted(label for label in first.hits.keys() & second.hits.keys() if first.hits[label])
    people = [label for label in people if second.hits[label]]
    if not people:
        return ["No person was attacked as a protected one in both, or hits are not on record."]
    before, after = (np.array([_share(one.hits[label]) for label in people]) for one in (first, second))
    low, high = mean_change(after - before)
    change = float((after - before).mean())
    up, down = int((after > before).sum()), int((after < before).sum())
    return [
        f"{100 * before.mean():.1f} % -> {100 * after.mean():.1f} % over {len(people)} common people: "
        f"{100 * change:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}.",
        f"More leak of {up}, less of {down}, the same of {len(people) - up - down}. "
        f"Sign-flip test of no difference: p = {sign_flip(after - before):.3g}.",
    ]


def _share(hits: str) -> float:
    return hits.count("1") / len(hits)


def _flags(first: Json, second: Json) -> list[str]:
    before, after = dict(explained_flags(first)), dict(explained_flags(second))
    lines = []
    for text, meaning in {**before, **after}.items():
        who = "both" if text in before and text in after else "first" if text in before else "second"
        lines.append(f"{who}: {text}" + (f": {meaning}" if meaning else ""))
    return lines
