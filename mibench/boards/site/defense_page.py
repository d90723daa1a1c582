"""What the page of a defense shows: its card, its numbers against every attack, evidence, and its history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mibench.boards.history import Night
from mibench.boards.site import words
from mibench.boards.site.board_page import TRUST
from mibench.boards.site.pictures import Card, card_of
from mibench.boards.site.reading import Sheet
from mibench.boards.standing import Row
from mibench.report.cell_page import estimate_text
from mibench.report.escape import plain
from mibench.report.flag_meanings import explained_flags
from mibench.report.frame import Json, metric_infos, part, reason
from mibench.report.places import attack_label

SHOWN = ("aa", "aa5", "aa_audit", "aa_robust", "fid")
"""Metrics of the table of attacks, as far as the records hold them; further ones are in the records."""
PICTURES = "pictures"


def defense_values(sheet: Sheet, row: Row, places: Sequence[Path]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The values of the template defense.html.j2, and the pictures that the page shows by their file names.

    Args:
        sheet: the board.
        row: the defense.
        places: folders of results, in which the pictures and evidence of cells are looked for.
    """
    records = sheet.cells(row)
    cards = [card_of(record, places) for record in records]
    values = {
        "board": sheet.board.name,
        "board_title": plain(sheet.board.rules.title),
        "name": row.name,
        "title": plain(row.title),
        "place": row.place,
        "why": plain(row.why),
        "facts": _facts(sheet, row),
        "card": _card(row, records),
        "metrics": [info.heading for info in _metrics(records).values()],
        "lines": _lines(sheet, records),
        "flags": list(dict.fromkeys(pair for record in records for pair in explained_flags(record))),
        "cards": [
            _evidence(sheet, record, card) for record, card in zip(records, cards) if record["status"] == "ok"
        ],
        "alarms": words.alarm_values(_alarms(sheet, row.name), {}),
        "nights": _nights(sheet, row.name),
        "data": {"nights": _series(sheet, row.name)},
    }
    pictures = {card.file: card.picture for card in cards if card.picture}
    return values, pictures


def _facts(sheet: Sheet, row: Row) -> list[tuple[str, str]]:
    """The defense in a few pairs of words and numbers."""
    seen, night = sheet.last_seen(row.name), sheet.verified(row.name)
    worst, loss = row.worst, words.fraction(row.loss)
    return [
        ("Place", row.place or "not ranked"),
        ("Worst case of AA", _with_interval(words.fraction(worst.value), words.interval(worst))),
        ("MC(all)", _with_interval(words.fraction(row.mc_all.value), words.interval(row.mc_all))),
        ("MC(l_t)", _with_interval(words.fraction(row.mc_target.value), words.interval(row.mc_target))),
        ("Loss of MC(all)", loss if loss == words.NONE else f"{loss} points"),
        ("Time of its tasks", words.seconds(seen.wall_s if seen else None)),
        ("Peak memory", words.mebibytes(seen.peak_mib if seen else None)),
        ("Last verified", words.day(night) or "no night yet"),
    ]


def _with_interval(value: str, ends: str) -> str:
    """A percentage and its interval."""
    if value == words.NONE:
        return value
    return f"{value} % [{ends}]" if ends else f"{value} %"


def _card(row: Row, records: Sequence[Json]) -> list[dict[str, str]]:
    """What the method is, who sent it, and how it was configured."""
    told, entry = part(records[0], "defense"), row.entry
    paper = plain(entry.paper if entry else "")
    knows = told.get("knows") or ()
    pairs = [
        ("Method", f"{plain(told.get('name', '?'))}, version {plain(told.get('version', '?'))}"),
        ("Title", plain(told.get("title", ""))),
        ("Year", plain(told.get("year") or "")),
        ("Paper", paper),
        ("Authors", plain(entry.authors if entry else "")),
        ("Submitted", entry.submitted if entry else ""),
        ("Numbers", f"{row.trust}: {TRUST[row.trust]}"),
        ("Acts on", plain(told.get("acts", ""))),
        ("Knows", plain(", ".join(map(str, knows)) if isinstance(knows, list | tuple) else "") or "nothing"),
        ("Models", "one for each protected person" if told.get("per_target") else "one for all people"),
        ("Differs from the paper", plain("; ".join(map(str, told.get("deviations") or ())))),
        ("Settings", plain(json.dumps(part(told, "params"), sort_keys=True, ensure_ascii=False))),
        ("Source, SHA-256", entry.source if entry else ""),
    ]
    return [
        {"name": name, "text": text, "href": words.paper_address(text) if name == "Paper" else ""}
        for name, text in pairs
        if text
    ]


