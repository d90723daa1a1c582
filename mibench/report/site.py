"""The pages of a run: `index.html` and one page a cell; they open from disk and load nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mibench.record import Record
from mibench.report.atomic import write_text
from mibench.report.caption import judge_facts, spans
from mibench.report.cell_page import cell_values, estimate_text
from mibench.report.curves import Sheet
from mibench.report.equal_utility import equal_utility
from mibench.report.escape import plain
from mibench.report.flag_meanings import flags
from mibench.report.frame import (
    CellRow,
    Json,
    cell_rows,
    estimate_rows,
    latest,
    may_show_images,
    metric_infos,
    part,
    reason,
)
from mibench.report.left_out import left_out_facts
from mibench.report.places import FigureFile, attack_label, defense_label, grid_files, plot_files, scenes_of
from mibench.report.table import comparison
from mibench.report.table_html import render


def write_pages(records: Iterable[Json | Record], results_dir: Path) -> list[Path]:
    """Write `index.html` and `cells/<cell>/index.html` below results_dir; returns the files.

    Tables and figures are linked as far as their files are there. Raises RecordError for no record, and for
    records that cannot stand in one table.
    """
    kept = latest(records)
    paths = [write_text(results_dir / "index.html", render("index.html.j2", **_index(kept, results_dir)))]
    siblings = _siblings(kept)
    for record in kept:
        folder = results_dir / "cells" / str(record["cell"])
        values = cell_values(record, folder, siblings[_sibling_key(record)])
        paths.append(write_text(folder / "index.html", render("cell.html.j2", **values)))
    return paths


def cell_address(cell: str, anchor: str = "") -> str:
    """The address of a cell's page as seen from the index."""
    return f"cells/{cell}/index.html" + (f"#{anchor}" if anchor else "")


def _sibling_key(record: Json) -> tuple[str, str]:
    """Cells of one attack of one suite are each other's neighbors."""
    return str(record.get("suite")), attack_label(record)


def _siblings(records: Sequence[Json]) -> dict[tuple[str, str], list[Json]]:
    """The records of every attack."""
    groups: dict[tuple[str, str], list[Json]] = {}
    for record in records:
        groups.setdefault(_sibling_key(record), []).append(record)
    return groups


def _index(records: Sequence[Json], results_dir: Path) -> dict[str, Any]:
    """What the index shows."""
    cells = cell_rows(records)
    lines = _lines(records, cells)
    scenes = scenes_of(records)
    equal = equal_utility(records)
    sheets: Sequence[Sheet] = () if equal is None else equal.sheets
    hidden = sorted({plain(part(r, "data").get("kind")) for r in records if not may_show_images(r)})
    return {
        "title": ", ".join(dict.fromkeys(cell.suite for cell in cells)),
        "facts": _facts(cells, records),
        "warnings": [*_warnings(cells), *left_out_facts(results_dir)],
        "table": Markup(comparison(records).to_html(cell_address)),  # escaped by its own template
        "equal": None if equal is None else equal.to_html(),
        "curves": _figures(results_dir, [(sheet.scene.name, sheet.file) for sheet in sheets]),
        "downloads": _downloads(results_dir),
        "figures": _figures(results_dir, [(s.name, f) for s in scenes for f in plot_files(s).values()]),
        "grids": _figures(results_dir, [(s.name, f) for s in scenes for f in grid_files(s).values()]),
        "withheld": ", ".join(hidden),
        "controls": _controls(records),
        "flags": _flags(records, lines),
        "failures": [line for line in lines if line["status"] != "ok"],
        "attacks": _methods(records, "attack", "access"),
        "defenses": _methods(records, "defense", "acts"),
        "metrics": list(metric_infos(records).values()),
        "cells": lines,
    }


def _facts(cells: Sequence[CellRow], records: Sequence[Json]) -> list[tuple[str, str]]:
    """The run in a few pairs of words and numbers."""
    status = Counter(cell.status for cell in cells)
    words = {"ok": "measured", "failed": "failed", "blocked": "blocked"}
    outcome = [f"{status[name]} {word}" for name, word in words.items() if name in status]
    seeds = sorted({cell.seed for cell in cells})
    made_with = {
        name: ", ".join(sorted({plain(part(r, "provenance").get(name, "?"), 40) for r in records}))
        for name in ("mibench", "torch", "device")
    }
    return [
        ("Cells", ", ".join(outcome)),
        ("Data", "; ".join(dict.fromkeys(cell.data for cell in cells))),
        ("Victim", ", ".join(dict.fromkeys(cell.victim_net for cell in cells))),
        (
            "Judge on real images",
            spans((cell.judge_accuracy * 100 for cell in cells), "{:.1f}", " %") or "n/a",
        ),
        ("Chance level", spans((cell.chance * 100 for cell in cells), "{:.1f}", " %") or "n/a"),
        ("Seeds", ", ".join(map(str, seeds)) if len(seeds) < 6 else f"{len(seeds)} seeds"),
        ("Software", f"mibench {made_with['mibench']}, torch {made_with['torch']}"),
        ("Device", made_with["device"]),
    ]


