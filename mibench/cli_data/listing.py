"""`mibench data list`: the prepared sets that are there, and the known ones that are not."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from mibench.cli_data.printing import console, safe, table

if TYPE_CHECKING:
    from mibench.data.layouts.layout import Facts
    from mibench.data.shelf import Shelved

COLUMNS = (
    "name", "layout", "title", "state", "folder", "images", "identities", "has_identities", "size",
    "channels", "may_publish", "done", "total", "problem", "home", "get", "terms",
)  # fmt: skip
"""Of the machine formats, in this order."""


class ListForm(StrEnum):
    """How the list is printed."""

    text = "text"
    csv = "csv"
    json = "json"


Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="The folder of prepared sets.")]


def list_sets(
    root: Root = Path("data"),
    form: Annotated[
        ListForm, typer.Option("--format", help="csv and json have every column.")
    ] = ListForm.text,
) -> None:
    """List the prepared sets of a folder, and the sets that mibench knows and that are not there.

    A set is complete where its files are there with their sizes; `mibench data verify` reads them.
    """
    from mibench.data.layouts import LAYOUTS
    from mibench.data.shelf import shelf

    sets = shelf(root)
    entries = [_entry(one) for one in sets]
    there = {entry["layout"] for entry in entries}
    entries += [_known(layout.facts) for name, layout in sorted(LAYOUTS.items()) if name not in there]
    if form is ListForm.json:
        json.dump(entries, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif form is ListForm.csv:
        _write_csv(entries)
    else:
        _print(root, entries)


def _entry(one: Shelved) -> dict[str, Any]:
    """A set that is there, whole or not, with every column."""
    info = one.info
    told = ("title", "images", "identities", "has_identities", "size", "channels", "may_publish")
    found = dict.fromkeys(COLUMNS) | {name: getattr(info, name, None) for name in (*told, "home", "terms")}
    found |= {"name": one.name, "state": one.state, "folder": str(one.folder), "problem": one.text or None}
    if one.progress is not None:
        found |= {"done": one.progress.done, "total": one.progress.total}
    return found | {"layout": one.layout or None}


def _known(facts: Facts) -> dict[str, Any]:
    """A layout that no set below the root was read with."""
    told = ("name", "title", "has_identities", "size", "channels", "may_publish", "home", "get", "terms")
    found = dict.fromkeys(COLUMNS) | {name: getattr(facts, name) for name in told}
    return found | {"layout": facts.name, "state": "missing"}


def _write_csv(entries: Sequence[dict[str, Any]]) -> None:
    """All columns; no cell breaks the file or is run as a formula."""
    from mibench.report.escape import csv_text

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in entries:
        writer.writerow(["" if entry[name] is None else csv_text(entry[name]) for name in COLUMNS])


def _print(root: Path, entries: Sequence[dict[str, Any]]) -> None:
    out = console()
    there = [entry for entry in entries if entry["state"] != "missing"]
    if there:
        found = table("set", "state", "images", "people", "pixels", "may be shown")
        for entry in there:
            found.add_row(*_cells(entry))
        out.print(found)
        for entry in there:
            if entry["problem"]:
                out.print(Text.assemble("\n", (entry["name"], "bold"), ": ", safe(entry["problem"], 500)))
    else:
        out.print(safe(f"No prepared set in {root}."))
    absent = [entry for entry in entries if entry["state"] == "missing"]
    if absent:
        found = table("can be had", "what it is, where to get it, what its terms allow")
        for entry in absent:
            where = f", {entry['home']}" if entry["home"] else ""
            found.add_row(entry["name"], f"{entry['title']}{where}\n{entry['terms']}")
        out.print(Text(), found)
    out.print(
        "\n`mibench data show NAME` says more of each: how to get it, and how to prepare it.", markup=False
    )


def _cells(entry: dict[str, Any]) -> list[Text]:
    """A line of the table of sets that are there."""
    if entry["state"] == "unfinished" and entry["done"] is not None:
        total = "" if entry["total"] is None else f" of {entry['total']:,}"
        return [safe(entry["name"], 40), Text(entry["state"]), Text(f"{entry['done']:,}{total}")]
    if entry["images"] is None:
        return [safe(entry["name"], 40), Text(entry["state"])]
    people = f"{entry['identities']:,}" if entry["has_identities"] else "-"
    pixels = f"{entry['size']}x{entry['size']} {'RGB' if entry['channels'] == 3 else 'gray'}"
    shown = "yes" if entry["may_publish"] else "no"
    style = {"complete": "green", "damaged": "bold red"}[entry["state"]]
    state = Text(entry["state"], style=style)
    return [safe(entry["name"], 40), state, *map(Text, (f"{entry['images']:,}", people, pixels, shown))]
