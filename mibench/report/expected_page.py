"""What a suite would compute, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mibench.report.profile_page import scaled


class Row(Protocol):
    """A stage, or all: see `mibench.expected_flops.Expected`."""

    @property
    def stage(self) -> str:
        """Its name."""
        ...

    @property
    def tasks(self) -> int:
        """How many."""
        ...

    @property
    def flops(self) -> float:
        """Operations."""
        ...

    @property
    def precision(self) -> str:
        """That most of them have."""
        ...

    @property
    def peak_s(self) -> float:
        """Seconds at the card's peak."""
        ...


def expected_page(rows: Sequence[Row], *, card: str, minutes: float) -> str:
    """A row for each stage, and what share of the peak a time asks for.

    Args:
        rows: the last one is the sum.
        card: whose peaks `peak_s` is reckoned with.
        minutes: that all shall take.
    """
    total = rows[-1]
    lines = [
        f"| stage | tasks | FLOPs | share | precision | seconds at the peak of {card} |",
        "|---|---:|---:|---:|---|---:|",
    ]
    lines += [
        f"| {row.stage} | {row.tasks} | {scaled(row.flops)} | {100 * row.flops / total.flops:.1f} % "
        f"| {row.precision} | {row.peak_s:.1f} |"
        for row in rows
    ]
    need = 100 * total.peak_s / (60 * minutes)
    return "\n".join([*lines, "", f"All in {minutes:g} minutes is an MFU of {need:.1f} %.", ""])