def _metrics(records: Sequence[Json]) -> dict[str, Any]:
    infos = metric_infos(records)
    return {name: infos[name] for name in SHOWN if name in infos}


def _lines(sheet: Sheet, records: Sequence[Json]) -> list[dict[str, Any]]:
    """One line a cell: the attack, its access, view, seed, numbers."""
    infos, anchors = _metrics(records), sheet.anchors
    found: list[dict[str, Any]] = []
    for record in records:
        label, attack = attack_label(record), part(record, "attack")
        is_ok = record["status"] == "ok"
        found.append({
            "attack": label,
            "control": bool(attack.get("control")),
            "anchor": f"evidence-{record['cell']}" if is_ok else "",
            "id": anchors.get(label, "") if label not in {one["attack"] for one in found} else "",
            "access": plain(attack.get("access", ""), 20),
            "detail": f"{plain(record.get('view'), 20)}, seed {record.get('seed')}",
            "status": str(record["status"]),
            "reason": reason(record),
            "numbers": [
                dict(zip(("shown", "extra"), estimate_text(part(record, "estimates").get(name), info)))
                for name, info in infos.items()
            ],
        })  # fmt: skip
    return found


def _evidence(sheet: Sheet, record: Json, card: Card) -> dict[str, Any]:
    """The card of a cell: its picture, what the models say, and the command that tells more."""
    estimate = part(record, "estimates").get("aa")
    aa = metric_infos([record]).get("aa")
    value, ends = estimate_text(estimate, aa) if aa else (words.NONE, "")
    return {
        "id": f"evidence-{record['cell']}",
        "attack": attack_label(record),
        "detail": f"{plain(record.get('view'), 20)}, seed {record.get('seed')}",
        "aa": value,
        "interval": ends,
        "cell": str(record["cell"]),
        "card": card,
        "file": f"{PICTURES}/{card.file}",
    }


def _alarms(sheet: Sheet, name: str) -> list[Any]:
    """The open alarms of a defense."""
    return [one for one in (sheet.nights[-1].alarms if sheet.nights else ()) if words.is_of(one, name)]


def _nights(sheet: Sheet, name: str) -> list[dict[str, Any]]:
    """One line a night that knew the defense, the newest first."""
    return [
        {
            "night": night.night,
            "day": words.day(night),
            "status": seen.status.replace("_", " "),
            "why": plain(seen.why),
            "ran": seen.ran,
            "place": "\N{EN DASH}".join(dict.fromkeys(map(str, seen.ranks))),
            "worst": words.cell(seen.worst),
            "mc_all": words.cell(seen.mc_all),
            "mc_target": words.cell(seen.mc_target),
            "time": words.seconds(seen.wall_s),
            "memory": words.mebibytes(seen.peak_mib),
            "alarms": [words.alarm_text(one) for one in night.alarms if words.is_of(one, name)],
        }
        for night in reversed(sheet.nights)
        if (seen := night.entries.get(name)) is not None
    ]


def _series(sheet: Sheet, name: str) -> list[dict[str, Any]]:
    """What the charts of the page read, a point a night."""
    return [_point(night, name) for night in sheet.nights if name in night.entries]


def _point(night: Night, name: str) -> dict[str, Any]:
    seen = night.entries[name]
    return {
        "night": night.night,
        "day": words.day(night),
        "href": f"nights.html#night-{night.night}",
        "status": seen.status,
        "worst": words.numbers(seen.worst),
        "mc_all": words.numbers(seen.mc_all),
        "mc_target": words.numbers(seen.mc_target),
        "wall_s": seen.wall_s,
        "peak_mib": seen.peak_mib,
        "alarms": [words.alarm_text(one) for one in night.alarms if words.is_of(one, name)],
    }
