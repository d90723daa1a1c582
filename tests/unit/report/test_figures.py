"""Plots and grids: they exist, repeat bit for bit, survive any label, and show no real person."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mibench.report import plot, write_grids, write_plots
from mibench.report.grid import attack_grid
from mibench.report.look import MARKERS, PALETTE, UNDEFENDED, colors, drawable, save

Make = Callable[..., Any]


def palette_of(table: Any) -> dict[str, str]:
    return dict.fromkeys(table.defenses, "#0072B2")


def test_a_run_has_every_figure_as_png_and_pdf(results_dir: Path) -> None:
    stems = ["aa", "fid", "tradeoff", "grid-dmi", "grid-mirror-b", "grid-mean-face"]
    names = {path.name for path in (results_dir / "figures").iterdir()}
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}
    for stem in stems:
        with Image.open(results_dir / "figures" / f"{stem}.png") as image:
            assert image.width <= 7.2 * 150 + 1
            assert len(np.unique(np.asarray(image.convert("L")))) > 16
        assert (results_dir / "figures" / f"{stem}.pdf").read_bytes().startswith(b"%PDF")


def test_figures_repeat_bit_for_bit(
    results_dir: Path, few_records: list[dict[str, Any]], tmp_path: Path
) -> None:
    for path in write_plots(few_records, tmp_path):
        assert path.read_bytes() == (results_dir / "figures" / path.name).read_bytes()
        assert b"Date" not in path.read_bytes()


def test_several_scenes_have_figures_of_their_own(make_record: Make, tmp_path: Path) -> None:
    paths = write_plots([make_record(), make_record(victim_net="vgg16", cell="abcdef123456")], tmp_path)
    assert len({path.name for path in paths}) == 12
    assert any("vgg16" in path.name for path in paths)


@pytest.mark.parametrize("label", ["$x_$", "_hidden", "模型", "\x1b[31m", "a" * 300, "\\frac{"])
def test_any_label_can_be_drawn(make_record: Make, tmp_path: Path, label: str) -> None:
    record = make_record((label, "score", False, 0.5), (label, "training", 0.9, 0.5))
    table = plot.plotted([record])
    for figure in (plot.bars(table, "aa", palette_of(table)), plot.tradeoff(table, palette_of(table))):
        assert figure is not None
        save(figure, tmp_path / "figure")  # a warning is an error here


def test_bars_show_every_number_and_every_gap(make_records: Make) -> None:
    table = plot.plotted(make_records())
    figure = plot.bars(table, "aa", palette_of(table), chance=1.0)
    assert figure is not None
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    metric = [info.name for info in table.metrics].index("aa")
    values = [e.shown for (_, _, m), e in table.entries.items() if m == metric and e.state == "value"]
    assert sorted(text for text in texts if text[0].isdigit()) == sorted(values)
    assert "failed" in texts
    assert "makes no sense" in texts


def test_controls_are_hatched_and_attacks_are_not(make_records: Make) -> None:
    table = plot.plotted(make_records())
    figure = plot.bars(table, "aa", palette_of(table))
    assert figure is not None
    for axes in figure.axes:
        hatches = {patch.get_hatch() for patch in axes.patches}
        assert hatches <= ({"////"} if "(control)" in axes.get_title(loc="left") else {None})


def test_the_axis_says_how_many_images_an_fid_has(make_records: Make) -> None:
    table = plot.plotted(make_records())
    figure = plot.bars(table, "fid", palette_of(table))
    assert figure is not None
    assert "n = 32" in figure.get_supxlabel()


def test_the_tradeoff_has_a_marker_for_each_measured_pair(make_records: Make) -> None:
    table = plot.plotted(make_records())
    figure = plot.tradeoff(table, palette_of(table), chance=1.0)
    assert figure is not None
    markers = [line for line in figure.axes[0].lines if line.get_marker() in MARKERS]
    assert len(markers) == 6 * 7 - 2
    assert len(figure.axes) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {*table.defenses, "dmi", "negative controls", "chance, 1.0 %"} <= set(labels)


def test_without_numbers_there_is_no_figure(make_record: Make) -> None:
    table = plot.plotted([make_record(estimates={"aa": None})])
    assert plot.bars(table, "aa", palette_of(table)) is None
    assert plot.bars(table, "fid", palette_of(table)) is None
    assert plot.tradeoff(table, palette_of(table)) is None


def test_chance_is_drawn_only_where_it_is_one(make_record: Make) -> None:
    assert plot.chance_level([make_record(), make_record()]) == 1.0
    assert math.isnan(plot.chance_level([make_record(), make_record(chance=0.1)]))
    assert math.isnan(plot.chance_level([make_record(chance=None)]))


def test_the_baseline_is_gray_and_neighbors_differ() -> None:
    acts = {"none": "nothing"} | {f"d{i}": "training" for i in range(len(PALETTE))}
    shades = colors(acts)
    assert shades["none"] == UNDEFENDED
    assert len(set(shades.values())) == len(acts)


def test_a_drawable_label_keeps_what_the_font_has() -> None:
    assert drawable("λ_1 → 模") == "λ_1 → ?"


def grid_text(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_grid_shows_real_faces_and_every_defense(
    results_dir: Path, few_records: list[dict[str, Any]]
) -> None:
    figure = attack_grid(few_records, results_dir, "dmi")
    assert figure is not None
    texts = grid_text(figure)
    assert {"real", "none", "dp_sgd", "failed", "label 42"} <= set(texts)
    assert "label 5" not in texts  # a bystander
    value = few_records[0]["estimates"]["aa"]["value"]
    assert f"AA {100 * value:.1f} %" in texts


def test_a_grid_shows_the_first_reconstruction(
    results_dir: Path, few_records: list[dict[str, Any]], make_tiles: Make
) -> None:
    figure = attack_grid(few_records, results_dir, "mirror-b")
    assert figure is not None
    real, got = (np.asarray(figure.axes[0].images[row * 4].get_array()) for row in (0, 1))
    expected = make_tiles("none")
    for tile, source in ((real, expected[0]), (got, expected[1])):
        assert np.abs(tile[32, 32].astype(int) - source[0, 0, 16, 16]).max() < 14  # enlarged, 256 colors


def test_real_persons_are_never_shown(
    results_dir: Path, few_records: list[dict[str, Any]], tmp_path: Path
) -> None:
    people = [record | {"data": record["data"] | {"kind": "celeba"}} for record in few_records]
    assert attack_grid(people, results_dir, "dmi") is None
    assert write_grids(people, results_dir) == []
    assert attack_grid(few_records, tmp_path, "dmi") is None  # and without images there is nothing to show