def _warnings(cells: Sequence[CellRow]) -> list[str]:
    """What a reader must know before the first number."""
    found: list[str] = []
    if any(cell.judge_accuracy < cell.judge_gate for cell in cells):
        found += judge_facts(cells)
    num_failed = sum(cell.status == "failed" for cell in cells)
    if num_failed:
        found.append(f"{num_failed} of {len(cells)} cells failed; their reasons are under Failed cells.")
    return found


def _lines(records: Sequence[Json], cells: Sequence[CellRow]) -> list[dict[str, Any]]:
    """Every cell with its address, outcome and all its numbers as text."""
    infos = metric_infos(records)
    seeds, scenes = (len({getattr(cell, name) for cell in cells}) > 1 for name in ("seed", "scene"))
    lines = []
    for record, scene in zip(records, (cell.scene for cell in cells)):
        view = str(record.get("view"))
        detail = [f"seed {record.get('seed')}"] * seeds + [scene] * scenes
        estimates = part(record, "estimates")
        lines.append({
            "attack": attack_label(record),
            "defense": defense_label(record),
            "detail": ", ".join(([view] if view == "deployed" else []) + detail),
            "href": cell_address(str(record["cell"])),
            "status": str(record.get("status")),
            "reason": reason(record),
            "numbers": [estimate_text(estimates.get(name), info)[0] for name, info in infos.items()],
        })  # fmt: skip
    return lines


def _downloads(results_dir: Path) -> list[dict[str, str]]:
    """The table files that are there."""
    names = (
        *("comparison.csv", "comparison_long.csv", "comparison.md", "comparison.tex", "by-defense.md"),
        *("paired.csv", "paired.md", "risk.csv", "risk.md", "cells.csv"),
        *("curves.csv", "equal-utility.csv", "equal-utility.md", "equal-utility.tex"),
    )
    there = [name for name in names if (results_dir / "tables" / name).is_file()]
    return [{"name": name, "href": f"tables/{name}"} for name in there] + [
        {"name": "records.jsonl", "href": "records.jsonl"}
    ] * (results_dir / "records.jsonl").is_file()


def _figures(results_dir: Path, files: Iterable[tuple[str, FigureFile]]) -> list[dict[str, str]]:
    """The figures that are there."""
    return [
        {"heading": file.heading, "alt": file.alt, "scene": scene,
         "png": f"figures/{file.stem}.png", "pdf": f"figures/{file.stem}.pdf"}
        for scene, file in files
        if (results_dir / "figures" / f"{file.stem}.png").is_file()
    ]  # fmt: skip


def _controls(records: Sequence[Json]) -> list[dict[str, str]]:
    """Every negative control: what it is and what it reaches."""
    accuracy = {row.record: row.value for row in estimate_rows(records, ["aa"])}
    found: dict[str, dict[str, Any]] = {}
    for index, record in enumerate(records):
        attack = part(record, "attack")
        if attack.get("control"):
            label = attack_label(record)
            control = found.setdefault(
                label, {"label": label, "title": plain(attack.get("title")), "values": []}
            )
            if index in accuracy:
                control["values"].append(100 * accuracy[index])
    return [{**control, "reached": spans(control["values"], "{:.1f}", " %")} for control in found.values()]


def _flags(records: Sequence[Json], lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every flag with its cells."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record, line in zip(records, lines):
        for text in flags(record):
            found.setdefault(text, []).append(line)
    return [{"text": text, "cells": cells} for text, cells in found.items()]


def _methods(records: Sequence[Json], kind: str, how: str) -> list[dict[str, str]]:
    """Every attack or defense: label, where it comes from, how it acts, its settings."""
    found: dict[str, dict[str, str]] = {}
    for record in records:
        plugin = part(record, kind)
        label = plain(plugin.get("label", "?"), 40)
        year = f", {plugin['year']}" if plugin.get("year") else ""
        settings = [f"{name}={value}" for name, value in part(plugin, "params").items()]
        found.setdefault(label, {
            "label": label,
            "source": f"{plain(plugin.get('title', ''))}{year}",
            "how": plain(plugin.get(how, "")) + (", control" if plugin.get("control") else ""),
            "params": plain(", ".join(settings)),
        })  # fmt: skip
    return list(found.values())
