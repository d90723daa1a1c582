"""`mibench table`, `plot` and `report`: from records alone, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mibench.cli_live import print_files
from mibench.cli_options import Form, Results
from mibench.errors import RecordError


def register(app: typer.Typer) -> None:
    """Give the app the commands of this module."""
    app.command()(table)
    app.command()(plot)
    app.command()(report)


def console() -> Console:
    """Standard output; 100 columns where it is no terminal, so that files hold whole tables."""
    console = Console()
    return console if console.is_terminal else Console(width=100)


def table(
    results: Results,
    metric: Annotated[list[str] | None, typer.Option("--metric", help="Columns. May be repeated.")] = None,
    form: Annotated[Form, typer.Option("--format")] = Form.terminal,
    no_intervals: Annotated[bool, typer.Option("--no-intervals", help="Values alone.")] = False,
) -> None:
    """Print the comparison table of a results folder."""
    from mibench.record import uncollected

    with uncollected():  # printing makes many small things, and each time all records would be looked at
        _print_table(_results(results), metric, form, intervals=not no_intervals)


def _print_table(folder: Path, metrics: list[str] | None, form: Form, *, intervals: bool) -> None:
    from mibench.record import read_records
    from mibench.report import comparison
    from mibench.report.left_out import noted

    records = read_records(folder / "records.jsonl")
    found = noted(comparison(records, metrics=metrics, intervals=intervals), folder)
    if form is Form.terminal:
        to = console()
        to.print(found.to_rich(to.width))
        return
    text = {
        Form.csv: found.to_csv,
        Form.markdown: found.to_markdown,
        Form.latex: found.to_latex,
        Form.html: found.to_html,
    }[form]()
    print(text, end="" if text.endswith("\n") else "\n")


def plot(results: Results) -> None:
    """Draw the figures of a results folder again."""
    from mibench.record import read_records
    from mibench.report import write_grids, write_plots

    folder = _results(results)
    records = read_records(folder / "records.jsonl")
    print_files([*write_plots(records, folder), *write_grids(records, folder)])


def report(results: Results) -> None:
    """Write tables, figures and pages of a results folder again."""
    from mibench.report import write_all

    print_files(write_all(_results(results)))


def _results(path: Path) -> Path:
    """The folder of results; its records.jsonl may be named instead."""
    folder = path.parent if path.name == "records.jsonl" else path
    if not (folder / "records.jsonl").is_file():
        raise RecordError(
            f"results {path}: holds no records.jsonl. Give the folder of a run, such as results/quick."
        )
    return folder
