"""What the page of a board shows: its table, the plot of privacy against utility, alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mibench.boards.site import words
from mibench.boards.site.reading import Sheet
from mibench.boards.standing import BASELINE, Row
from mibench.report.caption import spans
from mibench.report.escape import CSV_FORMULA, LATEX, plain
from mibench.report.flag_meanings import explained_flags
from mibench.report.frame import Json, data_label, defense_acts, number, part
from mibench.report.groups import by_member, groups

SYMBOLS = {"*": "star", "o": "circle", "s": "square", "^": "triangle"}
"""The markers of the figures by the names that the plotting library of the pages has."""
TRUST = {
    "re-run": "computed by the board itself",
    "recomputed": "recomputed from the author's reconstructions",
    "self-reported": "as the author reports them",
}


def board_values(sheet: Sheet) -> dict[str, Any]:
    """The values of the template board.html.j2."""
    rows = [_line(sheet, row) for row in sheet.standings.rows]
    last = sheet.nights[-1] if sheet.nights else None
    return {
        "board": sheet.board.name,
        "title": plain(sheet.board.rules.title),
        "about": plain(sheet.board.rules.about),
        "facts": _facts(sheet),
        "caption": _caption(sheet),
        "rules": _rules(sheet),
        "attacks": _attacks(sheet),
        "accesses": list(dict.fromkeys(sheet.access.values())),
        "rows": rows,
        "flags": _flags(sheet),
        "waiting": [
            {"name": name, "kind": entry.kind, "title": plain(entry.title)}
            for name, entry in sheet.waiting.items()
        ],
        "alarms": words.alarm_values(last.alarms if last else (), sheet.files),
        "nights": len(sheet.nights),
        "data": _data(sheet, rows),
    }


def _line(sheet: Sheet, row: Row) -> dict[str, Any]:
    """A row of the table."""
    night = sheet.verified(row.name)
    first, last = row.ranks or (0, 0)
    return {
        "name": row.name,
        "title": plain(row.title),
        "file": sheet.files[row.name],
        "place": row.place,
        "first": first,
        "last": last,
        "why": plain(row.why),
        "worst": words.cell(row.worst),
        "mc_all": words.cell(row.mc_all),
        "mc_target": words.cell(row.mc_target),
        "loss": _loss(row),
        "attacks": [words.cell(row.attacks.get(label)) for label in sheet.standings.attacks],
        "flags": [plain(flag.replace("_", " ")) for flag in row.flags],
        "trust": row.trust,
        "trust_words": TRUST[row.trust],
        "verified": words.day(night),
        "night": night.night if night else 0,
        "is_baseline": row.name == BASELINE,
    }


def _loss(row: Row) -> dict[str, str]:
    known = not math.isnan(row.loss)
    return {
        "shown": f"{100 * row.loss:+.1f}" if known else words.NONE,
        "order": str(row.loss if known else 2),
    }


def _data(sheet: Sheet, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the scripts of the page read: numbers unrounded, and how downloads are escaped."""
    acts = defense_acts(sheet.records)
    looks = by_member(acts)
    return {
        "board": sheet.board.name,
        "title": plain(sheet.board.rules.title),
        "attacks": list(sheet.standings.attacks),
        "escape": {"latex": LATEX, "formula": list(CSV_FORMULA)},
        "groups": [
            {"title": one.title, "color": one.color, "symbol": SYMBOLS.get(one.marker, "diamond")}
            for one in groups(acts)
        ],
        "rows": [
            {
                "name": row.name,
                "title": line["title"],
                "href": line["file"],
                "group": looks[row.name].title,
                "place": list(row.ranks or ()),
                "worst": words.numbers(row.worst),
                "mc_all": words.numbers(row.mc_all),
                "mc_target": words.numbers(row.mc_target),
                "loss": None if math.isnan(row.loss) else row.loss,
                "attacks": {name: words.numbers(one) for name, one in row.attacks.items()},
                "flags": list(row.flags),
                "trust": row.trust,
                "why": line["why"],
                "verified": line["verified"],
            }
            for row, line in zip(sheet.standings.rows, rows, strict=True)
        ],
    }


def _facts(sheet: Sheet) -> list[tuple[str, str]]:
    """The board in a few pairs of words and numbers."""
    ranked = sum(row.ranks is not None for row in sheet.standings.rows)
    newest = max((words.day(night) for night in sheet.nights), default="")
    data = dict.fromkeys(data_label(part(record, "data")) for record in sheet.records)
    return [
        ("Defenses", f"{len(sheet.standings.rows)}, {ranked} ranked"),
        ("Attacks", str(len(sheet.standings.attacks))),
        ("Cells", str(len(sheet.records))),
        ("Data", "; ".join(data) or words.NONE),
        ("Highest access", sheet.board.rules.access),
        ("Last verified", newest or "no night yet"),
    ]


def _caption(sheet: Sheet) -> list[str]:
    """The facts without which the numbers say nothing: chance, the judge's own accuracy, seeds."""
    chance = spans((100 * number(one.get("chance")) for one in sheet.records), "{:.1f}", " %")
    judges = [part(one, "judge") for one in sheet.records]
    known = spans((100 * number(one.get("accuracy")) for one in judges), "{:.1f}", " %")
    nets = ", ".join(dict.fromkeys(plain(one["net"], 40) for one in judges if one.get("net")))
    seeds = spans(number(one.get("seed")) for one in sheet.records)
    facts = [
        (chance, f"Chance level of AA: {chance}."),
        (known, f"The judge ({nets}) recognizes {known} of real test images."),
        (seeds, f"{'Seeds' if ' ' in seeds else 'Seed'} {seeds}."),
    ]
    return [text for value, text in facts if value]


def _rules(sheet: Sheet) -> dict[str, str]:
    """How the board ranks."""
    rank, order = sheet.board.rules.rank, sheet.standings
    return {
        "max_loss": f"{100 * rank.max_loss:g}",
        "max_target_loss": f"{100 * rank.max_target_loss:g}",
        "tests": str(order.tests),
        "one_tie": "yes" if order.is_one_tie else "",
    }


def _attacks(sheet: Sheet) -> list[dict[str, str]]:
    """The columns of attacks: label, anchor on the pages of defenses, access, title, year."""
    told: dict[str, Json] = {}
    for record in sheet.records:
        attack = part(record, "attack")
        told.setdefault(plain(attack.get("label", "?"), 40), attack)
    return [
        {
            "label": label,
            "anchor": sheet.anchors[label],
            "access": sheet.access.get(label, ""),
            "title": plain(told[label].get("title", "")),
            "year": plain(told[label].get("year") or ""),
        }
        for label in sheet.standings.attacks
    ]


def _flags(sheet: Sheet) -> list[dict[str, Any]]:
    """Every flag of the board, what it means, and whose records carry it."""
    found: dict[str, dict[str, Any]] = {}
    for row in sheet.standings.rows:
        for record in sheet.cells(row):
            for text, meaning in explained_flags(record):
                one = found.setdefault(text, {"text": text, "meaning": meaning, "rows": {}})
                one["rows"][row.name] = sheet.files[row.name]
    return list(found.values())
