"""Changes for the worse between nights: what is suspicious tonight, and what has been so for long enough.

A night is held against the reference: the last night on which the row was measured and showed nothing, or
whose level a keeper has taken since. So a slow decline does not get lost in small steps between two nights,
and a change that stays is an alarm until the level returns.

Of a defense it is worse if its worst case of AA rises or an accuracy falls; of an attack, held against the
undefended classifier, if its AA falls there: all defenses look better then, and none of them is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mibench.boards.board import Alarms
from mibench.boards.entry import Kind
from mibench.boards.history import Alarm, Estimate, Night, Seen, What
from mibench.report.paired import by_person
from mibench.statistics import mean_change

_ROUNDING = 1e-9  # of a difference of two equal numbers
Place = tuple[Kind, str, What]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What tonight says of one number of one row.

    Args:
        before, now, low, high, cell, note: as in `mibench.boards.history.Alarm`.
        is_worse: whether it is worse than the reference.
    """

    is_worse: bool
    before: float | None = None
    now: float | None = None
    low: float | None = None
    high: float | None = None
    cell: str = ""
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """The alarms and the suspicions of a night."""

    alarms: tuple[Alarm, ...]
    suspicions: tuple[Alarm, ...]


def marked(kind: Kind, name: str) -> str:
    """A row's name as `accepted` has it."""
    return f"attack:{name}" if kind == "attack" else name


def judge(
    history: Sequence[Night],
    defenses: Mapping[str, Seen],
    attacks: Mapping[str, Seen],
    *,
    rules: Alarms,
    accepted: Iterable[str] = (),
    more: Mapping[Place, Evidence] | None = None,
) -> Verdict:
    """What is to be told of a night.

    A number about which tonight says nothing (the row failed, was left out, or was not timed) keeps the
    suspicion or the alarm that it had, and it does not count as another night in a row.

    Args:
        history: earlier nights in order.
        defenses: what tonight saw of each, by name.
        attacks: likewise, on the undefended classifier.
        rules: what counts.
        accepted: names of rows whose last level a keeper has taken, see `marked`.
        more: what was found beside AA, accuracies and the status: times, memory, rechecked records.
    """
    taken = frozenset(accepted)
    evidence: dict[Place, Evidence] = dict(more or {})
    for kind, rows in _rows(defenses, attacks):
        for name, seen in rows.items():
            past = _Past(history, kind, name, taken)
            for what, found in _compared(past, kind, seen).items():
                if found is not None:
                    evidence[kind, name, what] = found
    here: set[tuple[Kind, str]] = {
        (kind, name)
        for kind, rows in _rows(defenses, attacks)
        for name, seen in rows.items()
        if seen.status != "removed"
    }
    before = flagged(history[-1]) if history else {}
    known = {
        place: one
        for place, one in before.items()
        if place[:2] in here and marked(place[0], place[1]) not in taken
    }
    found_now = [
        alarm
        for place in dict.fromkeys([*known, *evidence])
        if (alarm := _next(place, known.get(place), evidence.get(place), rules.nights)) is not None
    ]
    return Verdict(
        tuple(one for one in found_now if one.nights >= rules.nights),
        tuple(one for one in found_now if one.nights < rules.nights),
    )


def flagged(night: Night) -> dict[Place, Alarm]:
    """The alarms and suspicions of a night by their place."""
    return {(one.kind, one.entry, one.what): one for one in (*night.suspicions, *night.alarms)}


def _rows(
    defenses: Mapping[str, Seen], attacks: Mapping[str, Seen]
) -> tuple[tuple[Kind, Mapping[str, Seen]], tuple[Kind, Mapping[str, Seen]]]:
    return ("defense", defenses), ("attack", attacks)


def _next(place: Place, known: Alarm | None, found: Evidence | None, nights: int) -> Alarm | None:
    """What becomes of a suspicion, or of an alarm, by tonight's evidence."""
    if found is None:
        return None if known is None else replace(known, is_new=False)
    if not found.is_worse:
        return None
    count = 1 if known is None else known.nights + 1
    was_open = known is not None and known.nights >= nights
    kind, entry, what = place
    return Alarm(
        entry=entry,
        what=what,
        before=found.before,
        now=found.now,
        low=found.low,
        high=found.high,
        nights=count,
        is_new=count >= nights and not was_open,
        kind=kind,
        cell=found.cell,
        note=found.note,
    )


