"""One suite file of several cells, put together from the file that lies beside each of them.

The cells of a results folder may come from a suite that was narrowed, swept or changed since; the file of
each cell says exactly what it was.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mibench.boards.strict import MOST_BYTES
from mibench.errors import BoardError
from mibench.one_cell import toml_text
from mibench.record import Record
from mibench.report.evidence import SUITE_FILE

_HEAD = """\
# Cells of suite {suite} that a submission is made of. All settings are written out.
"""
_OWN = (
    "name",
    "seeds",
    "white_box",
    "prior_seed",
    "attacks",
    "defenses",
)  # what differs between cells of one suite
_VIEWS = ("stripped", "deployed")


def merged_tables(results: Path, records: Sequence[Record]) -> dict[str, Any]:
    """The tables of one suite that plans all cells of some records, and no other.

    Args:
        results: folder of the results.
        records: of the cells, of one suite.

    Raises:
        BoardError: a cell has no suite file, or cells are not of one suite.
    """
    found = [_cell_tables(results, record) for record in records]
    first = {name: value for name, value in found[0].items() if name not in _OWN}
    for record, tables in zip(records, found):
        own = {name: value for name, value in tables.items() if name not in _OWN}
        if own != first:
            differ = sorted(name for name in own.keys() | first.keys() if own.get(name) != first.get(name))
            raise BoardError(
                f"results {results}: cells {records[0].cell} and {record.cell} differ in '{differ[0]}', so "
                "they are of no one suite. Run the suite again."
            )
    seeds = _once(seed for tables in found for seed in tables["seeds"])
    priors = {tables.get("prior_seed", tables["seeds"][0]) for tables in found}
    views = {view for tables in found for view in tables.get("white_box", ())}
    shared = _prior_seed(found, priors, results)
    return {
        "name": records[0].suite,
        "seeds": seeds,
        "metrics": first.pop("metrics"),
        **({} if shared is None else {"prior_seed": shared}),
        **({"white_box": [view for view in _VIEWS if view in views]} if views else {}),
        **first,
        "attacks": _entries(found, "attacks", results),
        "defenses": _entries(found, "defenses", results),
    }


def suite_text(tables: Mapping[str, Any]) -> str:
    """The tables as the text of a suite file."""
    return _HEAD.format(suite=tables["name"]) + toml_text(tables, where=str(tables["name"]))


def _cell_tables(results: Path, record: Record) -> dict[str, Any]:
    file = results / "cells" / record.cell / SUITE_FILE
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BoardError(f"{file}: has more than {MOST_BYTES:,} bytes. Run the suite again.")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BoardError(f"{file}: cannot be read ({error!s:.200}). Run the suite again.") from error


def _prior_seed(found: Sequence[Mapping[str, Any]], priors: set[int], results: Path) -> int | None:
    """The seed of the priors of all cells; None where each has its own."""
    if all("prior_seed" not in tables for tables in found):
        return None
    if len(priors) > 1:
        raise BoardError(f"results {results}: its cells share priors of several seeds. Submit one of them.")
    return priors.pop()


def _entries(found: Iterable[Mapping[str, Any]], family: str, results: Path) -> dict[str, Any]:
    """The plugins of a family over all cells, in order of first appearance."""
    entries: dict[str, Any] = {}
    for tables in found:
        for label, table in tables[family].items():
            if entries.setdefault(label, table) != table:
                raise BoardError(f"results {results}: '{label}' has two settings. Run the suite again.")
    return entries


def _once(values: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(values))
