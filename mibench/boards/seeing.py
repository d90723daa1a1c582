"""What a night saw of each row: the numbers that its line in the history holds."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from mibench.boards.assembling import Assembled
from mibench.boards.board import Board
from mibench.boards.history import EntryStatus, Estimate, Night, Seen
from mibench.boards.pace import Costs, own_tasks, rows_of_tasks, spent
from mibench.boards.standing import (
    BASELINE,
    STALE,
    Row,
    contenders,
    measured_attacks,
    meeting,
    standings,
)
from mibench.boards.strict import digest
from mibench.flags import attacks_people
from mibench.key import Key
from mibench.record import Record
from mibench.report.frame import Json
from mibench.report.paired import Attacked, people_shares, worst_people
from mibench.report.places import attack_label, defense_label
from mibench.statistics import grouped_wilson

_UNKNOWN = Estimate(value=None)
_DIGITS = 12  # of a person's name in the history: enough to tell those of one board apart


def seen_defenses(
    board: Board,
    found: Assembled,
    records: Sequence[Record],
    *,
    ran: Collection[Key],
    costs: Costs,
    left_out: Collection[str],
) -> dict[str, Seen]:
    """By label what the night saw of each defense, and of entries of defenses that cannot be used.

    Args:
        board: gives the rules.
        found: what the night was about.
        records: of the board after it.
        ran: keys of the tasks that it computed.
        costs: of all tasks, as far as they are known.
        left_out: names of the cells that had no time.
    """
    order = {row.name: row for row in standings(board, found.entries, records).rows}
    people = {name: _words(shares) for name, shares in worst_people(contenders(records)).items()}
    own, rows, against = own_tasks(found.plan), rows_of_tasks(found.plan), _against(found, records)
    late = {cell.defense.label for cell in found.plan.cells if cell.id in left_out}
    ill = _ill(records)
    seen = {}
    for label in dict.fromkeys(one.label for one in found.suite.defenses):
        row = order.get(label)
        status, why = _status(label, row, ill, late)
        wall_s, peak_mib = spent(own.get(label, ()), costs)
        seen[label] = Seen(
            status=status,
            digest=found.entries[label].digest if label in found.entries else "",
            ran=sum(label in rows.get(key, ()) for key in ran),
            ranks=(row.ranks if row else None) or (),
            worst=Estimate.of(row.worst) if row else _UNKNOWN,
            mc_all=Estimate.of(row.mc_all) if row else _UNKNOWN,
            mc_target=Estimate.of(row.mc_target) if row else _UNKNOWN,
            people=people.get(label, {}),
            wall_s=wall_s,
            peak_mib=peak_mib,
            against=against,
            why=f"{why:.300}",
        )
    return {**seen, **_unusable(found, "defense")}


def seen_attacks(found: Assembled, records: Iterable[Record]) -> dict[str, Seen]:
    """By label what the night saw of each attack on the undefended classifier; controls are left out."""
    groups: dict[str, list[Json]] = defaultdict(list)
    ill: dict[str, str] = {}
    for one in records:
        record = vars(one)
        if defense_label(record) != BASELINE or record["attack"].get("control"):
            continue
        if one.status == "failed":
            ill.setdefault(attack_label(record), (one.error or {}).get("message", ""))
        if attacks_people(record):
            groups[attack_label(record)].append(record)
    seen = {}
    for label in dict.fromkeys(one.label for one in found.suite.attacks if not one.plugin.control):
        group = groups.get(label, [])
        shares = {who: share for record in group for who, share in people_shares(record).items()}
        is_old = any(STALE in record["flags"] for record in group)
        status: EntryStatus = "failed" if label in ill else "ok" if group and not is_old else "left_out"
        seen[label] = Seen(
            status=status,
            digest=found.entries[label].digest if label in found.entries else "",
            worst=_mean(group),
            mc_all=_UNKNOWN,
            mc_target=_UNKNOWN,
            people=_words(shares),
            why=f"{ill.get(label, ''):.300}",
        )
    return {**seen, **_unusable(found, "attack")}


def with_removed(seen: Mapping[str, Seen], before: Mapping[str, Seen]) -> dict[str, Seen]:
    """Tonight's rows, and those that went since the night before with their last numbers."""
    gone = {
        name: dataclasses.replace(last, status="removed", ran=0, ranks=(), why="")
        for name, last in before.items()
        if name not in seen and last.status != "removed"
    }
    return {**seen, **gone}


def last_seen(history: Sequence[Night]) -> tuple[Mapping[str, Seen], Mapping[str, Seen]]:
    """The defenses and the attacks of the last night."""
    return (history[-1].entries, history[-1].attacks) if history else ({}, {})


def _status(
    label: str, row: Row | None, ill: Mapping[str, str], late: Collection[str]
) -> tuple[EntryStatus, str]:
    """The status of a row, and why where it is not ok."""
    if label in ill:
        return "failed", ill[label]
    if label in late or row is None or math.isnan(row.mc_all.value):
        return "left_out", "The budget left some of its cells out." if label in late else "It has no numbers."
    return "ok", ""


def _ill(records: Sequence[Record]) -> dict[str, str]:
    """By defense why one of its cells failed; an attack that fails without a defense too is not counted."""
    plain = [vars(one) for one in records if defense_label(vars(one)) == BASELINE]
    met = measured_attacks(plain)
    found: dict[str, str] = {}
    for record in records:
        if record.status == "failed" and (not met or meeting(vars(record)) in met):
            found.setdefault(defense_label(vars(record)), (record.error or {}).get("message", ""))
    return found


def _unusable(found: Assembled, kind: str) -> dict[str, Seen]:
    """Entries that cannot be used; those that nobody can read count as defenses."""
    return {
        name: Seen(status="failed", worst=_UNKNOWN, mc_all=_UNKNOWN, mc_target=_UNKNOWN, why=f"{why:.300}")
        for name, why in found.failed.items()
        if found.kinds.get(name, "defense") == kind
    }


def _words(shares: Mapping[Attacked, float]) -> dict[str, float]:
    """Shares by one word for person and seed."""
    return {f"{digest(who)[:_DIGITS]}/{seed}": share for (who, seed), share in sorted(shares.items())}


def _against(found: Assembled, records: Iterable[Record]) -> str:
    """A digest of the attacks that the worst case is over, of the entries among them with their source."""
    plain = [vars(one) for one in records if defense_label(vars(one)) == BASELINE]
    params = {attack_label(one): [one["attack"].get(name) for name in ("name", "version")] for one in plain}
    return digest(
        [
            [*met, *params[met[0]], found.entries[met[0]].digest if met[0] in found.entries else ""]
            for met in sorted(measured_attacks(plain))
        ]
    )[:_DIGITS]


def _mean(group: Sequence[Json]) -> Estimate:
    """AA of an attack over the protected people of its records, as one interval over people."""
    import numpy as np

    hits: list[bool] = []
    people: list[int] = []
    names: dict[str, int] = {}
    for record in group:
        for label, marks in record["hits"].items():
            who = names.setdefault(label, len(names))
            hits += [mark == "1" for mark in marks]
            people += [who] * len(marks)
    if not hits:
        return _UNKNOWN
    found = np.array(hits)
    low, high = grouped_wilson(found, np.array(people))
    return Estimate(value=float(found.mean()), low=low, high=high, count=len(hits))
