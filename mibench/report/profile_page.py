"""A profile as a page and a figure: from its JSON values alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mibench.report.atomic import write_bytes
from mibench.report.escape import markdown
from mibench.report.look import INK, MUTED, PAGE_WIDTH, PALETTE, drawable, look, save

Row = Mapping[str, Any]
_UNITS = ("", "k", "M", "G", "T", "P", "E")
_FEW = 12  # plugins in the figure
COLUMNS = ("tasks", "wall s", "share", "CPU s", "FLOPs", "FLOP/s", "MFU", "peak MiB")


def scaled(value: float | None, unit: str = "") -> str:
    """A number with three digits and a prefix.

    >>> scaled(1234567, "FLOP"), scaled(0), scaled(None)
    ('1.23 MFLOP', '0', 'n/a')
    """
    if value is None:
        return "n/a"
    place = min(int(math.log10(value) // 3), len(_UNITS) - 1) if value >= 1 else 0
    return f"{value / 1000**place:.3g} {_UNITS[place]}{unit}".strip()


def page(profile: Mapping[str, Any]) -> str:
    """The profile in Markdown: of what machine, rows by stage, by plugin, and how long the device waits."""
    total, machine = profile["total"], profile["machine"]
    where = f"{markdown(machine['device'])}, torch {machine['torch']}, {markdown(machine['platform'])}"
    peaks = "; ".join(
        f"{name} {scaled(one['flops_per_s'], 'FLOP/s')} ({one['source']})"
        for name, one in profile["peaks"].items()
    )
    lines = [
        f"# Where the time of `{profile['suite']}` goes",
        "",
        f"{where}. Peaks: {peaks}.",
        "",
        stages(profile),
        "",
        "## By plugin",
        "",
        *_table(profile["plugins"], ("stage", "plugin"), total),
        "",
        *_waiting(profile["idle"], machine["device"]),
        *_notes(profile),
    ]
    return "\n".join(lines)


def stages(profile: Mapping[str, Any]) -> str:
    """The rows of the stages and their sum, as a Markdown table."""
    return "\n".join(_table(profile["stages"], ("stage",), profile["total"]))


def _table(rows: Sequence[Row], names: tuple[str, ...], total: Row) -> list[str]:
    heads = [*names, *COLUMNS]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(names)}{'---:|' * len(COLUMNS)}"]
    for row in [*rows, {**total, **dict.fromkeys(names, ""), names[0]: "all"}]:
        cells = [*(markdown(str(row[name])) for name in names), *_cells(row, total["wall_s"])]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(row: Row, all_s: float) -> list[str]:
    partly = "" if row["counted"] == row["tasks"] else f" of {row['counted']}"
    return [
        str(row["tasks"]),
        f"{row['wall_s']:.1f}",
        f"{100 * row['wall_s'] / all_s:.1f} %",
        "n/a" if row["cpu_s"] is None else f"{row['cpu_s']:.1f}",
        scaled(row["flops"]) + partly,
        scaled(row["flops_per_s"]),
        "n/a" if row["mfu"] is None else f"{100 * row['mfu']:.1f} %",
        f"{row['peak_mib']:.0f}",
    ]


def _waiting(rows: Sequence[Row], device: str) -> list[str]:
    if not rows:
        return []
    of = "between operations of torch" if device == "cpu" else "without a kernel"
    lines = [
        f"## Share of time {of}",
        "",
        "| stage | plugin | window s | idle |",
        "|---|---|---:|---:|",
    ]
    lines += [
        f"| {row['stage']} | {markdown(row['plugin'])} | {row['window_s']:.2f} | {100 * row['idle']:.1f} % |"
        for row in rows
    ]
    return [*lines, ""]


def _notes(profile: Mapping[str, Any]) -> list[str]:
    lines = [
        "Seconds are those of the tasks, of which several workers do some at once. FLOPs are those of",
        "convolutions and matrix products, a multiply-add as two, counted in a second pass over one task of",
        "each kind. MFU is the time that they take at the peak over the time that was taken: of the wall on",
        "a GPU, and of this process alone on a CPU, which others may have used too.",
    ]
    if profile["missing"]:
        lines.append(f"{profile['missing']} tasks have no seconds on this device: never run, or ready-made.")
    return [*lines, ""]


def figure(profile: Mapping[str, Any]) -> Figure:
    """Two panels that share their rows: seconds, and MFU, of the plugins that took longest."""
    rows = profile["plugins"][:_FEW]
    stages = sorted({row["stage"] for row in rows})
    hues = {stage: PALETTE[place % len(PALETTE)] for place, stage in enumerate(stages)}
    with look():
        drawn = Figure(figsize=(PAGE_WIDTH, 0.22 * len(rows) + 0.9), layout="constrained")
        title = f"Where the time of {profile['suite']} goes ({profile['machine']['device']})"
        drawn.suptitle(drawable(title, 90), fontsize=8.5, color=MUTED, x=0.01, ha="left")
        left, right = drawn.subplots(1, 2, sharey=True)
        panels = (
            (left, "wall_s", "seconds of all tasks", 1.0),
            (right, "mfu", "model FLOP utilization (%)", 100.0),
        )
        for axes, name, words, unit in panels:
            values = [unit * (row[name] or 0.0) for row in rows]
            axes.barh(range(len(rows)), values, color=[hues[row["stage"]] for row in rows], height=0.72)
            for place, value in enumerate(values):
                axes.text(value, place, f" {value:.3g}", va="center", fontsize=6.5, color=INK)
            axes.set_xlabel(words)
            axes.margins(x=0.14)
            axes.grid(axis="x")
        left.set_yticks(range(len(rows)), [drawable(f"{row['stage']} {row['plugin']}", 30) for row in rows])
        left.invert_yaxis()
    return drawn


def write_page(profile: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write profile.md and figures/profile.{png,pdf} of a results folder."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    text = write_bytes(folder / "profile.md", page(profile).encode())
    return [text, *save(figure(profile), folder / "figures" / "profile")]
