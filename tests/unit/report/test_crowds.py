"""Figures of more defenses than there are colors: grouped, named at their points, without a color twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from mibench.report import plot
from mibench.report.dot_plot import ordered
from mibench.report.groups import by_member, groups
from mibench.report.look import MARKERS, PALETTE, UNDEFENDED
from mibench.report.tradeoff_panels import called, spots_of, utilities

Make = Callable[..., Any]
Records = list[dict[str, Any]]
KINDS = ("training", "fine-tuning", "output")
DMI, AMI = ("dmi", "white-box", False, 1.0), ("ami", "score", False, 1.0)


def crowd(make_record: Make, num: int = 24, attacks: Any = (DMI, AMI), **changes: Any) -> Records:
    """`none` and `num` defenses; dmi gets the same from `none` as from every output step."""
    records = []
    for attack in attacks:
        for index in range(num + 1):
            act = "nothing" if index == 0 else KINDS[index % 3]
            record = make_record(attack, (f"d{index}" if index else "none", act, 0.9, 1.0), **changes)
            strips = attack is DMI and act in {"nothing", "output"}
            aa, mc = (0.5, 0.95) if strips else (index / 50, 0.9 + index / 500)
            for name, value in (("aa", aa), ("mc_all", mc)):
                record["estimates"][name] = {"value": value, "low": value, "high": value, "count": 32}
            records.append(record)
    return records


def acts_of(records: Records) -> dict[str, str]:
    return {record["defense"]["label"]: record["defense"]["acts"] for record in records}


def drawn(records: Records, name: str) -> Figure:
    figure = plot.figures(plot.plotted(records), acts_of(records), chance=1.0)[name]
    assert figure is not None
    return figure


def legend_colors(figure: Figure) -> list[str]:
    """The colors of the markers and patches in a figure's legends."""
    handles: list[Any] = [handle for legend in figure.legends for handle in legend.legend_handles]
    marked = [h for h in handles if getattr(h, "get_marker", lambda: "None")() not in {"None", ""}]
    filled = [h for h in handles if hasattr(h, "get_facecolor") and h.get_facecolor()[3]]
    return [to_hex(h.get_color()) for h in marked] + [to_hex(h.get_facecolor()) for h in filled]


def test_groups_stand_in_order_and_differ_in_color_and_marker() -> None:
    acts = {"a": "output", "b": "training, output", "c": "nothing", "d": "training", "e": "fine-tuning",
            "f": "training, fine-tuning", "g": "output"}  # fmt: skip
    found = groups(acts)
    assert [group.acts for group in found] == [
        "nothing", "training", "fine-tuning", "output", "training, output", "training, fine-tuning",
    ]  # fmt: skip
    assert found[3].members == ("a", "g")
    assert found[0].color == UNDEFENDED
    assert len({group.color for group in found}) == len({group.marker for group in found}) == len(found)
    assert by_member(acts)["g"] == found[3]


@pytest.mark.parametrize("num", [len(PALETTE), len(PALETTE) + 1])
def test_figures_change_their_kind_where_colors_run_out(make_record: Make, num: int) -> None:
    records = crowd(make_record, num)
    is_crowd = num > len(PALETTE)
    assert len(drawn(records, "tradeoff").axes) == (2 if is_crowd else 1)
    for name in ("aa", "fid"):
        bars = [patch for axes in drawn(records, name).axes for patch in axes.patches]
        assert len(bars) == (0 if is_crowd else 2 * (num + 1))


@pytest.mark.parametrize("num", [4, len(PALETTE), 24])
def test_no_legend_repeats_a_color(make_record: Make, num: int) -> None:
    shades = legend_colors(drawn(crowd(make_record, num, (DMI,)), "tradeoff"))
    shades = shades[
        : len(shades) if num > len(PALETTE) else num + 1
    ]  # then markers of attacks, all of one color
    assert len(shades) == (4 if num > len(PALETTE) else num + 1)
    assert len(set(shades)) == len(shades)


def test_dots_stand_in_groups_the_best_first(make_record: Make) -> None:
    records = crowd(make_record, attacks=(AMI,))
    table = plot.plotted(records)
    lines = ordered(table, 1, acts_of(records))
    heads = [line.label for line in lines if line.defense is None]
    assert heads == list(KINDS)
    names = [line.label for line in lines if line.defense is not None]
    assert sorted(names) == sorted(table.defenses)
    # AA grows with the number of a defense, and FID is better where it is higher
    assert names[:4] == ["none", "d3", "d6", "d9"]
    fid = {d: table.entries[0, place, 2].value for place, d in enumerate(table.defenses)}
    trained = [line.label for line in ordered(table, 2, acts_of(records)) if line.group.acts == "training"][
        1:
    ]
    assert trained == sorted(trained, key=lambda name: -fid[name])
    heights = [line.height for line in lines]
    assert all(low + 1 <= high for low, high in itertools.pairwise(heights))


def test_dots_show_every_number_every_gap_and_no_empty_panel(make_record: Make) -> None:
    records = crowd(make_record)
    records[3].update(status="failed", error={"stage": "train"}, estimates={}, metric_info={})
    for record in records[25:]:
        record["estimates"]["fid"] = None
    figure = drawn(records, "aa")
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    table = plot.plotted(records)
    values = [e.shown for (_, _, m), e in table.entries.items() if m == 1 and e.state == "value"]
    assert sorted(text for text in texts if text[0].isdigit()) == sorted(values)
    assert texts.count("failed") == 1
    titles = [axes.get_title(loc="left") for axes in drawn(records, "fid").axes]
    assert [title for title in titles if title] == ["dmi"]


