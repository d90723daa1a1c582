"""Writes what a run's records say: tables, figures, pages. Each function returns the files it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mibench.record import Record, read_records
from mibench.report.atomic import write_text
from mibench.report.frame import WITHHELD, Json, defense_acts, is_withheld, latest, long_frame
from mibench.report.places import grid_files, plot_files, scenes_of, withheld


def write_tables(records: Sequence[Json | Record], out_dir: Path) -> list[Path]:
    """The comparison as CSV (wide and tidy), Markdown, LaTeX and HTML, and every metric of every cell.

    Where AA was measured, also a line for each defense; where hits are on record, every defense against no
    defense, person by person, and how the risk is spread over people; where a defense stands at several
    levels of its knob, its curves and the comparison at equal utility.
    """
    from markupsafe import Markup

    from mibench.report.by_defense import by_defense
    from mibench.report.equal_utility import curves_csv, equal_utility
    from mibench.report.left_out import noted
    from mibench.report.paired import differences, paired_frame, to_markdown
    from mibench.report.risk import exposures, risk_frame
    from mibench.report.risk import to_markdown as risk_markdown
    from mibench.report.table import comparison
    from mibench.report.table_csv import frame_csv
    from mibench.report.table_html import render

    table = noted(comparison(records), out_dir.parent)
    texts = {
        "comparison.csv": table.to_csv(),
        "comparison_long.csv": table.to_csv("long"),
        "comparison.md": table.to_markdown(),
        "comparison.tex": table.to_latex(),
        "comparison.html": render("table_page.html.j2", title="Comparison", table=Markup(table.to_html())),
        "cells.csv": frame_csv(long_frame(records)),
    }
    if any(metric.name == "aa" for metric in table.metrics):
        texts["by-defense.md"] = by_defense(records)
    if found := differences(records):
        texts |= {"paired.csv": frame_csv(paired_frame(found)), "paired.md": to_markdown(found)}
    if risks := exposures(records):
        texts |= {"risk.csv": frame_csv(risk_frame(risks)), "risk.md": risk_markdown(risks)}
    if (equal := equal_utility(records)) is not None:
        texts |= {
            "curves.csv": curves_csv(equal.sheets),
            "equal-utility.csv": equal.to_csv(),
            "equal-utility.md": equal.to_markdown(),
            "equal-utility.tex": equal.to_latex(),
            "equal-utility.html": render(
                "table_page.html.j2", title="Comparison at equal utility", table=equal.to_html()
            ),
        }
    return [write_text(out_dir / name, text) for name, text in texts.items()]


def write_plots(records: Sequence[Json | Record], results_dir: Path) -> list[Path]:
    """`figures/`: aa, fid, tradeoff, risk, curves as PNG and PDF; for several scenes with its name."""
    from mibench.report import curve_plot, plot, risk_plot
    from mibench.report.curves import sheets_of
    from mibench.report.look import save
    from mibench.report.risk import exposures

    acts = defense_acts(latest(records))
    paths = []
    for scene in scenes_of(records):
        table, chance = plot.plotted(scene.records), plot.chance_level(scene.records)
        figures = plot.figures(table, acts, chance=chance, title=scene.name)
        figures["risk"] = risk_plot.histograms(exposures(scene.records), title=scene.name)
        for name, file in plot_files(scene).items():
            figure = figures[name]
            if figure is not None:
                paths += save(figure, results_dir / "figures" / file.stem)
    for sheet in sheets_of(records):
        figure = curve_plot.curves(sheet, chance=plot.chance_level(sheet.scene.records))
        paths += save(figure, results_dir / "figures" / sheet.file.stem)
    return paths


def write_grids(records: Sequence[Json | Record], results_dir: Path) -> list[Path]:
    """`figures/grid-<attack>`: reconstructions as PNG and PDF; `withheld/` where images may not be shown."""
    from mibench.report.grid import attack_grid
    from mibench.report.look import save

    paths = []
    for scene in scenes_of(records):
        for attack, file in grid_files(scene).items():
            figure = attack_grid(scene.records, results_dir, attack)
            if figure is not None:
                paths += save(figure, results_dir / "figures" / file.stem)
            hidden = attack_grid(scene.records, results_dir / WITHHELD, attack, shows=is_withheld)
            if hidden is not None:
                paths += save(hidden, withheld(results_dir) / file.stem)
    return paths


def write_site(records: Sequence[Json | Record], results_dir: Path) -> list[Path]:
    """`index.html` and `cells/<cell>/index.html`, with the tables and figures that are already there."""
    from mibench.report.site import write_pages

    return write_pages(records, results_dir)


def write_all(results_dir: Path) -> list[Path]:
    """Everything that can be made from results_dir/records.jsonl.

    Raises:
        RecordError: the records cannot be read, or there are none.
    """
    records = read_records(results_dir / "records.jsonl")
    paths = write_tables(records, results_dir / "tables")
    paths += write_plots(records, results_dir)
    paths += write_grids(records, results_dir)
    return paths + write_site(records, results_dir)
