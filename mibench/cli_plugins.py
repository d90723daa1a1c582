"""`mibench list`, `show`, `check` and `lock`: what there is, and whether it keeps its contract."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

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
) -> None:
    """Hold a plugin against its contract: one line a check, and what to do where one fails."""
    from mibench.catalog import find_plugins
    from mibench.testing import checks_for

    has_failed = False
    for plugin in find_plugins(name):
        for one in checks_for(plugin):
            verdict = one.run()
            has_failed = has_failed or verdict.status == "fail"
            print_line(verdict.status, f"{plugin.name}: {one.title}", verdict.text)
    if has_failed:
        raise typer.Exit(CHECK_FAILED)


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
