"""What the pages of nights and the list of boards show."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from mibench.boards.history import Night
from mibench.boards.site import words
from mibench.boards.site.reading import Sheet
from mibench.report.escape import plain


def night_values(sheet: Sheet) -> dict[str, Any]:
    """The values of the template nights.html.j2."""
    return {
        "board": sheet.board.name,
        "board_title": plain(sheet.board.rules.title),
        "nights": [
            _night(sheet, night, before)
            for night, before in reversed(list(zip(sheet.nights, (None, *sheet.nights))))
        ],
        "wanted": sheet.board.rules.alarms,
    }


def index_values(sheets: Sequence[Sheet]) -> dict[str, Any]:
    """The values of the template boards.html.j2."""
    return {"boards": [_board(sheet) for sheet in sheets]}


def _night(sheet: Sheet, night: Night, before: Night | None) -> dict[str, Any]:
    """One night; its software where it differs from that of the night before."""
    is_new = before is None or before.software != night.software
    changed = {name: seen.status for name, seen in night.entries.items() if seen.status != "ok"}
    return {
        "night": night.night,
        "started": plain(night.started, 40),
        "ended": plain(night.ended, 40),
        "took": words.seconds(_took(night)),
        "software": ", ".join(
            f"{plain(name, 20)} {plain(value, 60)}"
            for name, value in sorted(night.software.items() if is_new else ())
        ),
        "cells": night.cells,
        "hits": night.hits,
        "ran": night.ran,
        "failed": night.failed,
        "left_out": night.left_out,
        "rechecked": [plain(cell, 64) for cell in night.rechecked],
        "alarms": words.alarm_values(night.alarms, sheet.files),
        "suspicions": words.alarm_values(night.suspicions, sheet.files),
        "accepted": [{"name": plain(name, 40), "file": sheet.files.get(name, "")} for name in night.accepted],
        "others": [
            {"name": plain(name, 40), "file": sheet.files.get(name, ""), "status": status.replace("_", " ")}
            for name, status in changed.items()
        ],
    }


def _took(night: Night) -> float | None:
    """The seconds between start and end; None where they are no times."""
    try:
        start, end = (datetime.datetime.fromisoformat(text) for text in (night.started, night.ended))
        return (end - start).total_seconds()
    except (ValueError, TypeError):  # TypeError: one of them has a time zone and the other none
        return None


def _board(sheet: Sheet) -> dict[str, Any]:
    """A board on the list."""
    rows = sheet.standings.rows
    ranked = [row for row in rows if row.ranks]
    leaders = [row for row in ranked if row.ranks and row.ranks[0] == 1]
    last = sheet.nights[-1] if sheet.nights else None
    return {
        "name": sheet.board.name,
        "title": plain(sheet.board.rules.title),
        "about": plain(sheet.board.rules.about),
        "access": sheet.board.rules.access,
        "defenses": len(rows),
        "ranked": len(ranked),
        "attacks": len(sheet.standings.attacks),
        "leaders": [
            {"name": row.name, "file": sheet.files[row.name], "worst": words.cell(row.worst)}
            for row in leaders
        ],
        "verified": words.day(last),
        "alarms": len(last.alarms) if last else 0,
    }
