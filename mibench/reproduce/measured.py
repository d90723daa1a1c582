"""From records to the measured numbers of a table: which cells, and several seeds as one number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mibench.record import Record
from mibench.report.frame import Json, latest, number, part, reason
from mibench.reported import papers
from mibench.reproduce.layout import JUDGE_ACCURACY, Column, ReproduceError
from mibench.statistics import grouped_wilson, t_quantile, wilson

DATASETS = {
    "celeba-64": ("CelebA", 64, 1000),
    "vggface-112": ("VGG-Face", 112, 1000),
    "vggface2-224": ("VGG-Face2", 224, 1000),
}
"""The suite that has a paper's data -> the paper's name of it, side in pixels, private people."""
Asked = tuple[int, str]
"""A seed of the suite and a protected label: a person, as often as seeds protect it."""


@dataclass(frozen=True)
class Measured:
    """A number of ours.

    Args:
        value, low, high: with a 95 % interval; both ends are the value where there is none.
        count: of what it is a mean, over all seeds.
        seeds: how many.
        given_error: the standard error, where the interval was made from one; NaN: the width tells it.
        freedom: the degrees of freedom of that error; without bound where it comes from many images.
    """

    value: float
    low: float
    high: float
    count: int
    seeds: int
    given_error: float = math.nan
    freedom: float = math.inf

    @property
    def has_interval(self) -> bool:
        """Whether it has an interval of some width."""
        return self.low < self.high

    @property
    def error(self) -> float:
        """The standard error that its interval stands for."""
        if not math.isnan(self.given_error):
            return self.given_error
        return (self.high - self.low) / (2 * t_quantile(math.inf))


@dataclass(frozen=True)
class Missing:
    """Why there is no number of ours."""

    why: str


class Cells:
    """The records of one suite, found by attack, defense and view.

    Args:
        records: of any cells; of one cell the last counts.
        seeds: that count; empty: all.
        is_whole: whether they hold all that the suite has of the table, and not what somebody ran of it.

    Raises:
        ReproduceError: there are none, or they come from several suites.
    """

    def __init__(
        self, records: Iterable[Json | Record], seeds: Sequence[int] = (), *, is_whole: bool = False
    ) -> None:
        kept = [one for one in latest(records) if not seeds or one.get("seed") in seeds]
        suites = list(dict.fromkeys(str(one.get("suite")) for one in kept))
        if len(suites) != 1:
            what = f"come from {len(suites)} suites: {', '.join(suites)}" if suites else "are none"
            raise ReproduceError(
                f"reproduce: the records {what}. Give the folder of one run, such as results/quick."
            )
        self.records = kept
        self.suite = base_suite(suites[0])
        self._holder = f"suite {self.suite} has" if is_whole else f"the records of suite {self.suite} have"
        self.found: dict[tuple[str, str], list[Json]] = {}
        for one in kept:
            key = str(part(one, "attack").get("label")), str(part(one, "defense").get("label"))
            self.found.setdefault(key, []).append(one)

    @cached_property
    def dataset(self) -> str:
        """The paper's name of the suite's data; empty where it is other data, whatever its name."""
        name, side, people = DATASETS.get(self.suite, ("", 0, 0))
        is_it = all(
            facts.get("kind") == "folder"
            and list(facts.get("size") or ())[1:] == [side, side]
            and facts.get("num_classes") == people
            for facts in (part(one, "data") for one in self.records)
        )
        return name if is_it else ""

    @cached_property
    def data(self) -> str:
        """The suite's data in a few words."""
        facts = part(self.records[0], "data")
        size = facts.get("size")
        side = f", {size[-1]} px" if isinstance(size, list | tuple) else ""
        return f"{facts.get('kind')}{side}, {facts.get('num_classes')} people"

    @cached_property
    def seeds(self) -> list[int]:
        """Of all records."""
        return sorted({int(one.get("seed", 0)) for one in self.records})

    @cached_property
    def protected(self) -> dict[int, frozenset[str]]:
        """The labels that each seed protects."""
        found: dict[int, frozenset[str]] = {}
        for one in self.records:
            seed = int(one.get("seed", 0))
            found[seed] = found.get(seed, frozenset()) | _protected(one)
        return found

    @cached_property
    def chance(self) -> float:
        """Accuracy of guessing, in [0, 1]."""
        return number(self.records[0].get("chance"))

    def of(self, attack: str, column: Column) -> list[Json] | Missing:
        """The measured cells of an attack against a defense in a column's view, one a seed.

        Args:
            attack: our label; empty: any attack that met the defense.
            column: names the defense and the view.
        """
        attacks = dict.fromkeys(name for name, _ in self.found)
        if attack and attack not in attacks:
            return Missing(f"{self._holder} no attack '{attack}'")
        if column.defense not in {name for _, name in self.found}:
            return Missing(f"{self._holder} no defense '{column.defense}'")
        missing = Missing(f"{self._holder} no cell of '{attack}' against '{column.defense}'")
        for name in [attack] if attack else attacks:
            group = self.found.get((name, column.defense), [])
            found = _in_view(group, column) if attack else group
            by_seed = {int(one.get("seed", 0)): one for one in reversed(found) if one.get("status") == "ok"}
            if by_seed:
                return [by_seed[seed] for seed in sorted(by_seed)]
            if found:
                why = reason(found[0]) or str(found[0].get("status"))
                missing = Missing(f"the cell has no number: {why}")
            elif group:
                missing = Missing(f"{self._holder} no cell in the {column.view} view")
        return missing

    def number(self, attack: str, column: Column, metric: str) -> Measured | Missing:
        """A metric of a cell over its seeds, in [0, 1] where it is a fraction.

        One seed has the interval on record. Of several, AA is pooled over all people with the interval of the
        suites, a person of several seeds once. Any other number is the mean over seeds, see `_mean`;
        `mc_target` has Wilson's interval over people where every seed is at 0 or every seed at 1.
        """
        records = self.of(attack, column) if metric else Missing("mibench does not measure it")
        if isinstance(records, Missing):
            return records
        if metric == JUDGE_ACCURACY:
            return _judge(records)
        rows = [_estimate(one, metric) for one in records]
        found = [one for one in rows if one is not None]
        if len(found) < len(rows) or not found:
            return Missing(f"{self._holder} no {metric} of this cell")
        return _over_seeds(found, records, metric)

    def by_seed(self, attack: str, column: Column, metric: str) -> dict[int, float] | Missing:
        """A metric of a cell for each seed."""
        records = self.of(attack, column)
        if isinstance(records, Missing):
            return records
        found = {int(one.get("seed", 0)): _estimate(one, metric) for one in records}
        values = {seed: one.value for seed, one in found.items() if one is not None}
        return values or Missing(f"{self._holder} no {metric} of this cell")

    def shares(self, attack: str, column: Column) -> dict[Asked, float] | Missing:
        """The share of hits of each protected person, seed by seed."""
        records = self.of(attack, column)
        if isinstance(records, Missing):
            return records
        found = {
            (int(one.get("seed", 0)), str(label)): hits.count("1") / len(hits)
            for one in records
            for label, hits in part(one, "hits").items()
            if hits
        }
        return found or Missing("the records are from before hits were kept. Run the suite again")


