"""The comparison table as HTML, and the one jinja2 environment of the report."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from mibench.report.table import Comparison, Entry


@cache
def environment() -> jinja2.Environment:
    """The templates of this package; everything put into them is escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mibench.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, **values: object) -> str:
    """The template `name` with these values, escaped."""
    return environment().get_template(name).render(**values)


def html_table(table: Comparison, link: Callable[[str, str], str] | None) -> str:
    """The table as a <figure>: a scrolling container, the caption, the footnotes."""
    scenes = [
        {"name": name, "rows": [_row(table, row) for row in rows]}
        for name, rows in groupby(range(len(table.rows)), key=lambda index: table.rows[index].scene)
    ]
    return render("table.html.j2", table=table, scenes=scenes, link=link or (lambda _cell, _metric: ""))


def _row(table: Comparison, row: int) -> dict[str, Any]:
    """One line for the template: the row, whether a rule goes before it, its groups of entries."""
    line = table.rows[row]
    before = table.rows[row - 1] if row else None
    groups = []
    for defense in range(len(table.defenses)):
        entries = [table.entries[row, defense, metric] for metric in range(len(table.metrics))]
        groups.append({"entries": list(zip(table.metrics, entries)), "word": _word(entries)})
    starts = line.control and (before is None or not before.control or before.scene != line.scene)
    return {"row": line, "starts_controls": starts, "groups": groups}


def _word(entries: list[Entry]) -> Entry | None:
    """The entry to print once across all metrics of a defense that has no number at all."""
    states = {entry.state for entry in entries}
    one = len(states) == 1 and states <= {"failed", "blocked", "missing"}
    return entries[0] if one else None
