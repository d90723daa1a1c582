"""Numbers and claims on made-up records: what matches, what differs, what cannot be told."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest

from mibench.reproduce import ReproduceError, claims_of, find_layout
from mibench.reproduce.compared import Number, numbers
from mibench.reproduce.layout import Claim, Column, Kind, Layout
from mibench.reproduce.measured import Cells, Measured, Missing, base_suite
from mibench.reproduce.result import reproduce
from mibench.reproduce.verdicts import Judged, judge
from mibench.statistics import grouped_wilson, wilson

NONE, OTHER = Column(heading="none", defense="none"), Column(heading="X", defense="x")
PEOPLE = 8
Json = dict[str, Any]


def record(
    defense: str = "none",
    hits: list[str] | None = None,
    *,
    attack: str = "mirror",
    seed: int = 0,
    suite: str = "quick",
    view: str = "stripped",
    acts: str = "training",
    distance: float = 50.0,
    **estimates: tuple[float, float, float, int] | None,
) -> Json:
    """A record of one cell; `hits` are those of its people, `estimates` value, low, high and count."""
    hits = ["1100"] * PEOPLE if hits is None else hits
    text = "".join(hits)
    share = text.count("1") / len(text)
    given: Json = {
        "aa": (share, max(0.0, share - 0.1), min(1.0, share + 0.1), len(text)),
        "mc_all": (0.9, 0.88, 0.92, 900),
        "mc_target": (0.9, 0.7, 0.97, 20),
        "mean_feature_distance": (distance, distance, distance, 32),
        **estimates,
    }
    name = hashlib.sha256(repr((attack, defense, seed, view)).encode()).hexdigest()[:12]
    return {
        "suite": suite, "cell": name, "seed": seed, "view": view, "status": "ok", "chance": 0.01,
        "attack": {"label": attack}, "defense": {"label": defense, "acts": acts},
        "data": {
            "kind": "folder" if "celeba" in suite else "synthfaces", "num_classes": 100, "size": [3, 32, 32],
        },
        "judge": {"accuracy": 0.95}, "targets": {"protected": list(range(len(hits)))},
        "estimates": {
            key: None if one is None else dict(zip(("value", "low", "high", "count"), one))
            for key, one in given.items()
        },
        "hits": {str(label): own for label, own in enumerate(hits)},
    }  # fmt: skip


def claim(kind: Kind, **changes: Any) -> Claim:
    fields: Json = {"columns": (OTHER,), "reference": NONE, "attacks": ("mirror",), "metric": "mc_all"}
    return Claim(id=kind, sentence=kind, kind=kind, **{**fields, **changes})


def verdict(one: Claim, *records: Json) -> Judged:
    (found,) = judge([one], Cells(records))
    return found


ALL, NOBODY, SOME = ["1111"] * PEOPLE, ["0000"] * PEOPLE, ["1110", "1100"] * (PEOPLE // 2)


def test_a_defense_that_lowers_the_accuracy_of_everybody_matches() -> None:
    found = verdict(claim("lowers AA"), record("none", ALL), record("x", NOBODY))
    assert found.verdict == "match"
    assert found.p_holm == 2 / 2**PEOPLE


def test_a_defense_that_raises_it_is_opposite() -> None:
    found = verdict(claim("lowers AA"), record("none", NOBODY), record("x", ALL))
    assert (found.verdict, found.why[:8]) == ("differs", "opposite")


def test_a_defense_that_changes_nothing_is_not_shown() -> None:
    found = verdict(claim("lowers AA"), record("none", ALL), record("x", ALL))
    assert (found.verdict, found.why[:9]) == ("differs", "not shown")


def test_too_few_people_cannot_tell_and_the_line_says_how_many_seeds_would_do() -> None:
    few = [record("none", ALL[:5]), record("x", NOBODY[:5])]
    found = verdict(claim("lowers AA"), *few)
    assert found.verdict == "not comparable"
    assert "too few people: if all 5 agreed, p = 0.062" in found.why
    assert "--seed 0 --seed 1." in found.why
    more = [*few, record("none", ALL[:5], seed=1), record("x", NOBODY[:5], seed=1)]
    assert verdict(claim("lowers AA"), *more).verdict == "match"


def test_people_are_paired_and_attacks_pooled() -> None:
    both = claim("lowers AA", attacks=("mirror", "dmi"))
    records = [
        record(defense, hits, attack=attack)
        for attack, plain, kept in (("mirror", ALL, NOBODY), ("dmi", NOBODY, NOBODY))
        for defense, hits in (("none", plain), ("x", kept))
    ]
    found = verdict(both, *records)
    assert not isinstance(found.evidence, Missing)
    assert (found.evidence.effect, found.evidence.num) == (0.5, PEOPLE)


def test_all_of_several_must_lower_it() -> None:
    third = Column(heading="Y", defense="y")
    both = claim("all lower AA", columns=(OTHER, third))
    good = [record("none", ALL), record("x", NOBODY), record("y", NOBODY)]
    assert verdict(both, *good).verdict == "match"
    assert verdict(both, *good[:2], record("y", ALL)).verdict == "differs"
    assert verdict(both, *good[:2]).verdict == "not comparable"


def test_an_attack_that_ranks_as_reported() -> None:
    order = claim("attack order", columns=(NONE,), attacks=("mirror", "dmi"))
    strong, weak = record("none", ALL), record("none", NOBODY, attack="dmi")
    assert verdict(order, strong, weak).verdict == "match"
    assert verdict(order, record("none", NOBODY), record("none", ALL, attack="dmi")).verdict == "differs"
    assert verdict(order, strong).why == "the records of suite quick have no attack 'dmi'"


@pytest.mark.parametrize(
    ("own", "plain", "expected"),
    [
        ((0.02, 0.0, 0.1, 32), (0.6, 0.5, 0.7, 32), "match"),
        ((0.2, 0.1, 0.3, 32), (0.6, 0.5, 0.7, 32), "differs"),
        ((0.02, 0.0, 0.8, 32), (0.6, 0.5, 0.7, 32), "not comparable"),  # too wide to tell
        ((0.02, 0.0, 0.1, 32), (0.1, 0.0, 0.2, 32), "not comparable"),  # nothing to stop
    ],
)
def test_an_attack_that_does_no_better_than_guessing(own: Any, plain: Any, expected: str) -> None:
    found = verdict(claim("at chance"), record("none", aa=plain), record("x", aa=own))
    assert found.verdict == expected
    assert found.p_holm is None


@pytest.mark.parametrize(
    ("own", "expected", "why"),
    [
        ((0.895, 0.885, 0.905, 900), "match", "the interval bears it"),
        ((0.86, 0.84, 0.88, 900), "differs", "not shown"),
        ((0.5, 0.48, 0.52, 900), "differs", "opposite"),
    ],
)
def test_accuracy_is_kept_where_the_whole_interval_of_the_drop_is_within_the_limit(
    own: Any, expected: str, why: str
) -> None:
    kept = claim("keeps accuracy", limit=0.05)
    found = verdict(kept, record("none"), record("x", mc_all=own))
    assert (found.verdict, found.why[: len(why)]) == (expected, why)


@pytest.mark.parametrize(
    ("own", "costs", "raises"),
    [
        ((0.5, 0.48, 0.52, 900), "match", "differs"),
        ((0.99, 0.98, 1.0, 900), "differs", "match"),
        ((0.9, 0.88, 0.92, 900), "differs", "differs"),
    ],
)
def test_accuracy_that_falls_or_rises(own: Any, costs: str, raises: str) -> None:
    records = record("none"), record("x", mc_all=own)
    assert verdict(claim("costs accuracy"), *records).verdict == costs
    assert verdict(claim("raises accuracy"), *records).verdict == raises


def test_an_error_that_rises_and_one_without_an_interval() -> None:
    plain, own = record("none", mse=(0.01, 0.009, 0.011, 100)), record("x", mse=(0.02, 0.018, 0.022, 100))
    raised = claim("raises error", metric="mse")
    assert verdict(raised, plain, own).verdict == "match"
    flat = record("none", mse=(0.01, 0.01, 0.01, 100)), record("x", mse=(0.02, 0.02, 0.02, 100))
    assert "neither number has an interval" in verdict(raised, *flat).why
    assert "have no mse of this cell" in verdict(raised, plain, record("x", mse=None)).why


def test_distances_are_counted_cell_by_cell() -> None:
    moved = claim("raises distance", metric="mean_feature_distance")
    records = [
        record(defense, seed=seed, distance=50.0 + 10 * (defense == "x") * sign)
        for seed in range(8)
        for sign in (1,)
        for defense in ("none", "x")
    ]
    found = verdict(moved, *records)
    assert (found.verdict, found.p_holm) == ("match", 2 / 2**8)
    assert "too few cells" in verdict(moved, *records[:8]).why


def test_a_judge_above_the_victim() -> None:
    above = claim("judge above victim", attacks=(), reference=NONE, columns=(NONE,))
    assert verdict(above, record("none")).verdict == "match"
    assert verdict(above, record("none", mc_all=(0.99, 0.985, 0.995, 900))).verdict == "differs"


def test_disputed_claims_do_not_count_and_p_values_are_adjusted_over_the_others() -> None:
    cells = Cells([record("none", ALL), record("x", NOBODY)])
    first, second = claim("lowers AA"), claim("costs accuracy")
    disputed = claim("lowers AA", disputed="the paper does not say so")
    found = judge([first, second, disputed], cells)
    assert [one.verdict for one in found] == ["match", "differs", "not comparable"]
    assert found[0].p_holm == 2 * 2 / 2**PEOPLE
    assert found[2].why == "the paper does not say so"


def entries(records: list[Json], place: tuple[str, str, str], column: str) -> dict[str, Number]:
    layout = find_layout("tifs23/table2")
    return {
        one.measure.printed: one
        for one in numbers(layout, Cells(records))
        if (one.place, one.column.defense) == (place, column)
    }


def test_a_number_matches_where_it_lies_in_the_interval_of_the_papers_data() -> None:
    suite = "tifs23-table2-celeba-64"
    mirror = record("none", attack="mirror", suite=suite, aa=(0.7, 0.6, 0.8, 100))
    found = entries([mirror], ("CelebA", "", "Mirror"), "none")
    assert found["AA"].verdict == "match"
    assert math.isclose(found["AA"].difference, 0.01)
    assert (found["MC_all"].verdict, found["MC_all"].reported) == ("differs", 0.8746)
    assert "below the measured 95 % interval" in found["MC_all"].why
    assert (found["FID"].verdict, found["FID"].difference) == ("not comparable", -48)
    other = entries([mirror], ("VGG-Face", "", "Mirror"), "none")
    assert other["AA"].why == "other data: suite celeba-64 has CelebA"


def test_other_data_and_missing_cells_are_not_comparable() -> None:
    layout = find_layout("tifs23/table2")
    failed = {**record("gan_d"), "status": "failed", "error": {"stage": "train", "message": "diverged"}}
    records = [record("none", ALL), failed, record("ad_mi", ALL, acts="output")]
    found = reproduce(layout, records, is_whole=True)
    assert {one.verdict for one in found.numbers} == {"not comparable"}
    why = {(one.column.defense, one.column.view, one.place[2]): one.why for one in found.numbers}
    assert why["none", "stripped", "Mirror"].startswith("other data: ")
    assert why["none", "stripped", "DMI"] == "suite quick has no attack 'dmi'"
    assert why["dp_sgd", "stripped", "Mirror"] == "suite quick has no defense 'dp_sgd'"
    assert why["gan_d", "stripped", "Mirror"] == "the cell has no number: train: diverged"
    assert why["ad_mi", "deployed", "Mirror"] == "suite quick has no cell in the deployed view"
    stripped = next(
        one.measured
        for one in found.numbers
        if one.column.heading == "Ad-mi (stripped, ours)" and one.place[2] == "Mirror" and one.metric == "aa"
    )
    assert isinstance(stripped, Measured)


def test_the_deployed_view_is_taken_where_it_is_there_and_equal_where_nothing_acts_on_the_output() -> None:
    deployed = Column(heading="", defense="ad_mi", view="deployed")
    cells = Cells(
        [
            record("ad_mi", ALL, acts="output"),
            record("ad_mi", NOBODY, acts="output", view="deployed"),
            record("x", SOME),
            record("ad_mi", SOME, attack="ami", acts="output", view="black-box"),
        ]
    )
    assert value(cells.number("mirror", deployed, "aa")) == 0
    assert value(cells.number("mirror", Column(heading="", defense="ad_mi"), "aa")) == 1
    assert value(cells.number("mirror", Column(heading="", defense="x", view="deployed"), "aa")) == 0.625
    assert value(cells.number("ami", deployed, "aa")) == 0.625


def value(found: Measured | Missing) -> float:
    assert isinstance(found, Measured)
    return found.value


def test_several_seeds_are_one_number() -> None:
    cells = Cells(
        [
            record("x", ["1111", "1100"], mc_target=(0.9, 0.7, 0.97, 20)),
            record(
                "x", ["0000", "1000"], seed=1, mc_all=(0.8, 0.78, 0.82, 900), mc_target=(0.6, 0.4, 0.8, 20)
            ),
        ]
    )
    aa = cells.number("mirror", OTHER, "aa")
    assert isinstance(aa, Measured)
    hits = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    import numpy as np

    expected = grouped_wilson(np.array(hits, dtype=bool), np.repeat(np.arange(4), 4))
    assert (aa.value, aa.count, aa.seeds) == (7 / 16, 16, 2)
    assert (aa.low, aa.high) == expected
    target = cells.number("mirror", OTHER, "mc_target")
    assert isinstance(target, Measured)
    assert (target.low, target.high) == wilson(30, 40)
    mean = cells.number("mirror", OTHER, "mc_all")
    assert isinstance(mean, Measured)
    assert math.isclose(mean.value, 0.85)
    assert math.isclose(mean.high - mean.low, 0.04 / math.sqrt(2))


def test_seeds_can_be_picked_and_records_must_be_of_one_suite() -> None:
    both = [record("x", ALL), record("x", NOBODY, seed=1)]
    assert value(Cells(both, (1,)).number("mirror", OTHER, "aa")) == 0
    with pytest.raises(ReproduceError, match=r"the records are none"):
        Cells(both, (7,))
    with pytest.raises(ReproduceError, match=r"come from 2 suites: quick, other"):
        Cells([*both, record("x", attack="dmi", suite="other")])


@pytest.mark.parametrize(
    ("name", "base"),
    [("tifs23-table2-quick", "quick"), ("bido-defenses", "defenses"), ("tifs23-fig2-celeba-64", "celeba-64"),
     ("lpa-instances", "instances"), ("quick", "quick"), ("bido-", "bido-"), ("ssd-table1-mine-2", "mine-2")],
)  # fmt: skip
def test_a_derived_suite_is_known_by_the_name_of_its_origin(name: str, base: str) -> None:
    assert base_suite(name) == base


def test_the_verdict_of_a_table_is_its_worst() -> None:
    layout = find_layout("lpa")
    plain = record("none", attack="ami", mse=(0.01, 0.009, 0.011, 100))
    good = record("lpa", attack="ami", mse=(0.02, 0.018, 0.022, 100), mc_all=(0.9, 0.899, 0.901, 9000))
    kept = {**plain, "estimates": {**plain["estimates"], "mc_all": good["estimates"]["mc_all"]}}
    assert reproduce(layout, [kept, good]).verdict == "match"
    assert (
        reproduce(layout, [kept, record("lpa", attack="ami", mse=(0.01, 0.009, 0.011, 100))]).verdict
        == "differs"
    )
    assert reproduce(layout, [kept]).verdict == "not comparable"


def test_a_perfect_paper_on_two_seeds_of_five_people_can_be_told() -> None:
    """With ten people no claim of the largest table is out of reach, so two seeds are enough."""
    layout = find_layout("tifs23/table2")
    records = made_up(layout, seeds=2, people=5)
    found = judge(claims_of(layout), Cells(records))
    assert {one.verdict for one in found} <= {"match", "differs"} | {
        one.verdict for one in found if one.claim.kind in {"at chance", "attack order"}
    }
    lowered = [one for one in found if one.claim.kind == "lowers AA"]
    assert {one.verdict for one in lowered} == {"match"}


def made_up(layout: Layout, *, seeds: int, people: int) -> list[Json]:
    """Records in which every defense stops everything."""
    return [
        record(
            column.defense, ["1111" if column.defense == "none" else "0000"] * people,
            attack=attack, seed=seed, view="deployed" if column.view == "deployed" else "stripped",
            distance=50.0 if column.defense == "none" else 60.0,
            mc_all=(0.5, 0.48, 0.52, 900) if column.defense == "dp_sgd" else (0.9, 0.895, 0.905, 9000),
        )
        for column in layout.columns
        for attack in layout.attacks.values()
        for seed in range(seeds)
    ]  # fmt: skip
