"""`mibench data doctor`: what is wrong with the sets below a folder, and how to mend that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from mibench.cli_data.listing import Root
from mibench.cli_data.printing import LIMIT, console, fail_if, print_findings

All = Annotated[bool, typer.Option("--all", help="Name all odd images, pairs and people, not the first few.")]


def doctor(root: Root = Path("data"), is_all: All = False) -> None:
    """Look at every prepared set, preparation and split: damage, leftovers, odd images, room on the disk.

    Files are compared with what is recorded by name and size. Digests are not computed: `mibench data verify`
    does that. Exit code 1 where something is broken.
    """
    from rich.console import Console
    from rich.status import Status

    from mibench.data.finding import NAMED
    from mibench.data.shelf_health import look_after
    from mibench.report.escape import plain

    stream = Console(stderr=True)
    with Status("looking", console=stream) as status:

        def on_set(name: str, rows: int) -> Callable[[int], object]:
            done = 0

            def moved(count: int) -> None:
                nonlocal done
                done += count
                status.update(f"{plain(name, 40)}: {done:,} of {rows:,} images")

            return moved

        failed = print_findings(
            look_after(root, on_set, most=sys.maxsize if is_all else NAMED), limit=0 if is_all else LIMIT
        )
    if not failed:
        console().print("Nothing is broken.")
    fail_if(failed)
