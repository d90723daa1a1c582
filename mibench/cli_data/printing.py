"""How the commands about data print: findings line by line, bars on a terminal, text made safe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mibench.cli_doctor import print_line

if TYPE_CHECKING:
    from mibench.data.finding import Finding


def console() -> Console:
    """Standard output; 100 columns where it is no terminal, so that files hold whole tables."""
    found = Console()
    return found if found.is_terminal else Console(width=100)


LIMIT = 2000
"""Characters of a finding that are printed unless all are asked for."""


def print_findings(findings: Iterable[Finding], about: str = "", *, limit: int = LIMIT) -> int:
    """Print one line a finding as it comes; returns how many failed.

    Args:
        findings: with text of users' files as it is: it is made safe here.
        about: what they are about, in front of every line; empty where that is plain.
        limit: characters of each that are printed; 0 prints all.
    """
    from mibench.report.escape import plain

    failed = 0
    for finding in findings:
        failed += finding.status == "fail"
        what = f"{about}: {finding.what}" if about else finding.what
        print_line(finding.status, plain(what, 200), plain(finding.text, limit))
    return failed


def safe(text: object, limit: int = 0) -> Text:
    """Text of a user's file for a table or a line: no control characters, no markup."""
    from mibench.report.escape import plain

    return Text(plain(text, limit))


def table(*headings: str) -> Table:
    """A table without lines, as `mibench list` prints them."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        found.add_column(heading, no_wrap=place == 0, overflow="fold")
    return found


@contextmanager
def bar(what: str, total: int, *, is_bytes: bool = False) -> Iterator[Callable[[int], object]]:
    """A function that moves a bar on by a count; there is a bar on a terminal alone.

    Args:
        what: is done, in a word or two.
        total: the count at the end.
        is_bytes: whether bytes are counted.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    stream = Console(stderr=True)
    counts = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), counts, TimeRemainingColumn())
    with Progress(*columns, console=stream, transient=True, disable=not stream.is_terminal) as progress:
        line = progress.add_task(what, total=total)
        yield lambda count: progress.advance(line, count)


def fail_if(failed: int) -> None:
    """End the command with the exit code of a failed check where there is one."""
    from mibench.cli_doctor import CHECK_FAILED

    if failed:
        raise typer.Exit(CHECK_FAILED)
