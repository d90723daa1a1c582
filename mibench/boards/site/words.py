"""Numbers, dates, alarms and addresses as the pages print them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from mibench.boards.history import Alarm, Night
from mibench.report.escape import plain
from mibench.report.frame import number

_ARXIV = re.compile(r"\s*arxiv:\s*(\d{4}\.\d{4,5})(?:v\d{1,2})?\s*", re.IGNORECASE)
_DOI = re.compile(r"\s*(?:doi:\s*)?(10\.\d{4,9}/[A-Za-z0-9._;()/:-]{1,200})\s*", re.IGNORECASE)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
TITLES = {
    "aa": "worst case of AA", "mc_all": "MC(all)", "mc_target": "MC(l_t)", "wall_s": "time",
    "peak_mib": "memory",
}  # fmt: skip
NONE = "n/a"


class Interval(Protocol):
    """A number with its interval, of a table or of a night; fractions in [0, 1]."""

    @property
    def value(self) -> float | None: ...  # noqa: D102 - the protocol's docstring says it
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102


def fraction(value: float | None) -> str:
    """A fraction as a percentage without its sign, one decimal; `n/a` for none."""
    known = number(value)
    return NONE if math.isnan(known) else f"{100 * known:.1f}"


def interval(one: Interval | None) -> str:
    """The ends of an interval, as percentages; empty where there is none."""
    low, high = (math.nan, math.nan) if one is None else (number(one.low), number(one.high))
    return f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}" if low < high else ""


def numbers(one: Interval | None) -> dict[str, Any] | None:
    """The number as JSON, nothing where there is none."""
    if one is None or math.isnan(number(one.value)):
        return None
    ends = {name: number(getattr(one, name)) for name in ("value", "low", "high")}
    return {name: None if math.isnan(end) else end for name, end in ends.items()} | {"count": one.count}


def cell(one: Interval | None) -> dict[str, Any]:
    """A number for a table: as shown, its interval, what it is sorted by, and a shade from 0 to 10."""
    value = number(one.value) if one is not None else math.nan
    known = not math.isnan(value)
    return {
        "shown": fraction(value),
        "extra": interval(one) if known else "",
        # what is not known stands behind every number
        "order": f"{value:.6f}" if known else "2",
        "shade": min(max(round(10 * value), 0), 10) if known else 0,
    }


def seconds(value: float | None) -> str:
    """A time in seconds, minutes or hours; `n/a` for none."""
    known = number(value)
    if math.isnan(known):
        return NONE
    for size, word in ((3600.0, "h"), (60.0, "min")):
        if known >= size:
            return f"{known / size:.1f} {word}"
    return f"{known:.1f} s"


def mebibytes(value: float | None) -> str:
    """A size of memory; `n/a` for none."""
    known = number(value)
    return NONE if math.isnan(known) else f"{known:,.0f} MiB"


def day(night: Night | None) -> str:
    """The date on which a night ended; empty for none."""
    found = _DAY.match(night.ended) if night else None
    return found.group() if found else ""


def alarm_text(alarm: Alarm) -> str:
    """What an alarm says, in one sentence."""
    note = plain(alarm.note)
    nights = f"{alarm.nights} {'night' if alarm.nights == 1 else 'nights'} in a row"
    if alarm.what == "status":
        return " ".join(filter(None, (f"It works no longer, {nights}.", note)))
    if alarm.what == "record":
        return (
            f"Cell {plain(alarm.cell, 64)}, computed again, gave another record{f': {note}' if note else ''}."
        )
    what = TITLES[alarm.what]
    form = {"wall_s": seconds, "peak_mib": mebibytes}.get(alarm.what, _percent)
    text = f"{what[0].upper()}{what[1:]} went from {form(alarm.before)} to {form(alarm.now)}"
    low, high = number(alarm.low), number(alarm.high)
    if low < high:
        text += f" (difference {100 * low:+.1f} to {100 * high:+.1f} points)"
    return f"{text}, {nights}."


def alarm_values(alarms: Sequence[Alarm], files: Mapping[str, str]) -> list[dict[str, Any]]:
    """Alarms for a template: who, the page of that defense or nothing, what, whether it is new."""
    return [
        {
            "name": f"attack {plain(one.entry, 40)}" if _is_attack(one) else plain(one.entry, 40),
            "file": "" if _is_attack(one) else files.get(one.entry, ""),
            "text": alarm_text(one),
            "is_new": one.is_new,
        }
        for one in alarms
    ]


def is_of(alarm: Alarm, name: str) -> bool:
    """Whether an alarm is about the defense of this name."""
    return alarm.entry == name and not _is_attack(alarm)


def _is_attack(alarm: Alarm) -> bool:
    return alarm.kind == "attack"


def paper_address(text: str) -> str:
    """The address of a paper named as arXiv:2310.06549 or by its DOI; empty for any other text.

    Only these two forms become links, so that no entry chooses where a page leads.
    """
    if found := _ARXIV.fullmatch(text):
        return f"https://arxiv.org/abs/{found.group(1)}"
    if found := _DOI.fullmatch(text):
        return f"https://doi.org/{found.group(1)}"
    return ""


def _percent(value: float | None) -> str:
    return f"{fraction(value)} %"
