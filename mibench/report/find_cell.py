"""Finds a cell by its name, or the beginning of it, in folders of results."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench.errors import RecordError
from mibench.record import Record, read_records
from mibench.report.escape import plain
from mibench.report.frame import CELL_NAME, Json
from mibench.report.places import attack_label, defense_label

_MOST_CANDIDATES = 8
_ANY = "0123456789abcdef"


@dataclass(frozen=True)
class FoundCell:
    """A cell's record, and the folder of the results that it is of."""

    record: Record
    results: Path

    @property
    def folder(self) -> Path:
        """Where the cell's page, images and evidence lie."""
        return self.results / "cells" / self.record.cell

    def costs(self) -> dict[str, dict[str, Any]]:
        """Seconds (`wall_s`) and memory (`peak_mib`) of tasks by key; empty where the results hold none.

        Raises:
            RecordError: the file is there and cannot be read, or a line is broken (with its number).
        """
        path = self.results / "costs.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"costs {path}: cannot be read ({error}). Run the suite again.") from error
        return dict(_cost(line, f"costs {path}, line {i}") for i, line in enumerate(lines, 1) if line.strip())


def find_cell(name: str, folders: Sequence[Path]) -> FoundCell:
    """The one cell whose name begins with a word.

    Args:
        name: hexadecimal digits; with a folder of results before them, as in results/quick/1a2b, that one
            alone is searched.
        folders: of results, or folders with such folders in them.

    Raises:
        RecordError: no cell is called so, several are, or records cannot be read.
    """
    if "/" in name:
        folders, name = [Path(name).parent], Path(name).name
    places = _results(folders)
    if not CELL_NAME.fullmatch(name) and (not name or set(name) - set(_ANY)):
        raise RecordError(
            f"cell '{name}': is no name of a cell. Give its hexadecimal digits or the first of them, as in "
            "the address of its page."
        )
    found = [FoundCell(record, place) for place in places for record in _named(place / "records.jsonl", name)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise RecordError(
            f"cell '{name}': there is none in {', '.join(map(str, places))}. The pages of cells, or the "
            "columns `cell` of tables/cells.csv, hold their names."
        )
    shown = "; ".join(_told(one) for one in found[:_MOST_CANDIDATES])
    more = f"; and {len(found) - _MOST_CANDIDATES} more" if len(found) > _MOST_CANDIDATES else ""
    raise RecordError(
        f"cell '{name}': {len(found)} cells are called so: {shown}{more}. Give more digits, or the folder "
        f"before them, as in {found[0].results}/{found[0].record.cell}."
    )


def _cost(line: str, where: str) -> tuple[str, dict[str, Any]]:
    """A task's key, and the line that tells its cost; RecordError where it tells none."""
    try:
        found = json.loads(line)
        if not all(math.isfinite(found[name]) for name in ("wall_s", "peak_mib")):
            raise ValueError("a cost is not finite")
        return str(found["key"]), found
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise RecordError(f"{where}: not the cost of a task ({error!r}). Run the suite again.") from error


def _results(folders: Sequence[Path]) -> list[Path]:
    """All folders with records; RecordError where there is none."""
    found: list[Path] = []
    for folder in folders:
        inner = sorted(one.parent for one in folder.glob("*/records.jsonl"))
        found += [folder] if (folder / "records.jsonl").is_file() else inner
    if not found:
        raise RecordError(
            f"results {', '.join(map(str, folders))}: no records.jsonl there, nor one folder below. Give the "
            "folder of a run, such as --results results/quick."
        )
    return list(dict.fromkeys(found))


def _named(file: Path, name: str) -> list[Record]:
    """The records of a file whose cell begins with a word; the last of each cell."""
    by_cell = {one.cell: one for one in read_records(file) if one.cell.startswith(name)}
    # a cell's name is a folder's too, so nothing but hexadecimal digits is let through
    return [one for cell, one in by_cell.items() if CELL_NAME.fullmatch(cell)]


def _told(found: FoundCell) -> str:
    record: Json = vars(found.record)
    who = f"{attack_label(record)} against {defense_label(record)}, {record['view']}, seed {record['seed']}"
    return plain(f"{found.record.cell} in {found.results} ({who})")
