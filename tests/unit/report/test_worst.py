"""The worst case over attacks."""

from __future__ import annotations

from typing import Any

import pytest

from mibench.report import comparison
from mibench.report.worst import WORST, worst_cases

from .conftest import make_record


def cell(attack: str, shares: dict[str, float]) -> dict[str, Any]:
    return {**make_record((attack, "white-box", attack == "mean_face", 0.5)), "by_target": shares}


def test_the_best_attack_of_each_label_counts() -> None:
    records = [
        cell("dmi", {"3": 0.5, "8": 0.0}),
        cell("mirror", {"3": 0.25, "8": 1.0}),
    ]
    (worst,) = worst_cases(records)
    assert worst["estimates"]["aa"]["value"] == 0.75
    assert worst["estimates"]["aa"]["low"] == 0.5
    assert worst["estimates"]["aa"]["high"] == 1.0


def test_one_attack_is_its_own_worst_case_and_gets_no_line() -> None:
    assert worst_cases([cell("dmi", {"3": 0.5})]) == []


def test_controls_and_old_records_do_not_count() -> None:
    control = cell("mean_face", {"3": 1.0})
    old = {**cell("ami", {}), "by_target": {}}
    records = [cell("dmi", {"3": 0.5}), cell("mirror", {"3": 0.0}), control, old]
    assert worst_cases(records)[0]["estimates"]["aa"]["value"] == 0.5


def test_no_hit_at_all_keeps_an_interval_of_positive_width() -> None:
    records = [cell(name, {"3": 0.0, "8": 0.0}) for name in ("dmi", "mirror")]
    aa = worst_cases(records)[0]["estimates"]["aa"]
    assert aa["value"] == aa["low"] == 0
    assert aa["high"] > 0


def test_the_table_has_a_line_between_attacks_and_controls() -> None:
    records = [
        cell("dmi", {"3": 0.5}),
        cell("mirror", {"3": 0.0}),
        cell("mean_face", {"3": 0.0}),
    ]
    table = comparison(records)
    assert [row.label for row in table.rows] == ["dmi", "mirror", WORST, "mean_face"]
    assert any(line.startswith("Worst case") for line in table.caption)
    aa = [metric.name for metric in table.metrics].index("aa")
    assert table.entries[2, 0, aa].value == pytest.approx(50.0)
    assert table.entries[2, 0, aa].cell == ""
    for text in (
        table.to_markdown(),
        table.to_latex(),
        table.to_csv(),
        table.to_html(lambda c, m: f"{c}{m}"),
    ):
        assert WORST in text
