"""What a paper's table looks like: rows, column groups, metrics, claims, and our names for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from mibench.errors import MibenchError
from mibench.reported import Reported, read_reported

View = Literal["stripped", "deployed"]
Kind = Literal[
    "lowers AA", "all lower AA", "at chance", "keeps accuracy", "costs accuracy", "raises accuracy",
    "attack order", "raises distance", "raises error", "judge above victim",
]  # fmt: skip
Place = tuple[str, str, str]
"""A row of a table: data, model (empty where rows do not tell models apart), attack as printed."""

NONE = "none"
JUDGE_ACCURACY = "judge_accuracy"  # of the record's judge, which is no metric of a cell


class ReproduceError(MibenchError):
    """There is no such table, or nothing to make it from."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column group of a table.

    Args:
        heading: what the table calls it.
        defense: our label of it.
        printed: defense and variant among the reported numbers; None: ours, the paper has no such column.
        view: what a white-box attacker holds of the defense's output step.
        metric: in place of what the table's metric maps to; empty keeps that.
    """

    heading: str
    defense: str
    printed: tuple[str, str] | None = None
    view: View = "stripped"
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One metric of a table.

    Args:
        printed: its name among the reported numbers.
        heading: what the table calls it.
        metric: ours; empty where mibench does not measure it.
        percent: whether both are fractions, which the table shows in percent.
    """

    printed: str
    heading: str
    metric: str
    percent: bool = True


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that a table supports, and how it is tested.

    Args:
        id: short and unique in its table.
        sentence: in our words.
        kind: of the test, see `mibench.reproduce.evidence`.
        columns: the column groups that it is about.
        reference: the column group that they are compared with.
        attacks: our labels of the attacks that it is about; of an order, the stronger one first.
        metric: what accuracy or distance it is about.
        limit: of an accuracy that is kept: the largest drop; of an attack that is stopped: how far above
            chance its accuracy may be. In [0, 1].
        disputed: why the reported numbers themselves do not bear the sentence; empty where they do.
        is_detail: whether it tells about one attack, beside what the table says of all of them.
    """

    id: str
    sentence: str
    kind: Kind
    columns: tuple[Column, ...]
    reference: Column
    attacks: tuple[str, ...]
    metric: str = ""
    limit: float = 0.0
    disputed: str = ""
    is_detail: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One table of a paper.

    Args:
        name: `paper/table`, or the paper's name alone.
        title: what it shows.
        citation: of the paper.
        suite: that it is reproduced with by default.
        attacks: as printed -> our label; empty: the row is about the victim, so any attack's cell will do.
        columns: in the paper's order, ours last.
        measures: in the paper's order.
        paper: short name of the reported numbers; empty where none could be read.
        tables: of the reported numbers, whose rows this table has.
        by_model: whether rows tell models apart.
        notes: what a reader of the table must know.
    """

    name: str
    title: str
    citation: str
    suite: str
    attacks: Mapping[str, str]
    columns: tuple[Column, ...]
    measures: tuple[Measure, ...]
    paper: str = ""
    tables: tuple[str, ...] = ()
    by_model: bool = False
    notes: tuple[str, ...] = ()

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return self.name.replace("/", "-")

    @cached_property
    def reported(self) -> dict[tuple[Place, tuple[str, str], str], Reported]:
        """The paper's numbers by row, (defense, variant) and metric as printed."""
        rows = (row for table in self.tables for row in read_reported(self.paper, table))
        return {(self._place(row), (row.defense, row.variant), row.metric): row for row in rows}

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """The rows in the paper's order; without reported numbers one for each attack."""
        found = dict.fromkeys(place for place, _, _ in self.reported)
        return tuple(found) or tuple(("", "", attack) for attack in self.attacks)

    @property
    def scenes(self) -> list[tuple[str, str]]:
        """Data and model of the rows, each once."""
        return list(dict.fromkeys(place[:2] for place in self.places))

    def value(self, place: Place, column: Column, metric: str) -> float:
        """The reported number as printed; NaN where there is none.

        A table without an undefended column has that of the paper's first table that has one for images of
        the same size.
        """
        if column.printed is None:
            return math.nan
        row = self.reported.get((place, column.printed, metric))
        if row is None and column.defense == NONE and column.printed not in self.printed:
            row = self._undefended.get((place, metric))
        return math.nan if row is None or row.value is None else row.value

    def has(self, place: Place, column: Column) -> bool:
        """Whether the table has a cell there; columns that are not the paper's have one in every row."""
        if column.printed is None or column.printed not in self.printed:
            return True
        return any(key[:2] == (place, column.printed) for key in self.reported)

    def attack_of(self, label: str) -> str:
        """The printed name of an attack of ours."""
        return next((printed for printed, own in self.attacks.items() if own == label), label)

    @cached_property
    def printed(self) -> frozenset[tuple[str, str]]:
        """The column groups, as (defense, variant), that the paper's table has."""
        return frozenset(printed for _, printed, _ in self.reported)

    @cached_property
    def _undefended(self) -> dict[tuple[Place, str], Reported]:
        rows = read_reported(self.paper) if self.paper else ()
        sides = {row.resolution for row in self.reported.values()}
        found: dict[tuple[Place, str], Reported] = {}
        for row in rows:
            if row.defense == NONE and row.resolution in sides:
                found.setdefault((self._place(row), row.metric), row)
        return found

    def _place(self, row: Reported) -> Place:
        return row.dataset, row.model if self.by_model else "", row.attack
