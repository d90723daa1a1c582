"""The order of a board: who is ranked, who is compared, and that nobody's gap is anybody else's gain."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mibench.boards.board import Board, Rules
from mibench.boards.entry import Entry
from mibench.boards.standing import STALE, Row, contenders, standings

_PEOPLE, _QUARTERS = tuple(str(i) for i in range(12)), 4
_BOARD = Board(Path("b"), Rules(schema=1, title="T", suite="smoke", access="white-box"))
Json = dict[str, Any]


def estimate(value: float) -> Json:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "count": 100}


def record(attack: str, defense: str, rate: float, mc: float = 0.95, **changes: Any) -> Json:
    """A record where each person has the same share of hits, in quarters."""
    found = round(rate * _QUARTERS)
    hits = "11" * found + "00" * (_QUARTERS - found)  # even and odd images alike
    name = hashlib.sha256(f"{attack} {defense}".encode()).hexdigest()
    return {
        "suite": "s",
        "cell": name[:12],
        "attack": {"label": attack, "name": attack, "version": 1, "control": attack == "mean", "params": {}},
        "defense": {"label": defense, "name": defense, "acts": "training", "title": f"Paper of {defense}"},
        "view": "stripped",
        "seed": 0,
        "data": {"digest": "d"},
        "victim_net": "v",
        "status": "ok",
        "estimates": {"aa": estimate(rate), "mc_all": estimate(mc), "mc_target": estimate(mc)},
        "hits": dict.fromkeys(_PEOPLE, hits),
        "flags": [],
        "keys": {"measure": name, "models": [{"invert": name}]},
        **changes,
    }


def board(**rates: tuple[float, float]) -> list[Json]:
    """Records of defenses by the AA of two attacks."""
    return [
        record(attack, name, rate)
        for name, pair in rates.items()
        for attack, rate in zip(("gmi", "dmi"), pair)
    ]


def rows(records: list[Json]) -> dict[str, Row]:
    return {row.name: row for row in standings(_BOARD, {}, records).rows}


def test_order_is_by_the_worst_case_over_attacks() -> None:
    found = standings(_BOARD, {}, board(none=(1.0, 0.75), good=(0.0, 0.25), half=(0.75, 0.0)))
    assert [row.name for row in found.rows] == ["good", "half", "none"]
    assert [row.worst.value for row in found.rows] == [0.25, 0.75, 1.0]
    assert [row.ranks for row in found.rows] == [(1, 1), (2, 2), (3, 3)]
    assert found.attacks == ("gmi", "dmi")


def test_equal_defenses_share_their_places() -> None:
    found = rows(board(none=(1.0, 1.0), one=(0.25, 0.25), two=(0.25, 0.25)))
    assert found["one"].ranks == found["two"].ranks == (1, 2)
    assert found["one"].place == "1\N{EN DASH}2"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"status": "failed", "hits": {}, "estimates": {}}, "1 of its 2 cells failed"),
        ({"status": "blocked", "hits": {}, "estimates": {}}, "1 of its 2 cells failed or were blocked"),
        ({"flags": [STALE]}, "of an older version"),
        ({"flags": ["judge_below_gate"]}, "The judge knows too few people"),
    ],
)
def test_what_keeps_a_defense_out(changes: Json, why: str) -> None:
    records = board(none=(1.0, 0.75), good=(0.0, 0.25))
    records += [record("gmi", "bad", 0.0), record("dmi", "bad", 0.0, **changes)]
    found = rows(records)
    assert why in found["bad"].why
    assert found["bad"].ranks is None
    assert found["good"].ranks == (1, 1)


def test_missing_cell_keeps_a_defense_out() -> None:
    found = rows([*board(none=(1.0, 0.75), good=(0.0, 0.25)), record("gmi", "bad", 0.0)])
    assert found["bad"].why == "1 of its cells are not measured yet."


@pytest.mark.parametrize(("mc", "why"), [(0.91, ""), (0.85, "loses 10.0 points of accuracy on all people")])
def test_price_in_accuracy(mc: float, why: str) -> None:
    records = [*board(none=(1.0, 0.75)), *(record(name, "x", 0.0, mc) for name in ("gmi", "dmi"))]
    found = rows(records)["x"]
    assert why in found.why
    assert (found.ranks is None) == bool(why)


def test_attack_that_fails_everywhere_is_nobodys_fault() -> None:
    failed: Json = {"status": "failed", "hits": {}, "estimates": {}}
    records = board(none=(1.0, 0.75), good=(0.0, 0.25))
    both = [*records, *(record("hung", name, 0.0, **failed) for name in ("none", "good"))]
    assert {name: row.why for name, row in rows(both).items()} == {"none": "", "good": ""}


@pytest.mark.parametrize("change", [{"status": "failed", "hits": {}, "estimates": {}}, {"flags": [STALE]}])
def test_attack_without_numbers_of_no_defense_counts_for_nobody(change: Json) -> None:
    # neither in the worst cases that are shown nor in the places, which would contradict each other else
    records = board(none=(1.0, 0.75), good=(0.0, 0.25), half=(0.25, 0.25))
    more = [record("new", "none", 1.0, **change), record("new", "good", 1.0), record("new", "half", 0.0)]
    before, after = rows(records), rows([*records, *more])
    assert {name: (row.worst, row.ranks and row.place) for name, row in after.items() if name != "none"} == {
        name: (row.worst, row.ranks and row.place) for name, row in before.items() if name != "none"
    }


def test_numbers_of_a_board_are_its_own() -> None:
    entry = Entry(schema=1, kind="defense", plugin="x", trust="recomputed")
    failed: Json = {"status": "failed", "hits": {}, "estimates": {}}
    for change, said in (({}, "re-run"), (failed, "recomputed")):
        found = standings(_BOARD, {"x": entry}, [*board(none=(1, 1)), record("gmi", "x", 0.0, **change)])
        assert {row.name: row.trust for row in found.rows}["x"] == said


def test_control_is_no_attack() -> None:
    records = board(none=(1.0, 0.75), good=(0.0, 0.25))
    more = [*records, record("mean", "none", 0.5)]
    assert rows(more)["good"].why == ""
    assert standings(_BOARD, {}, more).attacks == ("gmi", "dmi")


@given(st.data())
def test_gaps_of_one_defense_change_no_other(data: st.DataObject) -> None:
    # else an entry could take the attack that it fears out of the worst case of the whole board
    share = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    records = board(
        none=(1.0, 0.75), a=data.draw(st.tuples(share, share)), b=data.draw(st.tuples(share, share))
    )
    gap = data.draw(st.sampled_from(["missing", "failed", "stale"]))
    extra = [record("gmi", "x", data.draw(share))]
    if gap != "missing":
        change: Json = {"status": "failed", "hits": {}} if gap == "failed" else {"flags": [STALE]}
        extra.append(record("dmi", "x", 1.0, **change))
    before, after = rows(records), rows([*records, *extra])
    assert after["x"].ranks is None
    assert {name: after[name] for name in before} == before
    assert contenders([*records, *extra]) == contenders(records)