def base_suite(name: str) -> str:
    """The suite that a record's suite was derived from: `tifs23-table2-quick` is `quick`."""
    prefix = "|".join([*papers(), "lpa"])
    return re.sub(rf"^(?:{prefix})(?:-(?:table|fig)\d+)?-(?=.)", "", name)


def around(value: float, error: float, *, count: int, seeds: int, freedom: float = math.inf) -> Measured:
    """A number with the interval of its standard error; without a width where the error is 0."""
    reach = t_quantile(freedom) * error if error else 0.0
    return Measured(value, value - reach, value + reach, count, seeds, error, freedom)


def _protected(record: Json) -> frozenset[str]:
    return frozenset(map(str, part(record, "targets").get("protected") or ()))


def _in_view(records: Sequence[Json], column: Column) -> list[Json]:
    """Those in the column's view; black-box attacks have one, and without an output step both are equal."""
    views = {column.view, "black-box"}
    found = [one for one in records if str(one.get("view")) in views]
    if not found and not any("output" in str(part(one, "defense").get("acts")) for one in records):
        return list(records)
    return found


def _estimate(record: Json, metric: str) -> Measured | None:
    entry = part(record, "estimates").get(metric)
    value = number(entry.get("value")) if entry else math.nan
    if entry is None or math.isnan(value):
        return None
    low, high = (number(entry.get(name)) for name in ("low", "high"))
    ends = (value, value) if math.isnan(low) or math.isnan(high) else (low, high)
    return Measured(value, *ends, int(entry.get("count") or 0), 1)


