"""Ranks that defenses may have: a clear order, none at all, and neighbors that cannot be told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mibench.report.by_defense import by_defense
from mibench.report.ranks import rank_ranges, ranks
from mibench.statistics import sign_flip, sign_flips, sign_patterns

from .conftest import ATTACKS, DEFENSES, Record, make_record

PEOPLE = [(str(i), "0") for i in range(10)]
NONE, BIDO, PURIFIER, GAN_ID = (DEFENSES[i] for i in (0, 2, 4, 5))
SCENE = "synthfaces 32\N{MULTIPLICATION SIGN}32, 100 ids · small_vgg"


def shares(**by_defense: list[float]) -> dict[str, dict[tuple[str, str], float]]:
    return {name: dict(zip(PEOPLE, values)) for name, values in by_defense.items()}


def own_runs(found: dict[str, dict[tuple[str, str], float]]) -> dict[str, list[str]]:
    return {name: [name] for name in found}


def test_defenses_that_differ_on_everybody_have_one_rank_each() -> None:
    found = shares(none=[1.0] * 10, bido=[0.5] * 10, gan_id=[0.0] * 10)
    result = rank_ranges(found, own_runs(found))
    assert result.of == {"none": (3, 3), "bido": (2, 2), "gan_id": (1, 1)}
    assert (result.tests, result.is_one_tie) == (3, False)
    assert result.least_p == pytest.approx(3 * 2 / 2**10)
    assert [result.shown(name) for name in ("none", "gan_id", "other")] == ["3", "1", ""]


def test_defenses_that_differ_on_nobody_share_all_ranks() -> None:
    alternating = [0.0, 1.0] * 5
    found = shares(none=[0.5] * 10, bido=alternating, gan_id=alternating[::-1])
    result = rank_ranges(found, own_runs(found))
    assert set(result.of.values()) == {(1, 3)}
    assert result.is_one_tie
    assert result.shown("bido") == "1\N{EN DASH}3"


def test_ties_are_not_transitive() -> None:
    """A middle defense that is told from neither end, while the ends are told from each other."""
    low = [0.0] * 10
    middle = [0.0] * 5 + [1.0] * 5
    high = [0.5] * 5 + [1.0] * 5
    # the middle differs from either end on 5 people, p = 2 / 2^5; the ends differ on 10
    found = shares(low=low, middle=middle, high=high)
    result = rank_ranges(found, own_runs(found))
    assert result.of == {"low": (1, 2), "middle": (1, 3), "high": (2, 3)}


def test_five_people_rank_nobody() -> None:
    five = {name: dict(list(one.items())[:5]) for name, one in shares(a=[1.0] * 10, b=[0.0] * 10).items()}
    result = rank_ranges(five, own_runs(five))
    assert result.is_one_tie
    assert result.least_p == pytest.approx(2 / 2**5)


def test_the_very_same_runs_are_one_competitor_and_keep_a_rank_each() -> None:
    found = shares(none=[1.0] * 10, rounding=[1.0] * 10, top_k=[1.0] * 10, gan_id=[0.0] * 10)
    same = {"none": ["x"], "rounding": ["x"], "top_k": ["x"], "gan_id": ["y"]}
    result = rank_ranges(found, same)
    assert result.tests == 1
    assert result.of == {"none": (2, 4), "rounding": (2, 4), "top_k": (2, 4), "gan_id": (1, 1)}
    assert rank_ranges(found, own_runs(found)).tests == 6


def record(defense: Any, hits: str, attack: Any = ATTACKS[0], **changes: Any) -> Record:
    return make_record(attack, defense, hits=dict.fromkeys(PEOPLE, hits), **changes)


def test_ranks_stand_beside_the_numbers_and_ties_are_said() -> None:
    records = [record(NONE, "1111"), record(BIDO, "1100"), record(GAN_ID, "0000")]
    records += [record(defense, "0000", ATTACKS[1]) for defense in (NONE, BIDO, GAN_ID)]
    found = ranks(records)
    assert found[SCENE, "mi-face", "stripped"].of == {"none": (3, 3), "bido": (2, 2), "gan_id": (1, 1)}
    assert found[SCENE, "gmi", "stripped"].is_one_tie
    assert (SCENE, "", "") in found
    text = by_defense(records)
    lines = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert lines["| none"].count("<sub>3</sub>") == 2  # under mi-face and in the worst case
    assert lines[r"| gan\_id"].count("<sub>1</sub>") == 2
    assert "No two defenses can be told apart under: gmi." in text
    assert "the ranks that the defense may have" in text


def test_few_people_are_given_as_the_reason() -> None:
    few = {"1": "11", "2": "11"}
    records = [make_record(ATTACKS[0], NONE, hits=few), make_record(ATTACKS[0], BIDO, hits=few)]
    text = by_defense(records)
    assert r"apart (so few people: the least p after Holm is 0.5) under: mi-face." in text
    assert "<sub>" not in text


def test_controls_records_without_hits_and_lone_defenses_have_no_ranks() -> None:
    control = ATTACKS[6]
    assert control[2]
    assert ranks([record(NONE, "11", control), record(BIDO, "00", control)]) == {}
    assert ranks([make_record(), record(NONE, "11")]) == {}


def test_fast_sign_flips_are_the_slow_ones() -> None:
    random = np.random.default_rng(0)
    differences = random.integers(-8, 9, size=(30, 9)) / 8
    differences[0] = 0.0
    expected = [sign_flip(one) for one in differences]
    assert sign_flips(differences, sign_patterns(9)) == pytest.approx(expected)
    many = np.full((1, 20), 0.25)
    assert sign_flips(many, sign_patterns(20)) == pytest.approx([2 / 10_000])
    assert sign_flip(many[0]) == pytest.approx(2 / 10_000)


def test_many_defenses_can_be_told_apart_too() -> None:
    """276 pairs: the test must try more sign patterns than for one pair, or none could pass Holm's method."""
    people = [(str(person), "0") for person in range(20)]
    shares = {f"d{i}": dict.fromkeys(people, 0.0 if i == 0 else 1.0) for i in range(24)}
    found = rank_ranges(shares, {name: [name] for name in shares})
    assert found.of["d0"] == (1, 1)
    assert found.of["d5"] == (2, 24)
    assert found.least_p < 0.05
