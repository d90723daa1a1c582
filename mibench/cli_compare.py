"""`mibench compare`: defenses, or attacks, held against each other person by person; without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mibench.cli_options import Form
from mibench.cli_report import console


def register(app: typer.Typer) -> None:
    """Give the app the command of this module."""
    app.command()(compare)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="Labels in the results; or FOLDER:LABEL for those of another."),
    ],
    *,
    results: Annotated[
        Path, typer.Option("--in", metavar="RESULTS", help="The results folder of labels without one.")
    ] = Path("results/quick"),
    is_attacks: Annotated[bool, typer.Option("--attacks", help="A, B... are attacks, not defenses.")] = False,
    under: Annotated[
        list[str] | None,
        typer.Option(
            "--under",
            metavar="LABEL",
            help="Under these attacks (with --attacks: defenses). May be repeated.",
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format")] = Form.terminal,
) -> None:
    """Say which of some defenses protects better, as far as the people that were attacked can tell.

    Every pair is compared on the same people under the same attack: difference in AA with its interval, p
    after Holm's correction, tie groups, and what so many people could have shown.
    """
    from mibench.report import compare_text as text
    from mibench.report.compare import compare as compared

    found = compared(names, folder=results, attacks=is_attacks, under=under or ())
    if form is Form.terminal:
        console().print(text.to_rich(found))
        return
    shown = {
        Form.csv: text.to_csv,
        Form.markdown: text.to_markdown,
        Form.latex: text.to_latex,
        Form.html: text.to_html,
    }
    print(shown[form](found), end="")
