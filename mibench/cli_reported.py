"""`mibench reported`: the numbers that papers print, without running anything."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from mibench.reported import Paper, Reported, ReportedError, papers, read_reported

reported_app = typer.Typer(help="Numbers that papers print, with their provenance.", no_args_is_help=True)
_PLACES = ("dataset", "model", "resolution", "setting")  # said once where all rows agree
_FOLDED = ("model", "defense", "variant")  # the columns of long words
_NOTED, _SHORT = ("setting", "note"), 10  # columns whose words of more letters become footnotes
_HEADINGS = {"resolution": "px"}
_SHOWN = (*_PLACES, "attack", "defense", "variant", "metric", "value", "certainty", "note")


@reported_app.command("list")
def list_papers() -> None:
    """The papers, their tables, how many numbers, and where these were read."""
    for paper in papers().values():
        Console().print(_about(paper))


@reported_app.command("show")
def show_numbers(
    name: Annotated[str, typer.Argument(metavar="PAPER[/TABLE]", help="For example tifs23/table2 or ssd.")],
    attack: Annotated[str | None, typer.Option(help="This attack's alone, as printed.")] = None,
    defense: Annotated[str | None, typer.Option(help="This defense's alone, as printed.")] = None,
    metric: Annotated[str | None, typer.Option(help="This metric alone, as printed.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="All columns, as CSV.")] = False,
) -> None:
    """The numbers of a paper or of one of its tables, as printed there.

    Raises:
        ReportedError: no such paper or table is here, or no number of it is what the options ask for.
    """
    paper, _, table = name.partition("/")
    wanted = {"attack": attack, "defense": defense, "metric": metric}
    rows = [
        row
        for row in read_reported(paper, table.removeprefix("table") or None)
        if all(
            word is None or word.lower() == str(getattr(row, field)).lower() for field, word in wanted.items()
        )
    ]
    if not rows:
        asked = ", ".join(f"{field} '{word}'" for field, word in wanted.items() if word is not None)
        raise ReportedError(
            f"no number of '{name}' has {asked}. `mibench reported show {paper}` prints the names."
        )
    if as_csv:
        _write_csv(rows)
        return
    about = papers()[paper]
    console = Console()
    console.print(
        f"[bold]{escape(about.title)}[/]\n{escape(about.paper)}\nRead from: {escape(about.read)}.\n"
    )
    for one in dict.fromkeys(row.table for row in rows):
        _print_table(console, one, [row for row in rows if row.table == one])


def _print_table(console: Console, name: str, rows: Sequence[Reported]) -> None:
    """One of a paper's tables: what all its rows share, the rest of the rows, the notes."""
    alike = _alike(rows)
    shared = ", ".join(f"{field} {word}" for field, word in alike.items())
    console.print(f"[bold]{escape(name)}[/]{escape(f': {shared}' if shared else '')}")
    notes = _footnotes(rows)
    console.print(_numbers(rows, [field for field in _SHOWN if field not in alike], notes))
    for number, note in enumerate(notes, 1):
        console.print(f"[{number}] {note}", markup=False, highlight=False)
    console.print()


def _about(paper: Paper) -> str:
    rows = read_reported(paper.name)
    tables = ", ".join(dict.fromkeys(row.table for row in rows))
    head = f"[bold]{paper.name}[/]: {len(rows)} numbers ({escape(tables)})"
    return "\n    ".join((head, escape(paper.title), escape(paper.paper), f"read from {escape(paper.read)}"))


def _alike(rows: Sequence[Reported]) -> dict[str, str]:
    """What is the same in all of several rows, and so needs no column: narrow terminals lack the room."""
    found = {name: {_word(row, name) for row in rows} for name in _PLACES}
    return {
        name: words.pop()
        for name, words in found.items()
        if len(rows) > 1 and len(words) == 1 and words != {""}
    }


def _numbers(rows: Sequence[Reported], names: Sequence[str], notes: Sequence[str]) -> Table:
    """A table of those columns that say something; notes and long settings are numbers, and stand below."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [name for name in names if any(_word(row, name) for row in rows)]
    for name in shown:
        justify: JustifyMethod = "right" if name == "value" else "left"
        heading = _HEADINGS.get(name, name)
        table.add_column(heading, justify=justify, no_wrap=name not in _FOLDED, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_short(row, name, notes)) for name in shown))
    return table


def _footnotes(rows: Sequence[Reported]) -> list[str]:
    """The words of `_NOTED` columns that stand below the table."""
    words = (_word(row, name) for row in rows for name in _NOTED)
    return [word for word in dict.fromkeys(words) if len(word) > _SHORT]


def _short(row: Reported, field: str, notes: Sequence[str]) -> str:
    word = _word(row, field)
    return f"[{notes.index(word) + 1}]" if field in _NOTED and word in notes else word


def _word(row: Reported, field: str) -> str:
    value = getattr(row, field)
    if field == "value":
        return "?" if value is None else f"{value:g}" + (" %" if row.unit == "percent" else "")
    return "" if value in {"read", None} else str(value)


def _write_csv(rows: Sequence[Reported]) -> None:
    names = [one.name for one in dataclasses.fields(Reported)]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(row) for row in rows)
