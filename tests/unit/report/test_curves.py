"""Curves of privacy against utility: fronts, lines between levels, hypervolumes, and what shows them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.report import write_all
from mibench.report.curve_plot import curves as draw
from mibench.report.curves import Pair, Point, front, hypervolume, meet, sheets_of
from mibench.report.equal_utility import curves_csv, equal_utility
from mibench.report.table import Entry

Record = dict[str, Any]
Make = Callable[..., Any]
PERCENT = st.floats(0, 100, allow_nan=False)
PAIRS = st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=8)
DMI = ("dmi", "white-box", False, 1.0)
# label, knob, level, MC(all), AA; the third level of `a` is beaten by its second
LEVELS = [
    ("none", "", None, 0.95, 0.80),
    ("a@0.1", "weight", 0.1, 0.94, 0.70),
    ("a@1", "weight", 1.0, 0.90, 0.30),
    ("a@2", "weight", 2.0, 0.88, 0.50),
    ("b@5", "k", 5, 0.95, 0.75),
    ("b@1", "k", 1, 0.95, 0.60),
]


def beats(one: Pair, other: Pair) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


def entry(value: float, low: float = math.nan, high: float = math.nan) -> Entry:
    return Entry("value", value, value if math.isnan(low) else low, value if math.isnan(high) else high)


def points(pairs: list[Pair]) -> list[Point]:
    """The efficient points of pairs, from the least utility on, with intervals of their own width."""
    return [
        Point(str(i), str(i), entry(pairs[i][0]), entry(pairs[i][1], pairs[i][1] - i, pairs[i][1] + 2 * i))
        for i in front(pairs)
    ]


def swept(make_record: Make, attack: Any = DMI, **changes: Any) -> list[Record]:
    """Records of one attack against LEVELS, their numbers exact."""
    records = []
    for label, knob, level, utility, aa in LEVELS:
        record = make_record(
            attack, (label, "training" if knob else "nothing", utility, 1.0), suite="quick-sweep", **changes
        )
        record["defense"].update(name=label.partition("@")[0], strength=knob)
        if knob:
            record["defense"]["params"] = {"epochs": 20, knob: level}
        for name, value in (("mc_all", utility), ("aa", aa)):
            record["estimates"][name] = {
                "value": value,
                "low": value - 0.05,
                "high": value + 0.05,
                "count": 32,
            }
        records.append(record)
    return records


@given(PAIRS)
def test_what_is_on_the_front_is_unbeaten_and_the_rest_is_not(pairs: list[Pair]) -> None:
    kept = set(front(pairs))
    for index, pair in enumerate(pairs):
        assert (index in kept) == (not any(beats(other, pair) for other in pairs))


@given(PAIRS)
def test_the_front_rises_in_both_axes(pairs: list[Pair]) -> None:
    kept = [pairs[index] for index in front(pairs)]
    assert kept == sorted(kept)


def test_the_front_of_known_points() -> None:
    assert front([(90, 40), (80, 20), (85, 50), (90, 45), (80, 20)]) == [4, 1, 0]


@given(PAIRS, st.tuples(PERCENT, PERCENT))
def test_another_point_never_lowers_the_hypervolume(pairs: list[Pair], extra: Pair) -> None:
    shares = [(u / 100, a / 100) for u, a in pairs]
    more = [*shares, (extra[0] / 100, extra[1] / 100)]
    assert -1e-12 <= hypervolume(shares) <= hypervolume(more) + 1e-12 <= 1 + 1e-9


def test_known_hypervolumes() -> None:
    assert hypervolume([(1.0, 0.0)]) == 1
    assert hypervolume([(0.0, 0.0)]) == hypervolume([(1.0, 1.0)]) == 0
    assert hypervolume([(0.9, 0.2)]) == pytest.approx(0.72)
    # 0.5 * (1 - 0.1), and the strip from 0.5 to 0.9 * (1 - 0.2)
    assert hypervolume([(0.9, 0.2), (0.5, 0.1)]) == pytest.approx(0.45 + 0.32)
    assert hypervolume([(1.2, -0.1)]) == 1


@given(PAIRS)
def test_the_line_passes_through_every_point(pairs: list[Pair]) -> None:
    curve = points(pairs)
    for point in curve:
        met = meet(curve, point.utility.value)
        assert met.state == "reached"
        near = [one for one in curve if abs(one.utility.value - point.utility.value) <= 1e-9]
        assert (met.aa, met.low, met.high) in [(one.aa.value, one.aa.low, one.aa.high) for one in near]


@given(PAIRS, PERCENT)
def test_the_line_stays_between_its_neighbors_and_ends_with_them(pairs: list[Pair], utility: float) -> None:
    curve = points(pairs)
    met = meet(curve, utility)
    first, last = curve[0].utility.value, curve[-1].utility.value
    if utility < first - 1e-9:
        assert (met.state, met.points) == ("keeps more", (curve[0],))
    elif utility > last + 1e-9:
        assert (met.state, met.points) == ("keeps less", (curve[-1],))
    else:
        assert met.state == "reached"
        assert min(p.aa.value for p in met.points) <= met.aa <= max(p.aa.value for p in met.points)
        assert min(p.aa.low for p in met.points) <= met.low <= met.high <= max(p.aa.high for p in met.points)


def test_the_line_between_known_points() -> None:
    low = Point("x@2", "2", entry(80), entry(10, 0, 30))
    high = Point("x@1", "1", entry(90), entry(50, 40, 60))
    met = meet([low, high], 82.5)
    assert (met.aa, met.low, met.high, met.points) == (20, 10, 37.5, (low, high))


def test_the_sheet_of_an_attack(make_record: Make) -> None:
    (sheet,) = sheets_of(swept(make_record))
    assert sheet.row.label == "dmi"
    assert sheet.file.stem == "curve-dmi"
    assert sheet.baseline is not None
    assert sheet.baseline.label == "none"
    assert [(curve.name, curve.knob) for curve in sheet.curves] == [("a", "weight"), ("b", "k")]
    assert [point.level for point in sheet.curves[0].points] == ["0.1", "1", "2"]
    assert [point.label for point in sheet.curves[0].efficient] == ["a@1", "a@0.1"]
    assert [point.label for point in sheet.front] == ["a@1", "b@1"]


def test_a_record_without_a_knob_or_a_second_level_makes_no_curve(make_record: Make) -> None:
    records = swept(make_record)
    assert sheets_of(records[:2]) == []
    for record in records:
        del record["defense"]["strength"]
    assert sheets_of(records) == []
    assert equal_utility(records) is None


def test_other_options_and_controls_make_no_curve(make_record: Make) -> None:
    records = swept(make_record)[:3]
    records[2]["defense"]["params"]["epochs"] = 30
    assert sheets_of(records) == []
    assert sheets_of(swept(make_record, ("mean_face", "score", True, 0.04))) == []


def test_two_curves_of_one_plugin_keep_apart(make_record: Make) -> None:
    records = swept(make_record)
    others = [record for record in swept(make_record, seed=0) if record["defense"]["name"] == "a"]
    for record in others:
        record["defense"]["label"] = record["defense"]["label"].replace("a@", "a@@")
        record["defense"]["params"]["epochs"] = 5
        record["cell"] = record["cell"][::-1]
    (sheet,) = sheets_of(records + others)
    assert [curve.name for curve in sheet.curves] == ["a", "b", "a@"]


def test_equal_utility_in_known_numbers(make_record: Make) -> None:
    table = equal_utility(swept(make_record))
    assert table is not None
    (group,) = table.groups
    assert group.undefended.startswith("no defense: MC(all) 95.0, AA 80.0, hypervolume 0.190")
    weight, k = group.lines
    # at 94 the level 0.1 itself; at 93 a quarter of the way to the level 1; at 90 that level; hypervolume:
    # 0.9 * (1 - 0.3) under the level 1, and (0.94 - 0.9) * (1 - 0.7) beside it under the level 0.1
    assert [text.shown for text in weight.texts] == ["70.0", "60.0", "30.0", "not reached", "0.642"]
    assert weight.texts[1].extra == "[55\N{EN DASH}65]"
    assert weight.texts[3].extra == "1: 90.0, 30.0"
    assert [text.shown for text in k.texts[:4]] == ["not reached"] * 4
    assert k.texts[0].extra == "1: 95.0, 60.0"


def test_the_lowest_of_two_curves_is_bold(make_record: Make) -> None:
    records = swept(make_record)
    records[4]["estimates"]["mc_all"]["value"], records[4]["estimates"]["aa"]["value"] = 0.85, 0.1
    table = equal_utility(records)
    assert table is not None
    bold = [[text.best for text in line.texts] for line in table.groups[0].lines]
    # b between (85, 10) and (95, 60): 55, 50 and 35 %; a: 70, 60 and 30 %
    assert bold == [[False, False, True, False, False], [True, True, False, False, False]]


def test_several_seeds_give_means_and_deviations(make_record: Make) -> None:
    records = [*swept(make_record), *swept(make_record, seed=1)]
    for record in records[len(LEVELS) :]:
        record["estimates"]["aa"]["value"] += 0.02
    (sheet,) = sheets_of(records)
    point = sheet.curves[0].points[0]
    assert point.aa.seeds == 2
    assert point.aa.value == pytest.approx(71)
    assert point.aa.high - point.aa.value == pytest.approx(math.sqrt(2))


def test_the_worst_case_has_a_curve_where_attacks_met_the_same_models(make_record: Make) -> None:
    hits = {"3": "10101010", "7": "11110000"}
    records = [
        record
        for name in ("dmi", "mirror")
        for record in swept(make_record, (name, "score", False, 1.0), hits=hits)
    ]
    assert [sheet.row.label for sheet in sheets_of(records)] == ["dmi", "mirror", "worst case of 2 attacks"]
    for record in records[: len(LEVELS)]:
        record["estimates"]["mc_all"]["value"] -= 0.01
    assert [sheet.row.label for sheet in sheets_of(records)] == ["dmi", "mirror"]


def test_what_has_no_number_is_named(make_record: Make) -> None:
    records = swept(make_record)
    for index in (0, 2):
        records[index].update(status="failed", error={"stage": "train"}, estimates={}, metric_info={})
    table = equal_utility(records)
    assert table is not None
    assert table.groups == ()
    assert "Without a number: a@1 against dmi." in table.caption
    assert "Without a number of no defense, so not compared: dmi." in table.caption
    assert [p.label for p in table.sheets[0].curves[0].points] == ["a@0.1", "a@2"]


def test_tidy_values_are_fractions(make_record: Make) -> None:
    table = equal_utility(swept(make_record))
    assert table is not None
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == 2 * 4
    assert lines[1]["mc_all"] == "0.93"
    assert float(lines[1]["aa"]) == pytest.approx(0.6)
    assert (lines[1]["state"], lines[1]["between"]) == ("reached", "a@1; a@0.1")
    assert (lines[3]["state"], lines[3]["aa"], lines[3]["nearest_aa"]) == ("keeps more", "", "0.3")
    found = {line["label"]: line for line in csv.DictReader(io.StringIO(curves_csv(table.sheets)))}
    assert list(found) == [label for label, *_ in LEVELS]
    assert [found[name]["efficient"] for name in ("a@1", "a@2")] == ["true", "false"]
    assert [name for name, line in found.items() if line["front"] == "true"] == ["a@1", "b@1"]
    assert (found["none"]["knob"], found["a@2"]["level"]) == ("", "2")


def test_a_report_has_curves_and_links_them(make_record: Make, tmp_path: Path) -> None:
    folder = tmp_path / "quick-sweep"
    folder.mkdir()
    lines = "".join(json.dumps(record) + "\n" for record in swept(make_record))
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    written = {path.relative_to(folder).as_posix() for path in write_all(folder)}
    names = [f"equal-utility.{ending}" for ending in ("md", "csv", "tex", "html")]
    assert {"figures/curve-dmi.png", *(f"tables/{name}" for name in ("curves.csv", *names))} <= written
    page = (folder / "index.html").read_text(encoding="utf-8")
    for link in ("figures/curve-dmi.png", "figures/curve-dmi.pdf", "tables/curves.csv", "#equal-utility"):
        assert f'"{link}"' in page
    cell = folder / "cells" / swept(make_record)[1]["cell"] / "index.html"
    command = "mibench run quick --attack dmi --defense a@0.1 --seed 0"
    assert command in cell.read_text(encoding="utf-8")


def test_hostile_labels_stay_text(make_record: Make) -> None:
    records = swept(make_record, ("<b>x</b>|`y`", "score", False, 1.0))
    for record in records:
        record["defense"]["label"] = record["defense"]["label"].replace("a@", "=<i>a</i>|$@")
    table = equal_utility(records)
    assert table is not None
    assert "<i>" not in table.to_html()
    assert "&lt;i&gt;" in table.to_html()
    assert "<i>" not in table.to_markdown()
    rows = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {8}
    math_mode = re.compile(r"\\\$|\$(-|\\uparrow|\\times|\\cdot)\$")
    assert "$" not in math_mode.sub("", table.to_latex())
    assert all(not line["defense"].startswith("=") for line in csv.DictReader(io.StringIO(table.to_csv())))


def test_latex_goes_on_in_another_float_where_a_page_ends(make_record: Make) -> None:
    def latex(number: int) -> str:
        table = equal_utility(
            [r for i in range(number) for r in swept(make_record, (f"attack-{i}", "score", False, 1.0))]
        )
        assert table is not None
        return table.to_latex()

    assert latex(10).count("\\begin{table*}") == 1
    text = latex(11)
    assert text.count("\\begin{table*}") == text.count("\\end{table*}") == text.count("\\toprule") == 2
    assert text.count("\\caption{Continued.}") == text.count("\\label{tab:equal-utility}") == 1


def test_a_figure_zooms_in_only_where_defenses_lie_far_apart(make_record: Make) -> None:
    records = swept(make_record)
    assert len(draw(sheets_of(records)[0]).axes) == 1
    records[3]["estimates"]["mc_all"] = {"value": 0.2, "low": 0.18, "high": 0.22, "count": 32}
    figure = draw(sheets_of(records)[0], chance=1.0)
    wide, near = figure.axes
    assert wide.get_xlim()[0] < 18
    assert near.get_xlim()[0] == pytest.approx(95 - 12)
    # every level is named once: the far one on the left, the others where they can be told apart
    assert [text.get_text() for text in wide.texts] == ["2"]
    names = [text.get_text() for text in near.texts]
    assert sorted(names) == sorted(["0.1", "1", "5", "1", *(f"\N{MINUS SIGN}{n}" for n in (1, 2, 5, 10))])
