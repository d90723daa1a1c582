"""The comparison with a line for each defense: what it costs, and AA under every attack."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

from mibench.record import Record
from mibench.report.escape import markdown
from mibench.report.frame import Json, defense_acts, latest
from mibench.report.table import Comparison, Entry, comparison

UTILITY = ("mc_all", "mc_target", "far_public")
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
            cells += [_shown(table.entries[i, place, len(costs)]) for i in rows]
            text.append(f"| {markdown(name)} | {markdown(acts.get(name, ''))} | {' | '.join(cells)} |")
        parts.append(f"**{markdown(scene)}**\n\n" + "\n".join(text))
    # the sentence is about the comparison, whose lines are columns here
    facts = " ".join(table.caption).replace("best in its row", "best in its column")
    notes = [markdown(f"{_READING} {facts}")]
    notes += [f"<sup>{mark}</sup> {markdown(text)}" for mark, text in table.footnotes]
    return "\n\n".join([*parts, *notes]) + "\n"


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
