"""Signs of masked gradients, drawn from records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mibench.flags import (
    BLACK_BOX,
    IDLE,
    MIN_DUEL_LABELS,
    MIN_LABELS,
    RESTARTS,
    SILENT,
    attacks_people,
    best_of,
    halves,
    masking_flags,
    shared_labels,
    with_comparisons,
)
from mibench.record import Record, read_records

GOLDEN = Path(__file__).parent.parent / "golden" / "record-1.jsonl"
FEW = ["10"] * MIN_LABELS
WEAK, STRONG = ["0000", "0100"] * 5, ["1111", "1101"] * 5


@pytest.mark.parametrize(("share", "flags"), [(None, ()), (0.0, ()), (0.5, ()), (0.6, (SILENT,))])
def test_flags_of_one_cell(share: float | None, flags: tuple[str, ...]) -> None:
    assert masking_flags({"silent_gradients": share}) == flags


def record(access: str, hits: list[str], **changes: Any) -> Record:
    """A record of an attack of some access with these hits by label."""
    one = read_records(GOLDEN)[0]
    gain, rise = changes.pop("gain", None), changes.pop("rise", None)
    attack = {
        "label": changes.pop("label", access),
        "access": access,
        "control": changes.pop("control", False),
    }
    if "goal" in changes:
        attack["params"] = {"goal": changes.pop("goal")}
    fields = {
        "attack": {**one.attack, **attack},
        "defense": {**one.defense, "label": changes.pop("defense", "shield")},
        "view": "stripped" if access == "white-box" else "black-box",
        "hits": {str(label): bits for label, bits in enumerate(hits)},
        "scrutiny": {"restarts": None if gain is None else {"gain": gain}, "rise": rise},
        "flags": (),
    }
    return dataclasses.replace(one, **{**fields, **changes})


def flags_of(*records: Record) -> list[tuple[str, ...]]:
    return [one.flags for one in with_comparisons(records)]


def test_a_stronger_black_box_attack_flags_the_white_box_cells_alone() -> None:
    assert flags_of(record("white-box", WEAK), record("score", STRONG)) == [(BLACK_BOX,), ()]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"defense": "other"},
        {"status": "failed"},
        {"suite": "elsewhere"},
        {"victim_net": "another"},
        {"control": True},
        {"goal": "instance"},
    ],
)
def test_cells_that_do_not_compare_flag_nothing(changes: dict[str, Any]) -> None:
    assert flags_of(record("white-box", WEAK), record("label", STRONG, **changes)) == [(), ()]


def test_records_from_before_hits_were_kept_compare_nothing() -> None:
    assert flags_of(record("white-box", WEAK), record("label", [])) == [(), ()]


def test_a_white_box_attack_on_single_images_neither_helps_nor_is_flagged() -> None:
    private = record("white-box", STRONG, goal="instance", label="ami")
    cells = [record("white-box", WEAK), private, record("score", STRONG)]
    assert flags_of(*cells) == [(BLACK_BOX,), (), ()]
    assert [attacks_people(vars(one)) for one in cells] == [True, False, True]


def test_a_duel_needs_labels_with_two_images() -> None:
    enough = MIN_DUEL_LABELS
    for hits, flags in (
        ([["0" * 2] * enough, ["1" * 2] * enough], (BLACK_BOX,)),
        ([["0" * 2] * (enough - 1), ["1" * 2] * (enough - 1)], ()),
        ([["0"] * enough, ["1"] * enough], ()),
    ):
        assert flags_of(record("white-box", hits[0]), record("score", hits[1]))[0] == flags


def test_attacks_are_chosen_on_even_images_and_compared_on_odd_ones() -> None:
    """The attack that looks best on the even images is the one whose odd images count."""
    chosen = record("score", ["1000"] * 10, label="a")
    passed_over = record("score", ["0101"] * 10, label="b")
    white = record("white-box", ["0000"] * 10)
    assert flags_of(white, chosen, passed_over) == [(), (), ()]
    assert flags_of(white, passed_over) == [(BLACK_BOX,), ()]


def test_halves_and_ties() -> None:
    records = [{"hits": {"0": "110", "1": "0", "2": "01"}}, {"hits": {"0": "001", "2": "11"}}]
    assert shared_labels(records) == ["0", "2"]
    even, odd = halves(records, ["0", "2"])
    assert even.tolist() == [[0.5, 0.0], [0.5, 1.0]]
    assert odd.tolist() == [[1.0, 1.0], [0.0, 1.0]]
    assert best_of(even, odd).tolist() == [0.5, 1.0]
    assert best_of(even.mean(1, keepdims=True), odd).tolist() == [0.0, 1.0]


def test_eight_attacks_of_equal_strength_do_not_beat_one() -> None:
    """The interval's lower end is above 0 in 2.5 % of runs by its level; in nearly all if attacks count."""
    random = np.random.default_rng(0)
    runs = 0
    for _ in range(200):
        chances = random.beta(1, 2, size=(20, 1))  # some people are easier to find, for every attack
        cells = [
            record(
                "score" if i else "white-box",
                ["".join("01"[int(hit)] for hit in line) for line in random.random((20, 8)) < chances],
                label=str(i),
            )
            for i in range(9)
        ]
        runs += BLACK_BOX in with_comparisons(cells)[0].flags
    assert runs <= 20


