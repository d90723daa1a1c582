"""The comparison with a line for each defense: what it costs, and AA under every attack."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import groupby

from mibench.record import Record
from mibench.report.escape import markdown
from mibench.report.frame import Json, defense_acts, latest
from mibench.report.ranks import ALPHA, Ranks, ranks
from mibench.report.table import Comparison, Entry, Row, comparison
from mibench.report.worst import WORST

UTILITY = ("mc_all", "mc_target", "far_public")
_RANKS = (
    "Small beside an AA: the ranks that the defense may have, 1 being the lowest AA; defenses whose ranks "
    f"overlap cannot be told apart (sign flips over people, Holm over all pairs, p < {ALPHA})."
)
_READING = "AA under each attack. A span where a value hangs on the attack, whose prior the defender knew."


def by_defense(records: Iterable[Json | Record]) -> str:
    """One Markdown table a scene: defenses as lines, utility and then AA under each attack as columns.

    Negative controls are left out.

    Raises:
        RecordError: there are no records, or none with the metric `aa`.
    """
    kept = latest(records)
    known = {name for record in kept for name in record.get("metric_info") or {}}
    costs = [name for name in UTILITY if name in known]
    table = comparison(kept, metrics=[*costs, "aa"], intervals=False)
    acts = defense_acts(kept)
    ranked = ranks(kept)
    of_row = {i: found for i, row in enumerate(table.rows) if (found := ranked.get(_line(row)))}
    parts = []
    for scene, lines in groupby(range(len(table.rows)), key=lambda i: table.rows[i].scene):
        rows = [i for i in lines if not table.rows[i].control]
        heads = [*(metric.title for metric in table.metrics[:-1]), *(table.rows[i].label for i in rows)]
        text = [
            f"| Defense | Acts on | {' | '.join(map(markdown, heads))} |",
            f"|---|---|{'---:|' * len(heads)}",
        ]
        for place, name in enumerate(table.defenses):
            cells = [_span(table, rows, place, i) for i in range(len(costs))]
            cells += [_ranked(table.entries[i, place, len(costs)], name, of_row.get(i)) for i in rows]
            text.append(f"| {markdown(name)} | {markdown(acts.get(name, ''))} | {' | '.join(cells)} |")
        parts.append(f"**{markdown(scene)}**\n\n" + "\n".join(text))
    # the sentence is about the comparison, whose lines are columns here
    facts = " ".join(table.caption).replace("best in its row", "best in its column")
    notes = [markdown(" ".join([_READING, *_tie_facts(table, of_row), facts]))]
    notes += [f"<sup>{mark}</sup> {markdown(text)}" for mark, text in table.footnotes]
    return "\n\n".join([*parts, *notes]) + "\n"


def _line(row: Row) -> tuple[str, str, str]:
    """Where `ranks` has a row of the table."""
    return (row.scene, "", "") if row.attack.startswith(WORST) else (row.scene, row.attack, row.view)


def _tie_facts(table: Comparison, of_row: Mapping[int, Ranks]) -> list[str]:
    """How to read ranks, where there are any, and under which attacks there are none."""
    facts = [_RANKS] if any(not one.is_one_tie for one in of_row.values()) else []
    tied = [i for i, one in of_row.items() if one.is_one_tie]
    if tied:
        under = ", ".join(dict.fromkeys(table.rows[i].label for i in tied))
        least = min(of_row[i].least_p for i in tied)
        why = f" (so few people: the least p after Holm is {least:.2g})" if least >= ALPHA else ""
        facts.append(f"No two defenses can be told apart{why} under: {under}.")
    return facts


def _ranked(entry: Entry, defense: str, found: Ranks | None) -> str:
    """An AA with the ranks of its defense, where any two of the row can be told apart."""
    text = _shown(entry)
    has_ranks = found is not None and not found.is_one_tie and entry.state == "value"
    return f"{text} <sub>{found.shown(defense)}</sub>" if found and has_ranks else text


def _shown(entry: Entry) -> str:
    text = f"**{entry.shown}**" if entry.best else markdown(entry.shown)
    return text + (f" <sup>{entry.marks}</sup>" if entry.marks else "")


def _span(table: Comparison, rows: list[int], defense: int, metric: int) -> str:
    """The metric of a defense, or its least and largest value where models differ between attacks."""
    entries = [table.entries[i, defense, metric] for i in rows]
    numbers = [entry for entry in entries if not math.isnan(entry.value)]
    if not numbers:
        return markdown(entries[0].shown) if entries else ""
    ends = [min(numbers, key=_value).shown, max(numbers, key=_value).shown]
    return "\N{EN DASH}".join(dict.fromkeys(ends))


def _value(entry: Entry) -> float:
    return entry.value
