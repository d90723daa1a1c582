"""The worst case over attacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mibench.report import comparison
from mibench.report.worst import WORST, worst_cases

from .conftest import ATTACKS, DEFENSES, failed, make_record

NONE, SHIELD = DEFENSES[0], DEFENSES[-1]


def cell(attack: str, hits: dict[str, str], defense: Any = NONE, **changes: Any) -> dict[str, Any]:
    control = attack in {name for name, _, is_control, _ in ATTACKS if is_control}
    return make_record((attack, "white-box", control, 0.5), defense, hits=hits, **changes)


def aa(records: list[dict[str, Any]]) -> dict[str, Any]:
    (worst,) = worst_cases(records)
    found: dict[str, Any] = worst["estimates"]["aa"]
    return found


def test_the_best_attack_of_each_label_counts() -> None:
    records = [cell("dmi", {"3": "1100", "8": "0000"}), cell("mirror", {"3": "0000", "8": "1111"})]
    assert aa(records) == {"value": 0.75, "low": 0.0, "high": 1.0, "count": 8}


def test_an_attack_is_scored_on_images_that_did_not_choose_it() -> None:
    """dmi hits even images, mirror odd ones: each is chosen where it hits, and scored elsewhere."""
    assert aa([cell("dmi", {"3": "1010"}), cell("mirror", {"3": "0101"})])["value"] == 0.0


def test_ties_are_averaged() -> None:
    assert aa([cell("dmi", {"3": "1111"}), cell("mirror", {"3": "1010"})])["value"] == 0.75


def test_equal_attacks_have_a_worst_case_of_their_strength() -> None:
    """24 attacks of strength .3 on 8 images: the largest share of each label has a mean of .62."""
    random = np.random.default_rng(0)
    values = []
    for _ in range(20):
        hits = random.random((24, 50, 8)) < 0.3
        records = [
            cell(f"a{i}", {str(j): "".join("01"[int(hit)] for hit in line) for j, line in enumerate(lines)})
            for i, lines in enumerate(hits)
        ]
        values.append(aa(records)["value"])
    assert np.mean(values) == pytest.approx(0.3, abs=3 * np.std(values) / 20**0.5)
    assert np.std(values) < 0.05


def test_one_attack_is_its_own_worst_case_and_gets_no_line() -> None:
    assert worst_cases([cell("dmi", {"3": "10"})]) == []


def test_one_image_of_a_label_cannot_choose_and_score() -> None:
    assert worst_cases([cell(name, {"3": "1"}) for name in ("dmi", "mirror")]) == []


def test_what_is_no_attack_on_people_does_not_count() -> None:
    instance = cell("ami", {"3": "1111"})
    instance["attack"]["params"] = {"goal": "instance"}
    others = [cell("mean_face", {"3": "1111"}), cell("old", {}), instance]
    kept = [cell("dmi", {"3": "1100"}), cell("mirror", {"3": "0000"})]
    (worst,) = worst_cases([*kept, *others])
    assert worst["estimates"]["aa"]["value"] == 0.5
    assert worst["attack"]["label"] == f"{WORST} of 2 attacks"


def test_defenses_are_held_against_the_same_attacks() -> None:
    """What failed on one defense counts on none; a defense that one attack met has no line."""
    everyone = {"gmi": "0000", "mirror": "1100", "dmi": "1111"}
    records = [
        cell(name, {"3": hits}, defense) for name, hits in everyone.items() for defense in (NONE, SHIELD)
    ]
    assert [one["estimates"]["aa"]["value"] for one in worst_cases(records)] == [1.0, 1.0]
    records[-1].update(failed())
    lone = cell("gmi", {"3": "1111"}, DEFENSES[1])
    cases = worst_cases([*records, lone])
    assert [one["defense"]["label"] for one in cases] == [NONE[0], SHIELD[0]]
    assert [one["estimates"]["aa"]["value"] for one in cases] == [0.5, 0.5]
    assert {one["attack"]["label"] for one in cases} == {f"{WORST} of 2 attacks"}


def test_another_seed_is_another_scene() -> None:
    records = [cell(name, {"3": "11"}, seed=seed) for seed in (0, 1) for name in ("dmi", "mirror")]
    records += [cell("gmi", {"3": "11"}, seed=1)]
    names = [one["attack"]["label"] for one in worst_cases(records)]
    assert names == [f"{WORST} of 2 attacks", f"{WORST} of 3 attacks"]


def test_defenses_without_a_common_pair_of_attacks_have_no_line() -> None:
    records = [cell(name, {"3": "11"}, NONE) for name in ("dmi", "mirror")]
    records += [cell(name, {"3": "11"}, SHIELD) for name in ("dmi", "gmi")]
    assert worst_cases(records) == []


def test_no_hit_at_all_keeps_an_interval_of_positive_width() -> None:
    found = aa([cell(name, {"3": "00", "8": "00"}) for name in ("dmi", "mirror")])
    assert found["value"] == found["low"] == 0
    assert found["high"] > 0


def test_the_table_has_a_line_between_attacks_and_controls() -> None:
    records = [
        cell("dmi", {"3": "1100"}),
        cell("mirror", {"3": "0000"}),
        cell("mean_face", {"3": "0000"}),
    ]
    table = comparison(records)
    assert [row.label for row in table.rows] == ["dmi", "mirror", f"{WORST} of 2 attacks", "mean_face"]
    assert any(line.startswith("Worst case") for line in table.caption)
    place = [metric.name for metric in table.metrics].index("aa")
    assert table.entries[2, 0, place].value == pytest.approx(50.0)
    assert table.entries[2, 0, place].cell == ""
    for text in (
        table.to_markdown(),
        table.to_latex(),
        table.to_csv(),
        table.to_html(lambda c, m: f"{c}{m}"),
    ):
        assert f"{WORST} of 2 attacks" in text


def test_the_line_hides_no_flag_that_every_measured_cell_carries() -> None:
    records = [cell(name, {"3": "1100"}, flags=["judge_below_gate"]) for name in ("dmi", "mirror")]
    assert "Every measured cell is flagged: judge below gate." in comparison(records).caption


def test_a_table_without_aa_has_no_such_line() -> None:
    records = [cell("dmi", {"3": "10"}), cell("mirror", {"3": "01"})]
    assert not any(row.label.startswith(WORST) for row in comparison(records, metrics=["mc_all"]).rows)