@pytest.mark.parametrize(("low", "flags"), [(0.05, ()), (0.25, (RESTARTS,)), (-0.1, ())])
def test_restarts_are_held_against_the_undefended(low: float, flags: tuple[str, ...]) -> None:
    plain = record("white-box", FEW, defense="none", gain={"value": 0.2, "low": 0.1})
    shielded = record("white-box", FEW, gain={"value": 0.4, "low": low})
    assert flags_of(plain, shielded) == [(), flags]


def test_restarts_are_held_against_nothing_where_the_undefended_failed() -> None:
    plain = record("white-box", [], defense="none", status="failed")
    assert flags_of(plain, record("white-box", FEW, gain={"value": 0.4, "low": 0.3})) == [(), ()]


def idle(*, losses: tuple[float | None, ...] = (3.0, 1.0), low: float = 0.0, **changes: Any) -> Record:
    """A white-box cell whose AA rises by at least `low` while the loss runs through `losses`."""
    effort = tuple({"queries": i, "aa": {"value": 0.0}, "loss": loss} for i, loss in enumerate(losses))
    access = changes.pop("access", "white-box")
    return record(access, changes.pop("bits", FEW), effort=effort, rise={"low": low}, **changes)


@pytest.mark.parametrize(
    ("cell", "flags"),
    [
        (idle(), (IDLE,)),
        (idle(low=-0.1), (IDLE,)),
        (idle(low=0.1), ()),
        (idle(losses=(1.0, 3.0)), ()),
        (idle(losses=(3.0, None)), ()),
        (idle(losses=(3.0, 1.0, None)), (IDLE,)),
        (idle(control=True), ()),
        (idle(access="score", label="white-box", view="stripped"), ()),
        (idle(seed=7), ()),
        (idle(label="another"), ()),
        (idle(view="deployed"), ()),
        (idle(bits=FEW[1:]), ()),
    ],
)
def test_an_idle_attack_is_one_that_works_on_the_undefended(cell: Record, flags: tuple[str, ...]) -> None:
    assert flags_of(idle(defense="none", low=0.2), cell) == [(), flags]


@pytest.mark.parametrize("low", [0.0, -0.3])
def test_an_attack_that_idles_everywhere_is_a_weak_attack(low: float) -> None:
    assert flags_of(idle(defense="none", low=low), idle()) == [(), ()]


def test_the_undefended_is_never_idle_by_itself() -> None:
    assert flags_of(idle(defense="none")) == flags_of(idle()) == [()]


def test_few_labels_compare_nothing() -> None:
    few = FEW[1:]
    plain = record("white-box", few, defense="none", gain={"value": 0.0, "low": 0.0}, rise={"low": 1.0})
    shielded = record("white-box", few, gain={"value": 1.0, "low": 1.0}, rise={"low": 0.0})
    shielded = dataclasses.replace(shielded, effort=idle().effort)
    assert flags_of(plain, shielded) == [(), ()]
    more = [dataclasses.replace(one, hits=record("score", FEW).hits) for one in (plain, shielded)]
    assert flags_of(*more) == [(), (RESTARTS, IDLE)]


def test_comparing_twice_changes_nothing() -> None:
    once = with_comparisons([record("white-box", WEAK), record("score", STRONG)])
    assert once[0].flags
    assert with_comparisons(once) == once