def _judge(records: Sequence[Json]) -> Measured | Missing:
    """The accuracy of the judge, which all seeds share; Wilson's interval over the private test images."""
    accuracy = number(part(records[0], "judge").get("accuracy"))
    if math.isnan(accuracy):
        return Missing("the judge's accuracy is not on record")
    single = [one for one in records if not part(one, "defense").get("per_target")]
    images = _estimate(single[0], "mc_all") if single else None
    if images is None or images.count == 0:
        return Measured(accuracy, accuracy, accuracy, 0, 1)
    return Measured(accuracy, *wilson(round(accuracy * images.count), images.count), images.count, 1)


def _over_seeds(found: Sequence[Measured], records: Sequence[Json], metric: str) -> Measured:
    """See `Cells.number`."""
    if len(found) == 1:
        return found[0]
    if metric == "aa" and all(one.get("hits") for one in records):
        return _pooled_hits(records)
    people = len(frozenset().union(*map(_protected, records)))
    values = {one.value for one in found}
    if metric == "mc_target" and people and values in ({0.0}, {1.0}):
        # no variance to see between seeds: as many people as were asked could yet differ
        (value,) = values
        return Measured(
            value, *wilson(round(value) * people, people), sum(one.count for one in found), len(found)
        )
    is_fraction = bool(part(part(records[0], "metric_info"), metric).get("percent"))
    return _mean(found, is_fraction=is_fraction)


def _pooled_hits(records: Sequence[Json]) -> Measured:
    """AA over the images of all seeds, grouped by person: seeds share the people, by label."""
    by_person: dict[str, str] = {}
    for one in records:
        for label, hits in part(one, "hits").items():
            by_person[str(label)] = by_person.get(str(label), "") + hits
    people = np.repeat(np.arange(len(by_person)), [len(hits) for hits in by_person.values()])
    hits = np.array([hit == "1" for own in by_person.values() for hit in own])
    low, high = grouped_wilson(hits, people)
    return Measured(float(hits.mean()), low, high, len(hits), len(records))


def _mean(found: Sequence[Measured], *, is_fraction: bool) -> Measured:
    """The mean over seeds with the error within them and the variance between them.

    Seeds share the private images that a number is asked about, so their own errors are taken as fully
    dependent: their mean stays, however many seeds there are. What the trainings add is independent, and has
    the variance of the S values over S. The two are added; their sum has Satterthwaite's degrees of freedom,
    of which the first part has no bound and the second S - 1. Without an interval in any seed there is none:
    the spread of trainings alone would pass for all of the doubt.
    Source: Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    values = np.array([one.value for one in found])
    value, count, seeds = float(values.mean()), sum(one.count for one in found), len(found)
    if not any(one.has_interval for one in found):
        return Measured(value, value, value, count, seeds)
    within = (sum(one.error for one in found) / seeds) ** 2
    between = float(values.var(ddof=1)) / seeds
    freedom = (within + between) ** 2 * (seeds - 1) / between**2 if between > 0 else math.inf
    whole = around(value, math.sqrt(within + between), count=count, seeds=seeds, freedom=freedom)
    if not is_fraction:
        return whole
    return replace(whole, low=max(0.0, whole.low), high=min(1.0, whole.high))
