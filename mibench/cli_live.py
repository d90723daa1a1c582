"""What commands that run something share: the store, the live display, the list of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mibench.live import Live
    from mibench.plan import Plan
    from mibench.store import Store


def shelf_of(out: Path, store: str | None) -> Store:
    """The store of a run: the one that is named, or the one below the results."""
    from mibench.store import Store

    return Store(store or out / "store")


def live(plan: Plan, store: Store, jobs: int, *, device: str = "", results: Path | None = None) -> Live:
    """A display on standard error of what a plan still has to do."""
    from mibench.estimate import Estimates
    from mibench.live import Live

    todo = {key for key, status in plan.status(store).items() if status in {"run", "zoo"}}
    # where nothing is to be done nobody asks how long it takes, and the past is a third of a run of hits
    past = Estimates.of_store(store, device=device, results=results, tasks=plan.tasks) if todo else None
    estimates = past or Estimates(device)
    return Live(plan, Console(stderr=True), jobs=jobs, estimates=estimates, todo=todo)


def print_files(paths: Sequence[Path]) -> None:
    """Print one path a line, without the pages of single cells."""
    for path in paths:
        if "cells" not in path.parts[-3:-1]:
            typer.echo(path)