def test_equal_points_have_one_marker_and_one_name(make_record: Make) -> None:
    records = crowd(make_record)
    table = plot.plotted(records)
    spots = spots_of(table, 0, (0, 1), acts_of(records))
    assert [len(spot.names) for spot in spots].count(1) == len(spots) - 1 == 16
    (shared,) = (spot for spot in spots if len(spot.names) > 1)
    assert shared.names == ("none", "d2", "d5", "d8", "d11", "d14", "d17", "d20", "d23")
    assert shared.label == "none and 8 output steps"
    assert all(len(spot.names) == 1 for spot in spots_of(table, 1, (0, 1), acts_of(records)))
    figure = drawn(records, "tradeoff")
    for axes, num in zip(figure.axes, (17, 25)):
        markers = [line for line in axes.lines if line.get_marker() in {*MARKERS, "*"}]
        names = [text.get_text() for text in axes.texts if text.get_text()]
        assert len(markers) == len(names) == num
    notes = " ".join(text.get_text() for text in figure.texts)
    assert "none and 8 output steps: d2, d5, d8, d11, d14, d17, d20, d23 (dmi)." in notes


def test_points_that_only_print_alike_in_one_value_stay_apart(make_record: Make) -> None:
    records = crowd(make_record)
    records[2]["estimates"]["mc_all"]["value"] = 0.9489  # 94.9 beside 95.0
    table = plot.plotted(records)
    names = [spot.names for spot in spots_of(table, 0, (0, 1), acts_of(records))]
    assert ("d2",) in names


def test_few_names_are_written_out_and_mixed_groups_are_counted() -> None:
    of = by_member({"none": "nothing", "a": "training", "b": "output", "c": "output"})
    assert called(("a", "b"), [of["a"], of["b"]]) == "a, b"
    assert called(("none", "a", "b", "c"), [of[name] for name in of]) == "none and 3 others"
    assert called(("b", "c", "b", "c"), [of["b"]] * 4) == "b and 3 output steps"


def test_outliers_leave_the_axis_and_stay_in_sight(make_record: Make) -> None:
    records = crowd(make_record)
    for record in records:
        if record["defense"]["label"] == "d1":
            record["estimates"]["mc_all"]["value"] = 0.45
    figure = drawn(records, "tradeoff")
    for axes in figure.axes:
        left, _ = axes.get_xlim()
        assert left > 80
        assert "← d1, MC 45.0" in [text.get_text() for text in axes.texts]
        markers: list[Any] = [line.get_xdata() for line in axes.lines if line.get_marker() in {*MARKERS, "*"}]
        assert min(float(place[0]) for place in markers) > left


def test_an_axis_leaves_out_few_and_only_what_lies_far_away(make_record: Make) -> None:
    def low_end(values: list[float]) -> float:
        entry = plot.plotted([make_record()]).entries[0, 0, 0]
        return utilities([type(entry)(entry.state, value=value) for value in values])[0]

    near = [90.0 + step for step in range(8)]
    assert low_end([40.0, *near]) > 85
    assert low_end([85.0, *near]) < 85
    assert low_end([40.0, 41.0, 42.0, 43.0, *near]) < 40  # a third of all are no outliers


def test_who_has_no_point_is_named(make_record: Make) -> None:
    records = crowd(make_record)
    records[3].update(status="failed", error={"stage": "train"}, estimates={}, metric_info={})
    notes = " ".join(text.get_text() for text in drawn(records, "tradeoff").texts)
    assert "no point for d3: failed (dmi)." in notes


def test_the_worst_case_has_a_panel_where_attacks_met_one_model(make_record: Make) -> None:
    records = crowd(make_record, hits={"3": "10101010", "7": "11110000"})
    titles = [axes.get_title(loc="left") for axes in drawn(records, "tradeoff").axes]
    assert titles == ["dmi", "ami", "worst case of 2 attacks"]
    figure = drawn(records, "tradeoff")
    # dmi met another accuracy of every output step than ami did
    notes = " ".join(text.get_text() for text in figure.texts)
    assert "met models of different MC(all) (worst case of 2 attacks)." in notes
    named = [text.get_text() for text in figure.axes[2].texts]
    assert "d1" in named
    assert "d2" not in named


def test_labels_hide_no_marker_and_no_label(make_record: Make) -> None:
    figure = drawn(crowd(make_record), "tradeoff")
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        for index, box in enumerate(boxes):
            assert axes.bbox.contains(box.x0, box.y0)
            assert axes.bbox.contains(box.x1, box.y1)
            assert not any(box.overlaps(other) for other in boxes[:index])


def test_a_lone_model_has_nothing_to_trade(make_record: Make) -> None:
    many = [(f"a{index}", "score", False, 0.5) for index in range(len(MARKERS) + 1)]
    records = crowd(make_record, 0, many)
    assert plot.figures(plot.plotted(records), acts_of(records))["tradeoff"] is None
    records = crowd(make_record, 1, many)
    assert len(drawn(records, "tradeoff").axes) == len(many)


def test_an_attack_that_one_defense_alone_has_met_has_no_panel(make_record: Make) -> None:
    lone = ("gmi", "white-box", False, 1.0)
    records = [*crowd(make_record), *crowd(make_record, 0, attacks=(lone,))]
    for name in ("tradeoff", "aa"):
        titles = [axes.get_title(loc="left") for axes in drawn(records, name).axes]
        assert "dmi" in titles
        assert "gmi" not in titles
