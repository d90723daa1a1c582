"""The facts without which a table of attack accuracies says nothing, as sentences for its caption."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mibench.report.frame import CellRow, MetricInfo
from mibench.report.worst import WORST

if TYPE_CHECKING:
    from mibench.report.table import Entry

VIEWS = {
    "stripped": "Stripped view: a white-box attacker holds the weights and drops a defense's output step.",
    "deployed": "Deployed view: a white-box attacker follows gradients through a defense's output step.",
}
LEGEND = {
    "absent": "n/a: the metric has no meaning for the cell.",
    "blocked": "\N{EN DASH}: the cell makes no sense and was not run.",
    "missing": "·: the records hold no such cell.",
}
WORST_CASE = (
    "Worst case: the mean over protected labels of the best attack's AA on each; the judge picks the attack "
    "on half of a label's images and scores it on the other half. The attacks are those measured on every "
    "defense."
)


def caption(
    cells: Sequence[CellRow],
    entries: Mapping[tuple[int, int, int], Entry],
    metrics: Sequence[MetricInfo],
    *,
    intervals: bool,
) -> tuple[str, ...]:
    """Sentences: what was counted, chance, judge, seeds, view, and how to read the signs of the table."""
    names = [metric.name for metric in metrics]
    facts = [
        _reconstructions(cells, entries, names),
        _fid_count(entries, names),
        chance_fact(cells),
        *judge_facts(cells),
        seeds_fact(cells),
        *view_facts(cells),
        WORST_CASE if any(map(_is_worst, cells)) else "",
        *(f"Every measured cell is flagged: {text}." for text in flags_of_all(cells)),
        _reading(cells, entries, intervals=intervals),
    ]
    states = {entry.state for entry in entries.values()}
    facts += [text for state, text in LEGEND.items() if state in states]
    return tuple(fact for fact in facts if fact)


def view_facts(cells: Sequence[CellRow]) -> tuple[str, ...]:
    """What a white-box attacker holds, for every view of the cells."""
    views = dict.fromkeys(cell.view for cell in cells)
    return tuple(VIEWS[view] for view in views if view in VIEWS)


def flags_of_all(cells: Sequence[CellRow]) -> tuple[str, ...]:
    """Flags that every measured cell carries, in the first cell's order; none where one cell was measured."""
    measured = [cell.flags for cell in cells if cell.status == "ok" and not _is_worst(cell)]
    if len(measured) < 2:
        return ()
    common = set.intersection(*map(set, measured))
    return tuple(text for text in measured[0] if text in common)


def _is_worst(cell: CellRow) -> bool:
    """Whether a row is a worst case and no attack."""
    return cell.attack.startswith(WORST)


def spans(values: Iterable[float], form: str = "{:.0f}", unit: str = "") -> str:
    """One number, or `low to high` where they differ as printed; empty where there is none."""
    shown = [form.format(value) for value in sorted(values) if value == value]  # noqa: PLR0124  NaN is unequal to itself
    if not shown:
        return ""
    return f"{shown[0]}{unit}" if shown[0] == shown[-1] else f"{shown[0]} to {shown[-1]}{unit}"


def _counts(entries: Mapping[tuple[int, int, int], Entry], metric: int) -> set[int]:
    """How many things the numbers of one metric average."""
    return {entry.count for (_, _, m), entry in entries.items() if m == metric and entry.state == "value"}


def _reconstructions(
    cells: Sequence[CellRow], entries: Mapping[tuple[int, int, int], Entry], names: Sequence[str]
) -> str:
    """How many reconstructions an attack accuracy averages, of how many labels."""
    if "aa" not in names or not (counted := spans(_counts(entries, names.index("aa")))):
        return ""
    labels = spans(cell.protected for cell in cells if cell.status == "ok")
    of = f" of {labels} protected {'label' if labels == '1' else 'labels'}" if labels else ""
    return f"AA over {counted} reconstructions per cell{of}."


def _fid_count(entries: Mapping[tuple[int, int, int], Entry], names: Sequence[str]) -> str:
    """The n of the FID, and a warning where cells differ in it."""
    if "fid" not in names or not (counted := _counts(entries, names.index("fid"))):
        return ""
    if len(counted) == 1:
        return f"FID at n = {spans(counted)}."
    return f"FID at n = {spans(counted)}: its bias depends on n, so do not compare cells of different n."


def chance_fact(cells: Sequence[CellRow]) -> str:
    """The attack accuracy of a blind guess."""
    level = spans((cell.chance * 100 for cell in cells), "{:.1f}", " %")
    return f"Chance level of AA: {level}." if level else ""


def judge_facts(cells: Sequence[CellRow]) -> tuple[str, ...]:
    """The judge's accuracy on real test images, and a warning where it is under the suite's gate."""
    judged = [cell for cell in cells if not math.isnan(cell.judge_accuracy)]
    if not judged:
        return ()
    accuracy = spans((cell.judge_accuracy * 100 for cell in judged), "{:.1f}", " %")
    nets = ", ".join(name for name in dict.fromkeys(cell.judge_net for cell in judged) if name)
    who = f"The judge ({nets})" if nets else "The judge"
    under = [cell for cell in judged if cell.judge_accuracy < cell.judge_gate]
    if not under:
        return (f"{who} recognizes {accuracy} of real test images.",)
    gate = spans((cell.judge_gate * 100 for cell in under), "{:.0f}", " %")
    return (
        f"{who} recognizes only {accuracy} of real test images, under the gate of {gate}: distrust every AA.",
    )


def seeds_fact(cells: Sequence[CellRow]) -> str:
    """Which seeds the numbers come from."""
    seeds = sorted({cell.seed for cell in cells})
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    few = ", ".join(map(str, seeds)) if len(seeds) <= 8 else f"{seeds[0]} to {seeds[-1]}"
    return f"Means over {len(seeds)} seeds ({few})."


def _reading(
    cells: Sequence[CellRow], entries: Mapping[tuple[int, int, int], Entry], *, intervals: bool
) -> str:
    """How to read arrows, brackets and bold print."""
    parts = ["Percentages but for distances", "arrows point to what is better for the defender"]
    extras = [entry.extra for entry in entries.values() if entry.extra]
    if intervals and any(extra.startswith("[") for extra in extras):
        parts.append("[95 % interval]")
    if intervals and any(extra.startswith("±") for extra in extras):
        parts.append("± standard deviation over seeds")
    if any(entry.best for entry in entries.values()):
        parts.append("bold is best in its row")
    if any(cell.control for cell in cells):
        parts.append("negative controls stand below the rule")
    return "; ".join(parts) + "."
