"""Cells that a run left out for its budget: a table without them must say so."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mibench.report.atomic import write_text
from mibench.report.table import Comparison

FILE = "left_out.json"


def write_left_out(folder: Path, *, budget_s: float, cells: Sequence[dict[str, Any]]) -> None:
    """Write which cells a run left out; without any, what an earlier run left is removed.

    Args:
        folder: of the results.
        budget_s: of the run.
        cells: attack, defense, view, seed and why, of each.
    """
    if not cells:
        (folder / FILE).unlink(missing_ok=True)
        return
    text = json.dumps({"schema": 1, "budget_s": budget_s, "cells": list(cells)}, indent=1)
    write_text(folder / FILE, text + "\n")


def left_out_facts(folder: Path) -> tuple[str, ...]:
    """One sentence on the cells that a run left out for its budget; nothing where it left none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        count, budget = len(found["cells"]), float(found["budget_s"])
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is not ours
        return ()
    if not count:
        return ()
    cells = "1 cell of the suite was" if count == 1 else f"{count} cells of the suite were"
    return (f"{cells} left out for a budget of {budget:.0f} s; {FILE} names them.",)


def noted(table: Comparison, folder: Path) -> Comparison:
    """A table that says in its caption what is left out of it."""
    return dataclasses.replace(table, caption=(*table.caption, *left_out_facts(folder)))
