"""`mibench watch`: how a run goes, from another terminal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

Watched = Annotated[
    Path, typer.Argument(metavar="[RESULTS]", help="A results folder, or one of them: then the latest run.")
]
Once = Annotated[bool, typer.Option("--once", help="Print how it stands, and stop.")]
_EVERY_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the command to an app."""
    app.command()(watch)


def watch(results: Watched = Path("results"), *, once: Once = False) -> None:
    """Show how a run goes until it ends; off a terminal, a block of lines at every change.

    Raises:
        RecordError: there is no run to watch, or what it says cannot be read.
    """
    from rich.console import Console

    from mibench.report.escape import printable
    from mibench.watching import find_status, lines, look

    file = find_status(results)
    console = Console()
    if once:
        return typer.echo("\n".join(map(printable, lines(look(file)))))
    if console.is_terminal:
        return _live(file, console)
    shown: list[str] = []
    while True:
        sight = look(file)
        state = [sight.status["state"], *map(str, sight.status["cells"].values())]
        if state != shown or sight.is_over:
            shown = state
            typer.echo("\n".join(map(printable, lines(sight))))
        if sight.is_over:
            return None
        time.sleep(_EVERY_S)


def _live(file: Path, console: object) -> None:
    """Redraw the lines in place until the run is over."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from mibench.report.escape import printable
    from mibench.watching import lines, look

    assert isinstance(console, Console)
    with Live(console=console, auto_refresh=False) as screen:
        while True:
            sight = look(file)
            screen.update(Text("\n".join(map(printable, lines(sight)))), refresh=True)
            if sight.is_over:
                return
            time.sleep(_EVERY_S)
