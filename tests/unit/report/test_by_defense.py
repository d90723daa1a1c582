from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.errors import RecordError
from mibench.report.by_defense import by_defense
from mibench.report.write import write_tables

from .conftest import ATTACKS, DEFENSES, Record, make_record


def lines_of(text: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_a_line_is_a_defense_and_a_column_an_attack() -> None:
    records = [make_record(attack, defense) for attack in ATTACKS[:2] for defense in DEFENSES[:3]]
    rows = lines_of(by_defense(records))
    assert list(rows) == ["Defense", "none", r"dp\_sgd", "bido"]
    assert rows["Defense"][-2:] == ["mi-face", "gmi"]
    aa = records[0]["estimates"]["aa"]["value"]
    assert rows["none"][rows["Defense"].index("mi-face")].strip("*") == f"{100 * aa:.1f}"
    assert rows["bido"][0] == "training"


def test_controls_are_left_out(make_records: Callable[..., list[Record]]) -> None:
    assert "mean" not in lines_of(by_defense(make_records()))["Defense"]
    assert r"mean\_face" not in by_defense(make_records()).split("\n\nAA under")[0]


def test_a_utility_that_hangs_on_the_attack_is_a_span() -> None:
    one, other = (make_record(attack, DEFENSES[6]) for attack in ATTACKS[:2])
    other["estimates"]["mc_all"] = {**other["estimates"]["mc_all"], "value": 0.9}
    rows = lines_of(by_defense([one, other]))
    assert rows["netguard"][rows["Defense"].index("MC(all)")] == "90.0\N{EN DASH}95.7"


def test_names_cannot_break_the_table() -> None:
    record = make_record()
    record["defense"]["label"] = "a|b <script>"
    text = by_defense([record])
    assert "<script>" not in text
    assert r"a\|b" in text


def test_nothing_to_show_is_said() -> None:
    with pytest.raises(RecordError, match="there are none to compare"):
        by_defense([])


def test_records_without_aa_have_their_other_tables(tmp_path: Path) -> None:
    record = make_record()
    for name in ("estimates", "metric_info"):
        record[name] = {metric: value for metric, value in record[name].items() if metric != "aa"}
    names = {path.name for path in write_tables([record], tmp_path)}
    assert "comparison.md" in names
    assert "by-defense.md" not in names
    assert "by-defense.md" in {path.name for path in write_tables([make_record()], tmp_path)}
