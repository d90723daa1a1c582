"""Every number of a table: reported, measured, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mibench.reproduce.layout import Column, Layout, Measure, Place
from mibench.reproduce.measured import Cells, Measured, Missing

Verdict = Literal["match", "differs", "not shown", "not comparable"]
"""`differs` is the opposite of what is reported; `not shown` is for claims that the records do not decide."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number of a table; fractions in [0, 1].

    Args:
        place: row: data, model, attack as printed.
        column: column group.
        measure: metric.
        reported: NaN where the paper prints none or it is unreadable.
        measured: ours, or why there is none.
        verdict: whether they agree.
        why: the verdict in words.
    """

    place: Place
    column: Column
    measure: Measure
    reported: float
    measured: Measured | Missing
    verdict: Verdict
    why: str

    @property
    def metric(self) -> str:
        """Our name of what was measured."""
        return self.column.metric or self.measure.metric

    @property
    def difference(self) -> float:
        """Measured less reported; NaN where one is missing."""
        return self.measured.value - self.reported if isinstance(self.measured, Measured) else math.nan


def numbers(layout: Layout, cells: Cells) -> list[Number]:
    """All numbers of a table, row by row."""
    return [
        _number(layout, cells, place, column, measure)
        for place in layout.places
        for column in layout.columns
        if layout.has(place, column)
        for measure in shown(layout, place)
    ]


def shown(layout: Layout, place: Place) -> Iterator[Measure]:
    """The metrics of a row: of a row about the victim, those that need no attack."""
    printed = {metric for where, _, metric in layout.reported if where == place}
    yield from (one for one in layout.measures if not printed or one.printed in printed)


def _number(layout: Layout, cells: Cells, place: Place, column: Column, measure: Measure) -> Number:
    scale = 0.01 if measure.percent else 1.0
    # as many digits as are printed: 87.46 % is 0.8746
    reported = float(f"{layout.value(place, column, measure.printed) * scale:.12g}")
    label = layout.attacks.get(place[2], "")
    measured: Measured | Missing
    if cells.dataset and place[0] != cells.dataset:  # a paper's data beside other data of it would mislead
        measured = Missing(f"other data: suite {cells.suite} has {cells.dataset}")
    else:
        measured = cells.number(label, column, column.metric or measure.metric)
    verdict, why = _verdict(cells, place, reported, measured)
    return Number(
        place=place, column=column, measure=measure, reported=reported, measured=measured, verdict=verdict,
        why=why,
    )  # fmt: skip


def _verdict(
    cells: Cells, place: Place, reported: float, measured: Measured | Missing
) -> tuple[Verdict, str]:
    """A number agrees where it lies in the measured 95 % interval; other data cannot agree."""
    if isinstance(measured, Missing):
        return "not comparable", measured.why
    if math.isnan(reported):
        return "not comparable", "no such number is printed, or none could be read"
    if place[0] != cells.dataset:
        return "not comparable", f"other data: {place[0]} there, {cells.data} here"
    if not measured.has_interval:
        return "not comparable", "the measured number has no interval, and its scale is the judge's own"
    if measured.low <= reported <= measured.high:
        return "match", "the reported number lies in the measured 95 % interval"
    side = "below" if reported < measured.low else "above"
    return "differs", f"the reported number lies {side} the measured 95 % interval"
