"""The rules behind the flags of the audit: both sides of each, and how often honest cells are flagged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibench.audit import (
    CONTROL_ABOVE_CHANCE,
    JUDGE_MISSES,
    JUDGES_DISAGREE,
    control_flags,
    disagrees,
    judge_flags,
    misses,
)
from mibench.flags import MIN_LABELS
from mibench.record import read_records
from mibench.report.flag_meanings import MEANINGS, explained_flags, flags

RESULTS = Path(__file__).resolve().parents[2] / "results"
Bits = dict[str, str]


def bits(lines: list[str]) -> Bits:
    return {str(label): line for label, line in enumerate(lines)}


@pytest.mark.parametrize(
    ("hits", "second", "accuracy", "flagged"),
    [
        (["1111"] * 6, ["1111"] * 6, 1.0, False),
        (["1111"] * 6, ["0000"] * 6, 1.0, True),
        (["1111"] * 6, ["0001"] * 6, 1.0, True),
        (["1111"] * 6, ["0101"] * 6, 0.9, False),
        (["0000"] * 6, ["0000"] * 6, 1.0, False),
        (["1111"] * 6, ["0000"] * 6, 0.0, False),
        # failures of the judge weigh nothing, whatever the second opinion says of them
        (["1000"] * 6, ["1000"] * 6, 1.0, False),
        (["1000"] * 6, ["0111"] * 6, 1.0, True),
        # one person whom the judge takes for the target by luck, and too few people
        (["1111", *["0000"] * 9], ["0000"] * 10, 1.0, False),
        (["1111"] * (MIN_LABELS - 1), ["0000"] * (MIN_LABELS - 1), 1.0, False),
        (["1111"] * MIN_LABELS, ["0000"] * MIN_LABELS, 1.0, True),
    ],
)
def test_a_second_opinion_disagrees_below_half_of_its_accuracy(
    hits: list[str], second: list[str], accuracy: float, flagged: bool
) -> None:
    assert disagrees(bits(hits), bits(second), accuracy) == flagged


def drawn(
    random: np.random.Generator, agreement: float, *, labels: int = 10, images: int = 8
) -> tuple[Bits, Bits]:
    """Hits of a judge that finds some people more easily than others, and what a second opinion confirms."""
    found = random.beta(1, 1, size=(labels, 1))
    known = random.beta(4 * agreement, 4 * (1 - agreement), size=(labels, 1))
    hits = random.random((labels, images)) < found
    second = hits & (random.random((labels, images)) < known)
    texts = [["".join("01"[int(hit)] for hit in line) for line in one] for one in (hits, second)]
    return bits(texts[0]), bits(texts[1])


@pytest.mark.parametrize(
    ("agreement", "least", "most"),
    [(0.9, 0.0, 0.0), (0.6, 0.0, 0.03), (0.45, 0.0, 0.1), (0.1, 0.8, 1.0)],
)
def test_honest_cells_are_rarely_flagged_and_fooled_judges_mostly(
    agreement: float, least: float, most: float
) -> None:
    """With an accuracy of 0.9 the rule's edge is an agreement of 0.45, where 2.5 % are its level."""
    random = np.random.default_rng(1)
    share = np.mean([disagrees(*drawn(random, agreement), 0.9) for _ in range(200)])
    assert least <= share <= most


def test_one_second_opinion_is_enough() -> None:
    hits, none = bits(["1111"] * 6), bits(["0000"] * 6)
    accuracies = {"audit": 0.9, "embedder": 0.9}
    assert judge_flags(hits, {"audit": hits, "embedder": none}, accuracies) == (JUDGES_DISAGREE,)
    assert judge_flags(hits, {"audit": hits, "embedder": hits}, accuracies) == ()
    assert judge_flags(hits, {}, {}) == ()


@pytest.mark.parametrize(
    ("name", "low", "hits", "flagged"),
    [
        ("mean_face", 0.2, ["11", "10", "00"], True),
        ("untrained_prior", 0.2, ["11", "10", "00"], True),
        ("untrained_prior", 0.1, ["11", "10", "00"], False),
        ("nearest_public", 0.9, ["11", "11", "11"], False),
        ("mirror", 0.9, ["11", "11", "11"], False),
        ("mean_face", 0.2, ["11", "00", "00"], False),
    ],
)
def test_controls_of_nobody_belong_at_chance(name: str, low: float, hits: list[str], flagged: bool) -> None:
    found = control_flags({"name": name}, {"aa": {"low": low}}, bits(hits), 0.1)
    assert found == ((CONTROL_ABOVE_CHANCE,) if flagged else ())


def test_a_control_without_an_aa_is_not_flagged() -> None:
    assert control_flags({"name": "mean_face"}, {}, {}, 0.1) == ()
    assert control_flags({"name": "mean_face"}, {"aa": None}, {}, 0.1) == ()


def test_committed_controls_of_nobody_lie_at_chance() -> None:
    cells = [
        one
        for one in read_records(RESULTS / "quick" / "records.jsonl")
        if one.attack["name"] in {"mean_face", "untrained_prior"} and one.status == "ok"
    ]
    assert {one.attack["name"] for one in cells} == {"mean_face", "untrained_prior"}
    for one in cells:
        aa: Any = one.estimates["aa"]
        assert aa["low"] <= one.chance <= aa["high"], one.cell
        assert control_flags(one.attack, one.estimates, one.hits, one.chance) == ()


@pytest.mark.parametrize("flag", [JUDGES_DISAGREE, CONTROL_ABOVE_CHANCE])
def test_tables_say_what_a_flag_means(flag: str) -> None:
    (text,) = flags({"flags": [flag]})
    assert text.startswith(flag.replace("_", " "))
    meaning = MEANINGS[flag].removesuffix(".")
    assert text.endswith(f" ({meaning[0].lower()}{meaning[1:]})")
    assert explained_flags({"flags": [flag]}) == [(text, "")]


def test_a_judge_who_misses_what_all_others_see_is_flagged() -> None:
    people = [str(label) for label in range(8)]
    judge, seen = dict.fromkeys(people, "10000000"), dict.fromkeys(people, "11111100")
    assert misses(judge, [seen, seen])
    seconds = {"audit": seen, "embedder": seen}
    assert JUDGE_MISSES in judge_flags(judge, seconds, dict.fromkeys(seconds, 0.9))


def test_one_second_opinion_or_opinions_that_see_others_do_not_show_a_miss() -> None:
    people = [str(label) for label in range(8)]
    judge, seen = dict.fromkeys(people, "10000000"), dict.fromkeys(people, "11111100")
    assert not misses(judge, [seen])
    assert not misses(judge, [dict.fromkeys(people, "11110000"), dict.fromkeys(people, "00001111")])
    assert not misses(seen, [seen, judge])
    few = people[:4]
    assert not misses({one: judge[one] for one in few}, [{one: seen[one] for one in few}] * 2)
