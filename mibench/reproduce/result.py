"""A table made again: all its numbers and claims, and what a reader must know about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mibench.record import Record
from mibench.report.frame import Json, part
from mibench.reproduce import claims_of
from mibench.reproduce.compared import Number, Verdict, numbers
from mibench.reproduce.layout import Layout
from mibench.reproduce.measured import Cells
from mibench.reproduce.verdicts import Judged, judge

VERDICTS: tuple[Verdict, ...] = ("match", "differs", "not comparable")


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
        """`differs` where any number or claim does, `match` where some match and none differs."""
        found = {one.verdict for one in self.numbers} | {one.verdict for one in self.claims}
        return next((one for one in ("differs", "match") if one in found), "not comparable")

    @cached_property
    def title(self) -> str:
        """Name and contents of the table."""
        return f"{self.layout.name}: {self.layout.title}"

    @cached_property
    def summary(self) -> str:
        """How many numbers and claims match."""
        return f"{_counts('Claims', self.claims)} {_counts('Numbers', self.numbers)}".strip()

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
        if len(cells.seeds) > 1:
            lines.append(
                "Several seeds: AA is pooled over the people of all seeds, MC(l_t) over test images with "
                "Wilson's interval; other numbers are means over seeds, with the standard error that their "
                "intervals give for independent seeds."
            )
        if self.claims:
            lines.append(
                "Claims about AA pair each protected person of each seed with and without the defense "
                "(sign-flip test); claims about distances count cells (sign test); claims about accuracy and "
                "errors take their standard errors from intervals. p-values are adjusted by Holm's method "
                "over the table's claims, those about single attacks by themselves; claims that a defense "
                "keeps accuracy or stops an attack are read off the interval."
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
        by_seed = {
            int(one.get("seed", 0)): len(part(one, "targets").get("protected") or ())
            for one in self.cells.records
        }
        return sum(by_seed.values())


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


def _counts(what: str, found: Sequence[Number | Judged]) -> str:
    if not found:
        return ""
    counts = Counter(one.verdict for one in found)
    return f"{what}: {', '.join(f'{counts[name]} {name}' for name in VERDICTS)}."
