"""`mibench compare`: a few defenses, or attacks, held against each other person by person.

The statistics are those of the reports: shares of hits by person (`paired`), sign flips with Holm's
correction and ranks (`ranks`), the worst case (`worst`), and what so many people can show (`power`).
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from mibench.errors import RecordError
from mibench.flags import attacks_people
from mibench.power import ALPHA, smallest_difference
from mibench.record import read_records
from mibench.report.frame import Json, latest, part
from mibench.report.paired import Attacked, by_person, people_shares, runs_of, worst_people
from mibench.report.ranks import PairTest, Ranks, Shares, pair_tests, rank_ranges
from mibench.report.worst import WORST
from mibench.statistics import mean_change

_FRACTION = 1e-6  # judges whose accuracies are nearer than this are taken for one


@dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Args:
        name: as the table prints it.
        folder: of its records.
        label: in these records.
        records: its cells that tell how well people are found; one of each cell.
    """

    name: str
    folder: Path
    label: str
    records: Sequence[Json] = field(repr=False)


@dataclass(frozen=True)
class Pair:
    """Two sides under one attack (or against one defense).

    Args:
        one, other: their names.
        people: on whom both were measured; somebody in several seeds counts once.
        aa: of the one and of the other on these people, in [0, 1].
        low, high: ends of the 95 % interval of the difference, one less other.
        test: the paired test; None where both are the very same runs.
    """

    one: str
    other: str
    people: int
    aa: tuple[float, float]
    low: float
    high: float
    test: PairTest | None

    @property
    def difference(self) -> float:
        """AA of the one less AA of the other, in [-1, 1]."""
        return self.aa[0] - self.aa[1]

    @property
    def is_told_apart(self) -> bool:
        """Whether the test, with Holm's correction, finds a difference."""
        return self.test is not None and self.test.p_holm < ALPHA


@dataclass(frozen=True)
class Line:
    """All pairs under one attack, or against one defense.

    Args:
        name: of the attack (or defense), with its view where there are several.
        pairs: in order.
        ranks: which ranks each side may have; rank 1 has the lowest AA.
    """

    name: str
    pairs: Sequence[Pair]
    ranks: Ranks


@dataclass(frozen=True)
class Compared:
    """What `compare` found.

    Args:
        sides: names, in the order asked for.
        of: "defense" or "attack", what the sides are.
        lines: an attack or defense each; of defenses also the worst case over attacks, the last.
        images: reconstructions of each person in a seed.
        seeds: that all sides have.
        sight: smallest difference in AA that so many people show among so many pairs, in words.
    """

    sides: Sequence[str]
    of: str
    lines: Sequence[Line]
    images: int
    seeds: Sequence[int]
    sight: str


def compare(
    words: Sequence[str], *, folder: Path, attacks: bool = False, under: Sequence[str] = ()
) -> Compared:
    """Hold defenses, or attacks, against each other.

    Args:
        words: labels in `folder`, or `FOLDER:LABEL`; two or more.
        folder: the results that a word without a folder means.
        attacks: whether the words are attacks.
        under: labels of the attacks (defenses, with `attacks`) to hold them under; all that they share.

    Raises:
        RecordError: results or labels that are not there, or that cannot be compared; says why.
    """
    if len(words) < 2:
        raise RecordError(f"compare {' '.join(words)}: needs two or more. Name what it is compared with.")
    own, other = ("attack", "defense") if attacks else ("defense", "attack")
    known: dict[Path, list[Json]] = {}
    sides = [_side(word, folder, own, known) for word in words]
    if len({(side.folder, side.label) for side in sides}) < len(sides):
        raise RecordError(f"compare {' '.join(words)}: one is named twice. Name each once.")
    sides = _named_apart(sides)
    seeds = sorted(set.intersection(*({int(one["seed"]) for one in side.records} for side in sides)))
    if not seeds:
        raise RecordError(
            f"compare: {', '.join(side.name for side in sides)} share no seed. Run all with the same --seed."
        )
    for seed in seeds:
        _refuse_unlike(sides, seed)
    rows = _rows(sides, own, other, seeds, under)
    _refuse_other_settings(rows, other)
    _refuse_other_runs(sides, known, () if attacks else _labels(rows, other))
    lines = [
        _line(name, by_side) for name, by_side in _shares(rows, is_worst_wanted=not attacks and not under)
    ]
    first = next(iter(next(iter(rows.values())).values()))[0]
    images = int(part(first, "targets").get("images") or 0)
    return Compared(
        [side.name for side in sides], own, lines, images, seeds, _sight(lines, images * _times(rows))
    )


