"""A table made again as CSV, one line a number or a claim, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd

from mibench.report.escape import markdown
from mibench.report.table_csv import frame_csv
from mibench.reproduce.compared import Number
from mibench.reproduce.evidence import Evidence
from mibench.reproduce.measured import Measured
from mibench.reproduce.result import Reproduction
from mibench.reproduce.sheet import (
    SIGNS,
    Sheet,
    evidence_text,
    measured_text,
    reported_text,
    sheet,
    sign,
)


def numbers_csv(found: Reproduction) -> str:
    """One line a number; fractions in [0, 1], unrounded."""
    rows = []
    for one in found.numbers:
        own = one.measured if isinstance(one.measured, Measured) else None
        defense, variant = one.column.printed or ("", "")
        rows.append(
            {
                "table": found.layout.name,
                "dataset": one.place[0],
                "model": one.place[1],
                "attack": one.place[2],
                "defense": defense,
                "variant": variant,
                "metric": one.measure.printed,
                "suite": found.cells.suite,
                "our_attack": found.layout.attacks.get(one.place[2], ""),
                "our_defense": one.column.defense,
                "view": one.column.view,
                "our_metric": one.metric,
                "reported": one.reported,
                "measured": own.value if own else math.nan,
                "difference": one.difference,
                "low": own.low if own else math.nan,
                "high": own.high if own else math.nan,
                "count": own.count if own else 0,
                "seeds": own.seeds if own else 0,
                "verdict": one.verdict,
                "why": one.why,
            }
        )
    return frame_csv(pd.DataFrame(rows))


def claims_csv(found: Reproduction) -> str:
    """One line a claim; effects in its own direction, above zero where they speak for it."""
    rows = []
    for one in found.claims:
        own = one.evidence if isinstance(one.evidence, Evidence) else None
        rows.append(
            {
                "table": found.layout.name,
                "claim": one.claim.id,
                "sentence": one.claim.sentence,
                "kind": one.claim.kind,
                "defenses": " ".join(column.defense for column in one.claim.columns),
                "reference": one.claim.reference.defense,
                "attacks": " ".join(one.claim.attacks),
                "limit": one.claim.limit,
                "effect": own.effect if own else math.nan,
                "low": own.low if own else math.nan,
                "high": own.high if own else math.nan,
                "num": own.num if own else 0,
                "of": own.of if own else "",
                "p": own.p if own and own.p is not None else math.nan,
                "p_holm": math.nan if one.p_holm is None else one.p_holm,
                "least_p": own.least_p if own else math.nan,
                "verdict": one.verdict,
                "why": one.why,
            }
        )
    columns = ["table", "claim", "sentence", "kind", "verdict", "why"]
    return frame_csv(pd.DataFrame(rows, columns=None if rows else columns))


def to_markdown(found: Reproduction) -> str:
    """Title, claims, one pipe table a metric (measured / reported), and how to read them."""
    lines = [f"# {markdown(found.title)}", "", markdown(found.summary), ""]
    if found.claims:
        lines += ["| | Claim | Measured | Verdict |", "|---|---|---|---|"]
        lines += [
            _line(SIGNS[one.verdict], one.claim.sentence, evidence_text(one), f"{one.verdict}: {one.why}")
            for one in found.claims
        ]
        lines.append("")
    table = sheet(found)
    for place, heading in enumerate(table.groups[0][1]):
        if all(names == table.groups[0][1] for _, names in table.groups):
            lines += [f"**{markdown(heading)}**: measured / reported", "", *_metric(table, place), ""]
    if any(names != table.groups[0][1] for _, names in table.groups):
        lines += ["Measured / reported", "", *_metric(table, 0), ""]
    lines += [markdown(note) + "\n" for note in found.notes]
    return "\n".join(lines)


def _metric(table: Sheet, place: int) -> Iterable[str]:
    """The pipe table of one metric of every column group."""
    width = len(table.groups[0][1])
    yield _line("", *(heading for heading, _ in table.groups))
    yield "|---|" + "---:|" * len(table.groups)
    for block in table.blocks:
        for row in block.rows:
            name = ": ".join(word for word in (block.heading, row.label) if word)
            yield _line(name, *(_entry(one) for one in row.entries[place::width]))


def _entry(number: Number | None) -> str:
    if number is None:
        return ""
    return f"{measured_text(number)} / {reported_text(number)} {sign(number)}".rstrip()


def _line(*words: str) -> str:
    return f"| {' | '.join(markdown(word) for word in words)} |"
