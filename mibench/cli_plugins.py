"""`mibench list`, `show`, `check` and `lock`: what there is, and whether it keeps its contract."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from mibench.checking import LIMIT_S, WHOLE_S, Told, checked
from mibench.cli_doctor import CHECK_FAILED, print_line
from mibench.cli_options import Listed
from mibench.cli_report import console


def register(app: typer.Typer) -> None:
    """Give the app the commands of this module."""
    app.command("list")(list_names)
    app.command()(show)
    app.command()(check)
    app.command(hidden=True)(lock)


def list_names(what: Listed) -> None:
    """List all attacks, defenses, metrics or suites."""
    from mibench.catalog import LISTS

    console().print(LISTS[what.value]())


def show(name: Annotated[str, typer.Argument(metavar="NAME|FILE")]) -> None:
    """Show a plugin: its paper, its fields, and what differs from the paper."""
    from mibench.catalog import find_plugins, plugin_card

    for plugin in find_plugins(name):
        console().print(plugin_card(plugin))


def check(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A plugin's name, alias or .py file.")],
    *,
    limit: Annotated[
        float,
        typer.Option("--limit", min=0.1, max=86_400.0, metavar="SECONDS", help="What one check may take."),
    ] = LIMIT_S,
    is_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
) -> None:
    """Hold a plugin against its contract: one line a check, and what to do where one fails.

    A warning is advice: a plugin may have its reasons. Exit code 1 where a check failed.
    """
    began, found = time.monotonic(), []
    for one in checked(name, limit_s=limit):
        found.append(one)
        if is_json:
            print(json.dumps(dataclasses.asdict(one)), flush=True)
        else:
            print_line(one.status, f"{one.seconds:5.1f} s  {one.plugin}: {one.title}", one.text)
    if not is_json:
        _sum_up(found, time.monotonic() - began)
    if any(one.status == "fail" for one in found):
        raise typer.Exit(CHECK_FAILED)


def _sum_up(found: Sequence[Told], seconds: float) -> None:
    """Print how many checks held, and how long all took."""
    counts = Counter(one.status for one in found)
    told = ", ".join(f"{counts[status]} {status}" for status in ("ok", "warn", "fail") if counts[status])
    slowest = max(found, key=lambda one: one.seconds)
    print(
        f"{len(found)} checks in {seconds:.1f} s: {told}. Slowest: {slowest.name}, {slowest.seconds:.1f} s."
    )
    if seconds > WHOLE_S:
        print(f"That is more than {WHOLE_S:.0f} s: give the plugin cheaper `toy` settings, see its docs.")


def lock(
    is_check: Annotated[bool, typer.Option("--check", help="Compare and write nothing.")] = False,
) -> None:
    """Write plugins.lock: version and source of every built-in plugin."""
    from mibench.lock import LOCK, differences, present, read_lock, write_lock

    if not is_check:
        print(write_lock())
        return
    found = differences(read_lock(), present())
    for line in found:
        print(line)
    if found:
        print(f"{len(found)} of the built-in plugins are not as {LOCK.name} has them.", file=sys.stderr)
        raise typer.Exit(CHECK_FAILED)
