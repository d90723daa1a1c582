"""Numbers that papers print, as facts with provenance; nothing here was measured by this project.

One CSV a paper, one row a printed number. `papers.toml` names the papers and where their numbers could be
read. Needs no torch.
"""

from __future__ import annotations

import csv
import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from mibench.errors import MibenchError

Certainty = Literal["read", "variant inferred", "from code", "approximate", "unreadable"]
FOLDER = Path(__file__).parent


class ReportedError(MibenchError):
    """There is no such paper or table among the reported numbers."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper whose numbers are here.

    Args:
        name: its short name, the stem of the CSV.
        title: of the paper.
        paper: citation.
        read: where the numbers were read.
    """

    name: str
    title: str
    paper: str
    read: str


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One printed number.

    Args:
        paper: short name of the paper.
        table: number of the table as digits, or the place of the number.
        dataset: the private data.
        resolution: image side in pixels, None where it is unknown.
        model: whose number it is.
        setting: what the defender or the attacker knows, as the paper says it.
        attack: as printed; "none" for numbers about utility.
        defense: as printed; "none" for the undefended model.
        variant: of the defense: "CE" and "FL" are its losses, "original" the undefended model.
        metric: `MC_all`, `MC_lt`, `AA`, `FID` in the paper's own sense, or another as printed.
        value: None where it is unreadable.
        unit: "percent", "points", "ratio", "count" or empty.
        certainty: how sure the reading is.
        note: what is odd about this number.
    """

    paper: str
    table: str
    dataset: str
    resolution: int | None
    model: str
    setting: str
    attack: str
    defense: str
    variant: str
    metric: str
    value: float | None
    unit: str
    certainty: Certainty
    note: str


@cache
def papers() -> dict[str, Paper]:
    """All papers by name, in the order of `papers.toml`."""
    listed = tomllib.loads((FOLDER / "papers.toml").read_text(encoding="utf-8"))
    return {name: Paper(name=name, **about) for name, about in listed.items()}


@cache
def read_reported(paper: str, table: str | None = None) -> tuple[Reported, ...]:
    """The numbers of a paper, or of one of its tables, in the order of the paper.

    Raises:
        ReportedError: no numbers of this paper or table are here.
    """
    if paper not in papers():
        raise ReportedError(_unknown(f"no reported numbers of '{paper}'", paper, list(papers()), "papers"))
    with (FOLDER / f"{paper}.csv").open(encoding="utf-8", newline="") as file:
        rows = tuple(_row(paper, one) for one in csv.DictReader(file))
    if table is None:
        return rows
    found = tuple(one for one in rows if one.table == table)
    if not found:
        known = list(dict.fromkeys(one.table for one in rows))
        raise ReportedError(_unknown(f"'{paper}' has no table '{table}' here", table, known, "tables"))
    return found


def _row(paper: str, fields: dict[str, str]) -> Reported:
    numbers = {
        "resolution": int(fields["resolution"]) if fields["resolution"] else None,
        "value": float(fields["value"]) if fields["value"] else None,
    }
    return Reported(paper=paper, **{**fields, **numbers})  # type: ignore[arg-type]


def _unknown(what: str, name: str, known: list[str], plural: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{what}.{hint} The {plural}: {', '.join(known)}."
