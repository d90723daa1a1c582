"""`mibench data doctor`: what is wrong with the sets below a folder, and how to mend that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mibench.cli_data.listing import Root
from mibench.cli_data.printing import console, fail_if, print_findings


def doctor(root: Root = Path("data")) -> None:
    """Look at every prepared set, preparation and split: damage, leftovers, odd images, room on the disk.

    Digests are not computed: `mibench data verify` does that. Exit code 1 where something is broken.

    Raises:
        DataError: the folder cannot be read.
    """
    from rich.console import Console
    from rich.status import Status

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

        failed = print_findings(look_after(root, on_set))
    if not failed:
        console().print("Nothing is broken.")
    fail_if(failed)
