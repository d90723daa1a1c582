"""A table made again: all its numbers and claims, and what a reader must know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mibench.record import Record
from mibench.report.frame import Json
from mibench.reproduce import claims_of
from mibench.reproduce.compared import Number, Verdict, numbers
from mibench.reproduce.layout import Layout
from mibench.reproduce.measured import Cells
from mibench.reproduce.verdicts import Judged, judge

VERDICTS: tuple[Verdict, ...] = ("match", "differs", "not shown", "not comparable")
_COUNTED: dict[Verdict, str] = {"differs": "differ"}  # as many of them are said to do


@dataclass(frozen=True)
class Reproduction:
    """One table of a paper, reported and measured.

    Args:
        layout: of the table.
        cells: the records that it was measured from.
        numbers: row by row.
        claims: in the order of the table.
    """

    layout: Layout
    cells: Cells
    numbers: tuple[Number, ...]
    claims: tuple[Judged, ...]

    @property
    def verdict(self) -> Verdict:
        """`differs` where any number or claim does, else `match`, else `not shown` where any is that."""
        found = {one.verdict for one in self.numbers} | {one.verdict for one in self.claims}
        order: tuple[Verdict, ...] = ("differs", "match", "not shown")
        return next((one for one in order if one in found), "not comparable")

    @cached_property
    def title(self) -> str:
        """Name and contents of the table."""
        return f"{self.layout.name}: {self.layout.title}"

    @cached_property
    def summary(self) -> str:
        """How many numbers and claims match; a number is never `not shown`."""
        told: tuple[Verdict, ...] = ("match", "differs", "not comparable")
        return f"{_counts('Claims', self.claims, VERDICTS)} {_counts('Numbers', self.numbers, told)}".strip()

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """How to read the table, one sentence or a few each."""
        cells, layout = self.cells, self.layout
        several = "s" * (len(cells.seeds) > 1)
        lines = [
            f"Measured with suite {cells.suite}: {cells.data}, seed{several} "
            f"{', '.join(map(str, cells.seeds))}, {self._people} protected people in all.",
            f"{'Reported by' if layout.paper else 'Paper:'} {layout.citation}.",
            self._comparison,
        ]
        if layout.paper and layout.attacks:
            names = ", ".join(f"{printed} is {label}" for printed, label in layout.attacks.items() if label)
            lines.append(
                "Each entry is ours above the paper's, or ours / the paper's. Ours is one measurement, shown "
                f"beside each of the paper's data sets.{f' Attacks: {names}.' if names else ''}"
            )
        if len(cells.seeds) > 1:
            lines.append(
                "Several seeds: AA is pooled over all people; other numbers are means over seeds, with the "
                "mean of the seeds' errors, since they share the test images, and the variance between seeds "
                "(Student's t)."
            )
        if self.claims:
            lines.append(
                "The effect of a claim is above zero where it speaks for the claim, whatever it is about. "
                "Claims about AA pair each protected person with and without the defense (sign-flip test); "
                "claims about distances count seeds (sign test); claims about accuracy and errors take their "
                "standard errors from intervals. p-values are adjusted by Holm's method over the table's "
                "claims, those about single attacks by themselves. That a defense keeps accuracy is read off "
                "the interval; that it stops an attack, off AA, its interval and the drop. A claim differs "
                "where the opposite is shown; what the records do not decide is not shown."
            )
        return (*lines, *layout.notes)

    @property
    def _comparison(self) -> str:
        if self.cells.dataset:
            return (
                f"Numbers on {self.cells.dataset} match where the reported one lies in the measured 95 % "
                "interval. A check mark or a cross says so."
            )
        if not self.layout.paper:
            return "There is no reported number to compare with, so the claims alone have a verdict."
        return "No number is compared, since the data are others than the paper's; the claims are."

    @property
    def _people(self) -> int:
        return len(frozenset().union(*self.cells.protected.values()))


def reproduce(
    layout: Layout, records: Iterable[Json | Record], *, seeds: Sequence[int] = (), is_whole: bool = False
) -> Reproduction:
    """A table from records.

    Args:
        layout: of the table.
        records: of one run.
        seeds: that count; empty: all.
        is_whole: whether the records hold all that the suite has of the table.

    Raises:
        ReproduceError: there are no records, or they come from several suites.
    """
    cells = Cells(records, seeds, is_whole=is_whole)
    return Reproduction(layout, cells, tuple(numbers(layout, cells)), tuple(judge(claims_of(layout), cells)))


def _counts(what: str, found: Sequence[Number | Judged], told: Sequence[Verdict]) -> str:
    if not found:
        return ""
    counts = Counter(one.verdict for one in found)
    return f"{what}: {', '.join(f'{counts[name]} {_COUNTED.get(name, name)}' for name in told)}."
