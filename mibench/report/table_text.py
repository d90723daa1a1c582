"""The comparison table for terminals and in Markdown: defenses as columns, metrics as lines.

Neither has column groups, and seven defenses of four metrics would be 28 columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich import box
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mibench.report.escape import markdown

if TYPE_CHECKING:
    from mibench.report.table import Comparison, Entry

SUPERSCRIPTS = str.maketrans(
    "abcdefghijklmnoprstuvwxyz,", "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ\N{RIGHT SINGLE QUOTATION MARK}"
)
# only what measures the model may stand in its line: an AA that is equal by chance is no fact about it
OF_VICTIM = frozenset({"mc_all", "mc_target", "far_decoy", "far_public"})
GAP = 2  # columns that the box below leaves between two columns
RULES = box.Box(
    "    \n    \n ── \n    \n ── \n ── \n    \n    \n"
)  # rules below the head and between sections


@dataclass(frozen=True)
class Line:
    """One printed line: a metric of one attack, or of the victim where all attacks share the number."""

    label: str
    access: str
    control: bool
    metric: int
    entries: tuple[Entry, ...]
    ends_section: bool = False


def _lines(table: Comparison, scene: str) -> list[Line]:
    """The lines of a scene; numbers of the model that do not depend on the attack come first, once."""
    rows = [index for index, row in enumerate(table.rows) if row.scene == scene]
    of_victim = [m for m, metric in enumerate(table.metrics) if metric.name in OF_VICTIM]
    shared = [m for m in of_victim if len(rows) > 1 and _is_shared(table, rows, m)]
    own = [m for m in range(len(table.metrics)) if m not in shared]
    lines: list[Line] = []
    for metric in shared:
        first = tuple(_first_value(table, rows, d, metric) for d in range(len(table.defenses)))
        lines.append(
            Line("" if lines else "victim", "", False, metric, first, bool(own) and metric == shared[-1])
        )
    for row in rows:
        line = table.rows[row]
        ends = not line.control and row != rows[-1] and table.rows[row + 1].control
        for metric in own:
            entries = tuple(table.entries[row, d, metric] for d in range(len(table.defenses)))
            label, access = ("", "") if metric != own[0] else (line.label, line.access)
            lines.append(Line(label, access, line.control, metric, entries, ends and metric == own[-1]))
    return lines


def _is_shared(table: Comparison, rows: list[int], metric: int) -> bool:
    """Whether every defense has one number of this metric, whatever the attack."""
    for defense in range(len(table.defenses)):
        entries = [table.entries[row, defense, metric] for row in rows]
        values = {(e.shown, e.extra) for e in entries if e.state == "value"}
        if len(values) > 1 or (values and any(e.state == "absent" for e in entries)):
            return False
    return True


def _first_value(table: Comparison, rows: list[int], defense: int, metric: int) -> Entry:
    """The first number of a defense, or its first word where it has none; footnotes stay with the attacks."""
    entries = [table.entries[row, defense, metric] for row in rows]
    first = next((entry for entry in entries if entry.state == "value"), entries[0])
    return replace(first, marks="") if first.state == "value" else first


def rich_table(table: Comparison, width: int) -> RenderableType:
    """Blocks of as many defenses as fit `width` columns; one line a number where not even one does."""
    parts: list[RenderableType] = []
    for scene in _scenes(table):
        lines = _lines(table, scene)
        columns = [_column(lines, defense) for defense in range(len(table.defenses))]
        blocks = _blocks(table, lines, columns, width)
        parts.append(Text(scene, style="bold"))
        for block in blocks:
            parts += [_block(table, lines, columns, block), Text()]
        if not blocks:
            parts += _long(table, lines)
    notes = [Text(" ".join(table.caption), style="dim")]
    notes += [Text(f"{_raised(mark)} {text}", style="dim") for mark, text in table.footnotes]
    return Group(*parts, *notes)


def _scenes(table: Comparison) -> list[str]:
    """The scenes of the table, in its order."""
    return list(dict.fromkeys(row.scene for row in table.rows))


def _raised(mark: str) -> str:
    """Footnote letters as superscripts."""
    return mark.translate(SUPERSCRIPTS)


def _cell(entry: Entry, digits: int = 0) -> Text:
    """An entry as styled text, its number on `digits` columns: bold where best, red where failed."""
    styles = {"failed": "red", "blocked": "dim", "missing": "dim", "absent": "dim", "value": ""}
    shown = entry.shown.rjust(digits) if entry.state == "value" else entry.shown
    text = Text(shown, style="bold" if entry.best else styles[entry.state])
    if entry.extra:
        text.append(f" {entry.extra}", style="not bold dim")
    return text.append(_raised(entry.marks), style="not bold")


def _column(lines: list[Line], defense: int) -> list[Text]:
    """The cells of a defense, decimal points below each other."""
    entries = [line.entries[defense] for line in lines]
    digits = max((len(entry.shown) for entry in entries if entry.state == "value"), default=0)
    return [_cell(entry, digits) for entry in entries]


def _blocks(table: Comparison, lines: list[Line], columns: list[list[Text]], width: int) -> list[list[int]]:
    """Defenses in groups that fit the width; empty where one alone is too wide."""
    left = max((cell_len(line.label) for line in lines), default=0) + GAP
    left += max((cell_len(metric.heading) for metric in table.metrics), default=0)
    blocks: list[list[int]] = []
    used = width + 1
    for defense, name in enumerate(table.defenses):
        need = GAP + max(cell_len(name), *(cell.cell_len for cell in columns[defense]), 0)
        if left + need > width:
            return []
        if used + need > width:
            blocks.append([])
            used = left
        blocks[-1].append(defense)
        used += need
    return blocks


def _block(table: Comparison, lines: list[Line], columns: list[list[Text]], defenses: list[int]) -> Table:
    """One table of some defenses."""
    block = Table(box=RULES, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    block.add_column("", no_wrap=True)
    block.add_column("", no_wrap=True)
    for defense in defenses:
        block.add_column(Text(table.defenses[defense]), no_wrap=True)
    for index, line in enumerate(lines):
        block.add_row(
            Text(line.label, style="italic" if line.control or not line.access else ""),
            Text(table.metrics[line.metric].heading, style="dim"),
            *(columns[defense][index] for defense in defenses),
            end_section=line.ends_section,
        )
    return block


def _long(table: Comparison, lines: list[Line]) -> list[RenderableType]:
    """One line a number, under a heading for every attack and defense: for very narrow terminals."""
    parts: list[RenderableType] = []
    for defense, name in enumerate(table.defenses):
        parts.append(Text(f"\n{name}", style="bold"))
        for line in lines:
            if line.label:
                parts.append(Text(f" {line.label}"))
            heading = Text(f"  {table.metrics[line.metric].heading} ")
            parts.append(heading.append_text(_cell(line.entries[defense])))
    return parts


def markdown_table(table: Comparison) -> str:
    """The table, its caption and its footnotes as GitHub Markdown."""
    parts = []
    for scene in _scenes(table):
        head = ["Attack", "Access", "Metric", *(markdown(name) for name in table.defenses)]
        printed = [f"| {' | '.join(head)} |", f"|{'---|' * 3}{'---:|' * len(table.defenses)}"]
        for line in _lines(table, scene):
            label = markdown(line.label)
            label = f"*{label}*" if label and (line.control or not line.access) else label
            access = "control" if line.control and label else markdown(line.access)
            cells = [label, access, markdown(table.metrics[line.metric].heading)]
            printed.append(f"| {' | '.join([*cells, *map(_markdown_cell, line.entries)])} |")
        parts.append(f"**{markdown(scene)}**\n\n" + "\n".join(printed))
    parts.append(markdown(" ".join(table.caption)))
    parts += [f"<sup>{mark}</sup> {markdown(text)}" for mark, text in table.footnotes]
    return "\n\n".join(parts) + "\n"


def _markdown_cell(entry: Entry) -> str:
    """An entry in Markdown: bold where best, the interval after it."""
    number = f"**{entry.shown}**" if entry.best else entry.shown
    extra = f" {entry.extra}" if entry.extra else ""
    return number + extra + (f" <sup>{entry.marks}</sup>" if entry.marks else "")
