"""The order of a board: worst case of AA over attacks at equal utility, with tie groups."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mibench.boards.board import Board, Rank
from mibench.boards.entry import Entry, Trust
from mibench.flags import attacks_people
from mibench.record import Record
from mibench.report.frame import Json, latest, number, part
from mibench.report.paired import runs_of, worst_people
from mibench.report.places import attack_label, defense_label
from mibench.report.ranks import Ranks, rank_ranges
from mibench.report.worst import worst_cases

BASELINE = "none"
STALE = "stale"
"""Flag of a record whose cell would give another one today, and had no time yet."""
_SPOILS = "judge_below_gate"  # a judge that knows nobody judges nothing; docs/adr/0008


@dataclass(frozen=True)
class Measured:
    """A number with its interval of 95 %; fractions in [0, 1], NaN where there is none."""

    value: float
    low: float
    high: float
    count: int = 0


_UNKNOWN = Measured(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Row:
    """A defense on a board.

    Args:
        name: of the entry, or the label that the suite gives it.
        title: of its paper or method.
        ranks: first and last rank that it may have; None where it is not ranked.
        why: why it is not ranked, one sentence; empty where it is.
        worst: worst case of AA over the attacks of the board.
        mc_all, mc_target: accuracy of the defended classifier, of all and of protected people; the mean over
            seeds, of attacks the one that it pays most for.
        loss: MC(all) of no defense less its own.
        attacks: by label of an attack the AA, mean over seeds.
        flags: of its records.
        trust: how its numbers came about; what the board's suite itself brings is re-run.
        entry: None for what the suite itself brings.
        cells: names of its cells.
    """

    name: str
    title: str
    ranks: tuple[int, int] | None
    why: str
    worst: Measured
    mc_all: Measured
    mc_target: Measured
    loss: float
    attacks: Mapping[str, Measured]
    flags: tuple[str, ...]
    trust: Trust
    entry: Entry | None
    cells: tuple[str, ...]

    @property
    def place(self) -> str:
        """The ranks as pages show them: `1`, `2` and `5` with a dash between, or nothing."""
        return "\N{EN DASH}".join(dict.fromkeys(map(str, self.ranks or ())))


@dataclass(frozen=True)
class Standings:
    """A board in order.

    Args:
        rows: ranked ones first, by first rank, last rank and worst case; then the others by worst case.
        attacks: labels of the attacks, in table order; controls are not among them.
        tests: number of pairs that the tie groups compare.
        least_p: the smallest p-value after Holm that a pair could have.
        is_one_tie: whether no two ranked defenses can be told apart.
    """

    rows: tuple[Row, ...]
    attacks: tuple[str, ...]
    tests: int
    least_p: float
    is_one_tie: bool


def standings(board: Board, entries: Mapping[str, Entry], records: Iterable[Json | Record]) -> Standings:
    """Rank what the records hold. Records of a defense are those whose defense has its label.

    Args:
        board: gives the rules.
        entries: by name, see `mibench.boards.entry.read_entries`.
        records: of all cells of the board.
    """
    kept = latest(records)
    groups: dict[str, list[Json]] = defaultdict(list)
    for record in kept:
        groups[defense_label(record)].append(record)
    people = contenders(kept)
    met = measured_attacks(groups.get(BASELINE, []))
    worst = {defense_label(one): _measured(one, "aa") for one in worst_cases(people)}
    sides = {name: _Side(name, tuple(group), worst.get(name), met) for name, group in groups.items()}
    baseline = sides.get(BASELINE, _Side(BASELINE, (), None, met))
    reasons = {name: _why_not(side, baseline, board.rules.rank) for name, side in sides.items()}
    ranked = _ranked(people, [name for name, why in reasons.items() if not why])
    rows = [
        _row(side, baseline, reasons[name], ranked.of.get(name), entries.get(name))
        for name, side in sides.items()
    ]
    attacks = tuple(dict.fromkeys(attack_label(one) for one in kept if attacks_people(one)))
    return Standings(
        tuple(sorted(rows, key=_order)), attacks, ranked.tests, ranked.least_p, ranked.is_one_tie
    )


def measured_attacks(records: Iterable[Json]) -> frozenset[tuple[str, str, str]]:
    """Label, view and seed of the attacks on people that records of one defense measured."""
    return frozenset(
        meeting(record) for record in records if attacks_people(record) and not _is_stale(record)
    )


def contenders(records: Iterable[Json | Record]) -> list[Json]:
    """The records that worst cases are drawn from, those of attacks on people.

    A defense that lacks an attack which the undefended classifier met is left out whole, or else its one
    missing cell would take that attack out of the worst case of everybody; so is a stale record. An attack
    that the undefended classifier did not meet counts for nobody, in the worst cases and in the places alike.
    """
    people = [one for one in latest(records) if attacks_people(one) and not _is_stale(one)]
    met: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for record in people:
        met[defense_label(record)].add(meeting(record))
    plain = met.get(BASELINE, set())
    return [
        one for one in people if met[defense_label(one)] >= plain and (not plain or meeting(one) in plain)
    ]


def meeting(record: Json) -> tuple[str, str, str]:
    """Label of the attack, view and seed of a record."""
    return attack_label(record), str(record.get("view")), str(record.get("seed"))


def _is_stale(record: Json) -> bool:
    return STALE in (record.get("flags") or ())


@dataclass(frozen=True)
class _Side:
    """The records of one defense, its worst case if it has one, and what met the undefended classifier."""

    name: str
    records: tuple[Json, ...]
    worst: Measured | None
    met: frozenset[tuple[str, str, str]]

    @property
    def people(self) -> list[Json]:
        """Its records of attacks on people, controls left out."""
        return [record for record in self.records if attacks_people(record)]

    @property
    def is_measured(self) -> bool:
        """Whether any of its cells has numbers."""
        return any(record.get("status") == "ok" for record in self.records)

    def paid(self, metric: str) -> Measured:
        """The mean of an accuracy over seeds, of the attacks that one where it is lowest."""
        found = _by_attack(self.people, metric).values()
        return min(found, key=lambda one: one.value, default=_UNKNOWN)

    def loss(self, baseline: _Side, metric: str) -> float:
        """How much lower an accuracy is than without a defense; NaN where one of them is not known."""
        return baseline.paid(metric).value - self.paid(metric).value


def _ranked(people: Sequence[Json], names: Sequence[str]) -> Ranks:
    """The ranks of the named defenses, the worst case of each person over the attacks being compared."""
    own = [record for record in people if defense_label(record) in names]
    runs: dict[str, list[Hashable]] = defaultdict(list)
    for record in own:
        runs[defense_label(record)].append(runs_of(record) or str(record.get("cell")))
    return rank_ranges(worst_people(own), runs)


def _row(own: _Side, baseline: _Side, why: str, ranks: tuple[int, int] | None, entry: Entry | None) -> Row:
    title = entry.title if entry and entry.title else part(own.records[0], "defense").get("title", "")
    flags = (str(flag) for record in own.people for flag in record.get("flags") or ())
    return Row(
        name=own.name,
        title=str(title),
        ranks=ranks,
        why=why,
        worst=own.worst or _UNKNOWN,
        mc_all=own.paid("mc_all"),
        mc_target=own.paid("mc_target"),
        loss=own.loss(baseline, "mc_all"),
        attacks=_by_attack(own.people, "aa"),
        flags=tuple(dict.fromkeys(flags)),
        # a board's numbers are its own: what a bundle said of itself is not among its records
        trust="re-run" if entry is None or own.is_measured else entry.trust,
        entry=entry,
        cells=tuple(str(record.get("cell")) for record in own.records),
    )


def _why_not(own: _Side, baseline: _Side, rank: Rank) -> str:
    """Why a defense is not ranked; empty where it is. The reasons are those of docs/adr/0008."""
    return _not_whole(own) or _too_dear(own, baseline, rank)


def _not_whole(own: _Side) -> str:
    """What a defense's numbers lack; empty where they are whole."""
    # an attack that fails on the undefended classifier as well is no fault of the defense
    lost = sum(record.get("status") != "ok" and meeting(record) in own.met for record in own.records)
    if lost:
        return f"{lost} of its {len(own.records)} cells failed or were blocked."
    if any(_is_stale(record) for record in own.records):
        return "Some of its numbers are of an older version, and wait for a night with time for them."
    if missing := len(own.met - measured_attacks(own.records)):
        return f"{missing} of its cells are not measured yet."
    if own.worst is None:
        return "Fewer than two attacks measured it."
    spoiled = any(_SPOILS in (record.get("flags") or ()) for record in own.records)
    return "The judge knows too few people." if spoiled else ""


