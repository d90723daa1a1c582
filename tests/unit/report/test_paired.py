from typing import Any

import numpy as np
import pytest

from mibench.report.paired import Difference, differences, paired_frame, to_markdown

from .conftest import ATTACKS, DEFENSES, Record, make_record

NONE, BIDO, PURIFIER = DEFENSES[0], DEFENSES[2], DEFENSES[4]


def record(defense: Any, hits: dict[str, str], *, seed: int = 0, attack: Any = ATTACKS[0]) -> Record:
    return make_record(attack, defense, seed=seed, hits=hits)


def only(found: list[Difference], defense: str = "bido", attack: str = "mi-face") -> Difference:
    (one,) = [one for one in found if (one.defense, one.attack) == (defense, attack)]
    return one


def test_pairs_are_people_and_not_images() -> None:
    found = differences(
        [
            record(NONE, {"1": "1111", "2": "1100"}),
            record(BIDO, {"1": "0000", "2": "1000"}),
        ]
    )
    one = only(found)
    assert one.pairs == 2
    assert (one.reference, one.aa, one.difference) == (0.75, 0.125, -0.625)
    assert one.low <= one.difference <= one.high


def test_a_label_of_another_seed_is_the_same_person_again() -> None:
    records = [
        record(defense, hits, seed=seed)
        for seed in (0, 1)
        for defense, hits in ((NONE, {"1": "11"}), (BIDO, {"1": "10" if seed else "00"}))
    ]
    one = only(differences(records))
    assert one.pairs == 1
    assert one.aa == 0.25


def test_people_that_one_side_lacks_are_left_out() -> None:
    one = only(differences([record(NONE, {"1": "11", "2": "00"}), record(BIDO, {"1": "10", "3": "11"})]))
    assert (one.pairs, one.reference, one.aa) == (1, 1.0, 0.5)
    assert one.p == 1.0


def test_p_values_are_adjusted_within_an_attack() -> None:
    people = [str(i) for i in range(6)]
    records = [
        record(NONE, dict.fromkeys(people, "11")),
        record(BIDO, dict.fromkeys(people, "00")),
        record(PURIFIER, {one: "11" if int(one) % 2 else "10" for one in people}),
    ]
    found = differences(records)
    bido, purifier = only(found), only(found, "purifier")
    assert bido.p == pytest.approx(2 / 2**6)
    assert bido.p_holm == pytest.approx(2 * bido.p)
    assert purifier.p_holm == pytest.approx(purifier.p)


def test_worst_case_takes_the_best_attack_on_each_person() -> None:
    hits = {"1": "1111", "2": "0000"}, {"1": "0000", "2": "1111"}
    records = [record(NONE, one, attack=attack) for one, attack in zip(hits, ATTACKS)]
    records += [record(BIDO, dict.fromkeys("12", "0000"), attack=attack) for attack in ATTACKS[:2]]
    one = only(differences(records), attack="worst case")
    assert (one.reference, one.aa) == (1.0, 0.0)


def test_the_very_run_of_no_defense_is_no_comparison() -> None:
    def run(invert: str) -> dict[str, Any]:
        return {"measure": "m", "models": [{"invert": invert}]}

    hits = {"1": "11", "2": "10"}
    records = [
        make_record(ATTACKS[0], NONE, hits=hits, keys=run("a")),
        make_record(ATTACKS[0], PURIFIER, hits=hits, keys=run("a")),
        make_record(ATTACKS[0], BIDO, hits=hits, keys=run("b")),
    ]
    assert [one.defense for one in differences(records)] == ["bido"]


def test_controls_and_records_without_hits_are_left_out() -> None:
    control = ATTACKS[6]
    assert control[2]
    records = [record(defense, {"1": "11"}, attack=control) for defense in (NONE, BIDO)]
    assert differences([*records, make_record(ATTACKS[0], NONE), make_record(ATTACKS[0], BIDO)]) == []


def test_without_an_undefended_record_there_is_nothing_to_compare_with() -> None:
    assert differences([record(BIDO, {"1": "11"}), record(PURIFIER, {"1": "00"})]) == []


def test_tables_say_what_was_found() -> None:
    found = differences([record(NONE, {"1": "11", "2": "11"}), record(BIDO, {"1": "00", "2": "10"})])
    frame = paired_frame(found)
    assert frame.loc[0, "difference"] == -0.75
    text = to_markdown(found)
    assert "| mi-face | bido | 2 | 100.0 | 25.0 | \N{MINUS SIGN}75.0 [" in text
    assert "nan" not in text
    assert np.isfinite(frame.select_dtypes("number").to_numpy()).all()


def test_who_is_protected_in_two_seeds_is_one_person() -> None:
    """Ten labels, each in two seeds, are ten pairs: their p-value is that of ten, not of twenty."""
    from mibench.report.paired import by_person

    values = {(str(label), seed): float(seed) for label in range(10) for seed in "01"}
    assert by_person(values).tolist() == [0.5] * 10
