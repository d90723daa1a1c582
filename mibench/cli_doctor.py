"""`mibench doctor`: what a machine offers, and whether it gives the numbers that it should."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from mibench.cli_options import Out, StoreOption

CHECK_FAILED = 1


def doctor(
    out: Out = Path("results"),
    store: StoreOption = None,
    is_golden: Annotated[
        bool,
        typer.Option(
            "--golden",
            help="Run a small part of `smoke` on the CPU and compare its numbers with the committed ones.",
        ),
    ] = False,
    is_write: Annotated[
        bool, typer.Option("--write", help="With --golden: replace the committed numbers instead.")
    ] = False,
) -> None:
    """Say what this machine offers, what is wrong with it, and how to mend that."""
    if is_write and not is_golden:
        raise typer.BadParameter("goes with --golden alone.", param_hint="--write")
    if is_golden:
        return _golden(is_write=is_write)
    from mibench.doctor import diagnose

    findings = diagnose(store or out / "store")
    for finding in findings:
        print_line(finding.status, finding.what, finding.text)
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(CHECK_FAILED)
    return None


def print_line(status: str, what: str, text: str) -> None:
    """One line of a check or of the doctor, its status in color on a terminal."""
    style = {"ok": "green", "warn": "yellow", "fail": "bold red"}[status]
    from mibench.report.escape import printable

    told = "\n".join(map(printable, f"  {what}{f': {text}' if text else ''}".splitlines()))
    line = Text.assemble((f"{status:4}", style), told)
    console = Console()
    console = console if console.is_terminal else Console(width=100)
    console.print(line, soft_wrap=True)


def _golden(*, is_write: bool) -> None:
    """Make the golden numbers, and compare or write them; typer.Exit where they departed."""
    from mibench.golden import GOLDEN, WRITE, compare, golden_plan, read_golden, take, write_golden

    committed = None if is_write else read_golden()
    plan, started = golden_plan(), time.monotonic()
    taken = take(plan)
    seconds = f"{len(plan.tasks)} tasks in {time.monotonic() - started:.0f} s"
    made = ", ".join(f"{name} {value}" for name, value in taken.made.items())
    if committed is None:
        print_line(
            "ok", "golden", f"{seconds}; written to {write_golden(taken, GOLDEN).name}, made on {made}"
        )
        return
    verdict = compare(committed, taken)
    marks = {"same": "ok", "within": "ok", "departed": "fail", "stale": "fail"}
    for line in verdict.lines:
        print_line(marks[line.status], line.what, line.text)
    if not verdict.is_home:
        others = [
            f"{name} {committed.made.get(name)} there, {value} here"
            for name, value in taken.made.items()
            if committed.made.get(name) != value
        ]
        print_line("ok", "ground", f"not that of the golden numbers: {'; '.join(others)}")
    advice = f". If that is meant, write the numbers anew with `{WRITE}`." if verdict.first else ""
    print_line(marks[verdict.status], "golden", f"{verdict.text}{advice} ({seconds})")
    if verdict.first:
        raise typer.Exit(CHECK_FAILED)


__all__ = ["CHECK_FAILED", "doctor", "print_line"]
