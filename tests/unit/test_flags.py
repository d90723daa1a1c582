"""Signs of masked gradients, drawn from records."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mibench.flags import BLACK_BOX, IDLE, RESTARTS, SILENT, masking_flags, with_comparisons, worst_case
from mibench.record import Record, read_records

GOLDEN = Path(__file__).parent.parent / "golden" / "record-1.jsonl"


def scrutiny(**found: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"effort": [], "rise": None, "restarts": None, "silent_gradients": 0.0, "by_target": {}}
    return {**plain, **found}


def curve(*losses: float) -> list[dict[str, Any]]:
    return [{"queries": i, "aa": {"value": 0.0}, "loss": loss} for i, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("found", "flags"),
    [
        (scrutiny(), ()),
        (scrutiny(silent_gradients=None), ()),
        (scrutiny(silent_gradients=0.5), ()),
        (scrutiny(silent_gradients=0.6), (SILENT,)),
        (scrutiny(effort=curve(3.0, 1.0), rise={"low": 0.0}), (IDLE,)),
        (scrutiny(effort=curve(3.0, 1.0), rise={"low": 0.1}), ()),
        (scrutiny(effort=curve(1.0, 3.0), rise={"low": 0.0}), ()),
        (scrutiny(effort=[{"queries": 1, "aa": None, "loss": None}] * 2, rise={"low": 0.0}), ()),
    ],
)
def test_flags_of_one_cell(found: dict[str, Any], flags: tuple[str, ...]) -> None:
    assert masking_flags(found) == flags


def record(access: str, shares: list[float], **changes: Any) -> Record:
    """A record of an attack of some access with these shares of hits by label."""
    one = read_records(GOLDEN)[0]
    gain = changes.pop("gain", None)
    defense = changes.pop("defense", "shield")
    return dataclasses.replace(
        one,
        attack={**one.attack, "label": changes.pop("label", access), "access": access, "control": False},
        defense={**one.defense, "label": defense},
        by_target={str(label): share for label, share in enumerate(shares)},
        scrutiny={"restarts": None if gain is None else {"gain": gain}},
        flags=(),
        **changes,
    )


def test_a_stronger_black_box_attack_flags_the_white_box_cells_alone() -> None:
    weak = record("white-box", [0.0, 0.1, 0.0, 0.2])
    strong = record("score", [0.9, 0.8, 1.0, 0.7])
    flagged = with_comparisons([weak, strong])
    assert flagged[0].flags == (BLACK_BOX,)
    assert flagged[1].flags == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 7},
        {"defense": "other"},
        {"status": "failed"},
        {"suite": "elsewhere"},
    ],
)
def test_cells_that_do_not_compare_flag_nothing(changes: dict[str, Any]) -> None:
    weak = record("white-box", [0.0, 0.1, 0.0, 0.2])
    strong = record("label", [0.9, 0.8, 1.0, 0.7], **changes)
    assert all(one.flags == () for one in with_comparisons([weak, strong]))


def test_the_best_white_box_attack_of_each_label_counts() -> None:
    """Two white-box attacks that are each weak on half of the labels are together as good as the other."""
    halves = [
        record("white-box", [1.0, 1.0, 0.0, 0.0], label="a"),
        record("white-box", [0, 0, 1, 1], label="b"),
    ]
    black = record("score", [0.9, 0.9, 0.9, 0.9])
    assert all(one.flags == () for one in with_comparisons([*halves, black]))
    assert worst_case(halves) == {"0": 1.0, "1": 1.0, "2": 1.0, "3": 1.0}


def test_a_control_never_beats_an_attack() -> None:
    weak = record("white-box", [0.0, 0.0])
    control = record("score", [1.0, 1.0])
    control = dataclasses.replace(control, attack={**control.attack, "control": True})
    assert all(one.flags == () for one in with_comparisons([weak, control]))


@pytest.mark.parametrize(("low", "flags"), [(0.05, ()), (0.25, (RESTARTS,)), (-0.1, ())])
def test_restarts_are_held_against_the_undefended(low: float, flags: tuple[str, ...]) -> None:
    plain = record("white-box", [0.5], defense="none", gain={"value": 0.2, "low": 0.1})
    shielded = record("white-box", [0.5], gain={"value": 0.4, "low": low})
    flagged = with_comparisons([plain, shielded])
    assert flagged[0].flags == ()
    assert flagged[1].flags == flags


def test_comparing_twice_changes_nothing() -> None:
    once = with_comparisons([record("white-box", [0.0, 0.0]), record("score", [1.0, 1.0])])
    assert with_comparisons(once) == once
