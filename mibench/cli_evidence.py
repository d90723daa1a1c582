"""`mibench why` and `mibench diff`: where the number of a cell comes from, and why two differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Cell = Annotated[
    str, typer.Argument(metavar="CELL", help="A cell's name, or its first digits if no other has them.")
]
Folders = Annotated[
    list[Path] | None,
    typer.Option(
        "--results",
        metavar="DIR",
        help="A results folder, or a folder of them. Default: results. Repeatable.",
    ),
]
_DEFAULT = (Path("results"),)


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    app.command()(why)
    app.command()(diff)


def why(cell: Cell, results: Folders = None) -> None:
    """Say why a cell has its number: judges, people, flags, costs, keys, and how to repeat it.

    Raises:
        RecordError: no cell or several are called so, or something cannot be read.
    """
    from mibench.report.find_cell import find_cell
    from mibench.report.why import why as told

    typer.echo(told(find_cell(cell, results or _DEFAULT)))


def diff(first: Cell, second: Cell, results: Folders = None) -> None:
    """Say what differs between two cells: settings, keys, software, estimates, flags.

    Raises:
        RecordError: no cell or several are called so, or something cannot be read.
    """
    from mibench.report.cell_diff import diff as told
    from mibench.report.find_cell import find_cell

    folders = results or _DEFAULT
    typer.echo(told(find_cell(first, folders), find_cell(second, folders)))