def _side(word: str, folder: Path, own: str, known: dict[Path, list[Json]]) -> Side:
    """The side that a word names; RecordError where it names nothing."""
    place, colon, label = word.rpartition(":")
    there = Path(place) if colon else folder
    there = there.parent if there.name == "records.jsonl" else there
    if not (there / "records.jsonl").is_file():
        raise RecordError(
            f"results {there}: holds no records.jsonl. Give the folder of a run with --in, or FOLDER:LABEL."
        )
    if there not in known:
        known[there] = latest(read_records(there / "records.jsonl"))
    labels = dict.fromkeys(str(part(one, own).get("label")) for one in known[there])
    if label not in labels:
        close = difflib.get_close_matches(label, labels, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise RecordError(f"results {there}: no {own} '{label}'.{hint} It has {', '.join(labels) or 'none'}.")
    records = [
        one for one in known[there] if str(part(one, own).get("label")) == label and attacks_people(one)
    ]
    if not records:
        raise RecordError(
            f"results {there}: {own} '{label}' has no cell that tells how well people are found (failed, "
            "blocked, a control, or single images). Compare another, or run it again."
        )
    return Side(label, there, label, records)


def _named_apart(sides: Sequence[Side]) -> list[Side]:
    """The sides, with the folder before the label where two labels are equal."""
    labels = [side.label for side in sides]
    return [
        Side(f"{side.folder.name}:{side.label}", side.folder, side.label, side.records)
        if labels.count(side.label) > 1
        else side
        for side in sides
    ]


def _refuse_unlike(sides: Sequence[Side], seed: int) -> None:
    """RecordError where sides differ in what must be equal; each side is of one run, so one cell tells.

    A cell of each seed, since protected labels may be drawn by it.
    """
    first, *others = sides
    cells = {side.name: next(one for one in side.records if int(one["seed"]) == seed) for side in sides}
    for side in others:
        for what, mine, yours in zip(_FACTS, _facts(cells[first.name]), _facts(cells[side.name])):
            if mine != yours:
                raise RecordError(
                    f"compare: {what} of '{first.name}' is {mine}, of '{side.name}' {yours}. Only cells that "
                    "differ in nothing else are compared; run both in one suite."
                )


_FACTS = (
    "the suite", "the data's digest", "the victim's net", "the judge", "the judge's accuracy",
    "the number of images", "the list of protected labels",
)  # fmt: skip


def _facts(record: Json) -> tuple[object, ...]:
    """What must be equal, in the order of _FACTS."""
    judge, targets = part(record, "judge"), part(record, "targets")
    accuracy = judge.get("accuracy")
    return (
        record.get("suite"),
        str(part(record, "data").get("digest"))[:12],
        record.get("victim_net"),
        judge.get("net"),
        round(float(accuracy) / _FRACTION) * _FRACTION if isinstance(accuracy, int | float) else accuracy,
        targets.get("images"),
        sorted(targets.get("protected") or ()),
    )


Rows = dict[str, dict[str, list[Json]]]  # by line and side the records


def _rows(sides: Sequence[Side], own: str, other: str, seeds: Sequence[int], under: Sequence[str]) -> Rows:
    """The records of each line that every side has, of shared seeds; RecordError where there is none."""
    views = {
        (str(part(one, "attack").get("label")), str(one.get("view"))) for s in sides for one in s.records
    }
    found: Rows = defaultdict(lambda: defaultdict(list))
    for side in sides:
        for record in side.records:
            attack, view = str(part(record, "attack").get("label")), str(record.get("view"))
            has_views = len({name for label, name in views if label == attack}) > 1
            if int(record["seed"]) not in seeds or (own == "attack" and has_views and view != "stripped"):
                continue
            label = str(part(record, other).get("label"))
            name = f"{label} ({view})" if has_views and own == "defense" else label
            # the name and not the label: labels of two folders may be equal
            named = {**record, own: {**part(record, own), "label": side.name}}
            found[name][side.name].append(named)
    rows = {name: dict(by_side) for name, by_side in found.items() if len(by_side) == len(sides)}
    labels, names = _labels(rows, other), ", ".join(side.name for side in sides)
    if not rows:
        raise RecordError(
            f"compare: no {other} was measured with all of {names}. Run them with the same {other}s."
        )
    for word in under:
        if word not in labels:
            raise RecordError(
                f"compare: no {other} '{word}' was measured with all of {names}. They share "
                f"{', '.join(labels)}."
            )
    return {
        name: by_side for name, by_side in rows.items() if not under or _label_of(by_side, other) in under
    }


def _labels(rows: Rows, other: str) -> dict[str, None]:
    """The labels of the attacks (or defenses) of all lines, in order; one may have a line for each view."""
    return dict.fromkeys(_label_of(by_side, other) for by_side in rows.values())


def _label_of(by_side: Mapping[str, Sequence[Json]], other: str) -> str:
    return str(part(next(iter(by_side.values()))[0], other).get("label"))


def _times(rows: Rows) -> int:
    """In how many seeds each person was attacked, rounded down: each seed may draw people of its own."""
    attacked = {
        who
        for by_side in rows.values()
        for records in by_side.values()
        for one in records
        for who in people_shares(one)
    }
    return len(attacked) // len({one for one, _seed in attacked})


def _refuse_other_settings(rows: Rows, other: str) -> None:
    """RecordError where a line's attack (or defense) had other settings with one side than with another."""
    for name, by_side in rows.items():
        settings = {
            side: (part(records[0], other).get("params"), part(records[0], other).get("version"))
            for side, records in by_side.items()
        }
        (first, wanted), *rest = settings.items()
        for side, found in rest:
            if found != wanted:
                raise RecordError(
                    f"compare: the {other} '{name}' has other settings, or another version, with '{side}' "
                    f"than with '{first}'. Run both in one suite."
                )


def _refuse_other_runs(
    sides: Sequence[Side], known: Mapping[Path, Sequence[Json]], attacks: Collection[str]
) -> None:
    """RecordError where folders do not agree on what both ran without a defense.

    Its keys tell what records do not say: how victims are trained, what some attacks may ask and start from.
    """
    met: dict[str, tuple[object, Path]] = {}
    for folder in dict.fromkeys(side.folder for side in sides):
        for what, key in _undefended(known[folder], attacks).items():
            wanted, first = met.setdefault(what, (key, folder))
            if key != wanted:
                raise RecordError(
                    f"compare: {what} is another run in {first} than in {folder}: recipe, budget or version "
                    "differ. Run both in one suite."
                )


def _undefended(records: Sequence[Json], attacks: Collection[str]) -> dict[str, object]:
    """The keys of the runs without a defense: of each seed's victim, and of some attacks on it."""
    found: dict[str, object] = {}
    for record in records:
        models = part(record, "keys").get("models") or ()
        if part(record, "defense").get("acts") != "nothing" or not models or record.get("status") != "ok":
            continue
        seed, attack = record.get("seed"), str(part(record, "attack").get("label"))
        if models[0].get("train"):
            found[f"the undefended victim of seed {seed}"] = models[0]["train"]
        if attack in attacks:
            found[f"'{attack}' ({record.get('view')}) on the undefended victim of seed {seed}"] = runs_of(
                record
            )
    return found


def _shares(
    rows: Rows, *, is_worst_wanted: bool
) -> Iterable[tuple[str, dict[str, tuple[Shares, list[Hashable]]]]]:
    """Each line with the shares of hits by person, and the runs, of every side."""
    for name, by_side in rows.items():
        yield name, {side: (_people(records), _runs(records)) for side, records in by_side.items()}
    if is_worst_wanted and len(rows) > 1:
        records = [one for by_side in rows.values() for group in by_side.values() for one in group]
        worst = worst_people(records)
        sides = list(next(iter(rows.values())))
        if set(worst) == set(sides):
            runs = {side: _runs([one for row in rows.values() for one in row[side]]) for side in sides}
            yield (
                f"{WORST} of {len(_labels(rows, 'attack'))}",
                {side: (worst[side], runs[side]) for side in sides},
            )


def _people(records: Sequence[Json]) -> dict[Attacked, float]:
    return {who: share for record in records for who, share in people_shares(record).items()}


def _runs(records: Sequence[Json]) -> list[Hashable]:
    # without keys nothing shows that two runs are one
    return [runs_of(record) or str(record.get("cell")) for record in records]


def _line(name: str, by_side: Mapping[str, tuple[Shares, list[Hashable]]]) -> Line:
    """All pairs of a line."""
    shares = {side: found for side, (found, _) in by_side.items()}
    runs = {side: found for side, (_, found) in by_side.items()}
    tests = pair_tests(shares, runs)
    pairs = [_pair(one, other, shares, tests[one, other]) for one, other in combinations(shares, 2)]
    return Line(name, pairs, rank_ranges(shares, runs))


def _pair(one: str, other: str, shares: Mapping[str, Shares], test: PairTest | None) -> Pair:
    both = shares[one].keys() & shares[other].keys()
    mine, yours = (by_person({who: shares[side][who] for who in both}) for side in (one, other))
    if not len(mine):
        raise RecordError(f"compare: '{one}' and '{other}' share no person. Run both on the same labels.")
    low, high = (0.0, 0.0) if test is None else mean_change(mine - yours)
    return Pair(one, other, len(mine), (float(mine.mean()), float(yours.mean())), low, high, test)


def _sight(lines: Sequence[Line], images: int) -> str:
    """The smallest difference that the pairs of a line can show with so many images a person, in words."""
    people = max(pair.people for line in lines for pair in line.pairs)
    pairs = max(1, *(line.ranks.tests for line in lines))
    found = smallest_difference(people, images, pairs)
    if found.difference is not None:
        return f"{100 * found.difference:.0f} points"
    return "none" if found.least_p >= ALPHA else "none, not even AA 0"