@dataclass(frozen=True)
class _Past:
    """The nights before, as one row sees them."""

    history: Sequence[Night]
    kind: Kind
    name: str
    taken: frozenset[str]

    def reference(self, what: What, against: str = "") -> Seen | None:
        """What the last night saw that was measured and showed nothing, or whose level was taken."""
        own = marked(self.kind, self.name)
        is_taken = own in self.taken
        for night in reversed(self.history):
            seen = (night.attacks if self.kind == "attack" else night.entries).get(self.name)
            if seen is not None and seen.status == "removed":
                return None
            is_bare = (self.kind, self.name, what) not in flagged(night)
            if seen is not None and seen.status == "ok" and (is_bare or is_taken):
                if what != "aa" or seen.against == against:
                    return seen
            elif is_taken and seen is not None:
                return None  # what was taken has no numbers, and what lies before it is past
            is_taken = own in night.accepted
        return None


def _compared(past: _Past, kind: Kind, seen: Seen) -> dict[What, Evidence | None]:
    """Tonight against the reference, number by number; None where tonight says nothing."""
    status = _status(past, seen)
    if seen.status != "ok":
        return {"status": status}
    if kind == "attack":
        return {"aa": _shares(past, seen, sign=-1), "status": status}
    return {
        "aa": _shares(past, seen, sign=1),
        "mc_all": _accuracy(past, "mc_all", seen.mc_all),
        "mc_target": _accuracy(past, "mc_target", seen.mc_target),
        "status": status,
    }


def _status(past: _Past, seen: Seen) -> Evidence | None:
    """Whether what worked once fails."""
    if seen.status == "failed":
        return Evidence(is_worse=True, note=seen.why) if past.reference("status") else None
    return Evidence(is_worse=False) if seen.status == "ok" else None


def _shares(past: _Past, seen: Seen, *, sign: int) -> Evidence | None:
    """The change of AA, person by person; worse in the direction of the sign."""
    reference = past.reference("aa", seen.against)
    both = sorted(seen.people.keys() & reference.people.keys()) if reference else []
    if reference is None or not both:
        return None
    now, before = (by_person({_split(one): side.people[one] for one in both}) for side in (seen, reference))
    low, high = mean_change(now - before)
    return Evidence(
        is_worse=low > _ROUNDING if sign > 0 else high < -_ROUNDING,
        before=float(before.mean()),
        now=float(now.mean()),
        low=low,
        high=high,
    )


def _split(word: str) -> tuple[str, str]:
    who, _, seed = word.rpartition("/")
    return who, seed


def _accuracy(past: _Past, what: What, now: Estimate) -> Evidence | None:
    reference = past.reference(what)
    before = None if reference is None else {"mc_all": reference.mc_all}.get(what, reference.mc_target)
    interval = None if before is None else difference(before, now)
    if before is None or interval is None:
        return None
    low, high = interval
    return Evidence(is_worse=high < -_ROUNDING, before=before.value, now=now.value, low=low, high=high)


def difference(before: Estimate, now: Estimate) -> tuple[float, float] | None:
    """The 95 % interval of the difference of two shares from their own intervals; None where one is unknown.

    The two are taken to be independent. Both ask the same images, and agree on most, so the interval is
    wider than it must be.
    Source: Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10.

    >>> one = Estimate(value=0.9, low=0.85, high=0.93)
    >>> [round(end, 3) for end in difference(one, Estimate(value=0.8, low=0.74, high=0.85)) or ()]
    [-0.167, -0.029]
    """
    ends = (before.value, before.low, before.high, now.value, now.low, now.high)
    if any(end is None for end in ends):
        return None
    old, old_low, old_high, new, new_low, new_high = (float(end) for end in ends if end is not None)
    change = new - old
    return (
        change - math.hypot(new - new_low, old_high - old),
        change + math.hypot(new_high - new, old - old_low),
    )
