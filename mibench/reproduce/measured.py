"""From records to the measured numbers of a table: which cells, and several seeds as one number."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mibench.record import Record
from mibench.report.frame import Json, latest, number, part, reason
from mibench.reported import papers
from mibench.reproduce.layout import JUDGE_ACCURACY, Column, ReproduceError
from mibench.statistics import grouped_wilson, wilson

Z = 1.959963984540054  # the normal quantile of a 95 % interval
DATASETS = {"celeba-64": "CelebA", "vggface-112": "VGG-Face", "vggface2-224": "VGG-Face2"}
"""The suite that has a paper's data -> the paper's name of it."""
Person = tuple[int, str]
"""A seed of the suite and a protected label."""


@dataclass(frozen=True)
class Measured:
    """A number of ours.

    Args:
        value, low, high: with a 95 % interval; both ends are the value where there is none.
        count: of what it is a mean, over all seeds.
        seeds: how many.
    """

    value: float
    low: float
    high: float
    count: int
    seeds: int

    @property
    def has_interval(self) -> bool:
        """Whether it has an interval of some width."""
        return self.low < self.high

    @property
    def error(self) -> float:
        """The standard error that its interval stands for."""
        return (self.high - self.low) / (2 * Z)


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
        """The paper's name of the suite's data; empty where it is other data."""
        is_real = all(part(one, "data").get("kind") == "folder" for one in self.records)
        return DATASETS.get(self.suite, "") if is_real else ""

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

        One seed has the interval on record. Of several, AA is pooled over people of all seeds with the
        interval of the suites, `mc_target` over test images with Wilson's; any other number is the mean over
        seeds, its standard error that of independent seeds from the widths of their intervals.
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

    def shares(self, attack: str, column: Column) -> dict[Person, float] | Missing:
        """The share of hits of each protected person of each seed."""
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
    return _pooled_counts(found) if metric == "mc_target" else _mean(found)


def _pooled_hits(records: Sequence[Json]) -> Measured:
    by_person = [hits for one in records for hits in part(one, "hits").values() if hits]
    people = np.repeat(np.arange(len(by_person)), [len(hits) for hits in by_person])
    hits = np.array([hit == "1" for own in by_person for hit in own])
    low, high = grouped_wilson(hits, people)
    return Measured(float(hits.mean()), low, high, len(hits), len(records))


def _pooled_counts(found: Sequence[Measured]) -> Measured:
    count = sum(one.count for one in found)
    hits = sum(round(one.value * one.count) for one in found)
    return Measured(hits / count, *wilson(hits, count), count, len(found))


def _mean(found: Sequence[Measured]) -> Measured:
    value = sum(one.value for one in found) / len(found)
    error = math.sqrt(sum(one.error**2 for one in found)) / len(found)
    return Measured(value, value - Z * error, value + Z * error, sum(one.count for one in found), len(found))
