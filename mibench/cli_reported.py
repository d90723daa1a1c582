"""`mibench reported`: the numbers that papers print, without running anything."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mibench.reported import Paper, Reported, ReportedError, papers, read_reported

reported_app = typer.Typer(help="Numbers that papers print, with their provenance.", no_args_is_help=True)
_TELLING = ("model", "resolution", "setting")  # shown where the rows differ in them
_SHOWN = ("dataset", *_TELLING, "attack", "defense", "variant", "metric", "value", "certainty", "note")


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
    console.print(_numbers(rows))


def _about(paper: Paper) -> str:
    rows = read_reported(paper.name)
    tables = ", ".join(dict.fromkeys(row.table for row in rows))
    head = f"[bold]{paper.name}[/]: {len(rows)} numbers ({escape(tables)})"
    return "\n    ".join((head, escape(paper.title), escape(paper.paper), f"read from {escape(paper.read)}"))


def _numbers(rows: Sequence[Reported]) -> Table:
    """A table of the columns that say something; those of `_TELLING` only where they tell rows apart."""
    table = Table(box=None, pad_edge=False)
    words = {name: {_word(row, name) for row in rows} for name in ("table", *_SHOWN)}
    shown = [
        name for name, found in words.items() if found != {""} and (name not in _TELLING or len(found) > 1)
    ]
    for name in shown:
        table.add_column(name, justify="right" if name == "value" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_word(row, name)) for name in shown))
    return table


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