def _too_dear(own: _Side, baseline: _Side, rank: Rank) -> str:
    """Which accuracy falls below the board's floor; empty where none does."""
    for metric, most, words in (
        ("mc_all", rank.max_loss, "all people"),
        ("mc_target", rank.max_target_loss, "the protected people"),
    ):
        loss = own.loss(baseline, metric)
        if math.isnan(loss):
            return f"Its accuracy on {words}, or that of no defense, is not known."
        if loss > most + 1e-9:  # of rounding
            points = f"{100 * loss:.1f} points of accuracy on {words}"
            return f"It loses {points}; the board allows {100 * most:g}."
    return ""


def _by_attack(records: Sequence[Json], metric: str) -> dict[str, Measured]:
    """By attack the mean over seeds and views, and of the ends of the intervals."""
    found: dict[str, list[Measured]] = defaultdict(list)
    for record in records:
        one = _measured(record, metric)
        if not math.isnan(one.value):
            found[attack_label(record)].append(one)
    return {
        label: Measured(
            fmean(one.value for one in all_),
            fmean(one.low for one in all_),
            fmean(one.high for one in all_),
            sum(one.count for one in all_),
        )
        for label, all_ in found.items()
    }


def _measured(record: Json, metric: str) -> Measured:
    estimate = part(record, "estimates").get(metric) or {}
    value, low, high = (number(estimate.get(end)) for end in ("value", "low", "high"))
    count = estimate.get("count")
    return Measured(value, low, high, count if isinstance(count, int) else 0)


def _order(row: Row) -> tuple[float, float, float, str]:
    first, last = row.ranks or (math.inf, math.inf)
    worst = row.worst.value
    return first, last, math.inf if math.isnan(worst) else worst, row.name
