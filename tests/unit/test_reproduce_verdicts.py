"""Numbers and claims on made-up records: what matches, what differs, what cannot be told."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import t

from mibench.reproduce import ReproduceError, claims_of, find_layout
from mibench.reproduce.compared import Number, numbers
from mibench.reproduce.layout import Claim, Column, Kind, Layout
from mibench.reproduce.measured import DATASETS, Cells, Measured, Missing, base_suite
from mibench.reproduce.picture import TINTS
from mibench.reproduce.result import VERDICTS, reproduce
from mibench.reproduce.sheet import SIGNS, evidence_text
from mibench.reproduce.verdicts import Judged, judge
from mibench.statistics import grouped_wilson, wilson
from mibench.suite import load_suite

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
    labels: list[int] | None = None,
    **estimates: tuple[float, float, float, int] | None,
) -> Json:
    """A record of one cell; `hits` are those of its people, `estimates` value, low, high and count.

    Each seed protects other people unless `labels` names them.
    """
    hits = ["1100"] * PEOPLE if hits is None else hits
    people = [1000 * seed + place for place in range(len(hits))] if labels is None else labels
    text = "".join(hits)
    share = text.count("1") / len(text)
    given: Json = {
        "aa": (share, max(0.0, share - 0.1), min(1.0, share + 0.1), len(text)),
        "mc_all": (0.9, 0.88, 0.92, 900),
        "mc_target": (0.9, 0.7, 0.97, 20),
        "mean_feature_distance": (distance, distance, distance, 32),
        **estimates,
    }
    celeba = {"kind": "folder", "num_classes": 1000, "size": [3, 64, 64]}
    made = {"kind": "synthfaces", "num_classes": 100, "size": [3, 32, 32]}
    name = hashlib.sha256(repr((attack, defense, seed, view)).encode()).hexdigest()[:12]
    return {
        "suite": suite, "cell": name, "seed": seed, "view": view, "status": "ok", "chance": 0.01,
        "attack": {"label": attack}, "defense": {"label": defense, "acts": acts},
        "data": celeba if "celeba" in suite else made,
        "judge": {"accuracy": 0.95}, "targets": {"protected": people},
        "metric_info": {key: {"percent": key in {"aa", "mc_all", "mc_target"}} for key in given},
        "estimates": {
            key: None if one is None else dict(zip(("value", "low", "high", "count"), one))
            for key, one in given.items()
        },
        "hits": {str(label): own for label, own in zip(people, hits, strict=True)},
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
    assert (found.verdict, found.why) == ("not shown", "p = 1 after Holm")


def test_too_few_people_cannot_tell_and_the_line_says_how_many_seeds_would_do() -> None:
    few = [record("none", ALL[:5]), record("x", NOBODY[:5])]
    found = verdict(claim("lowers AA"), *few)
    assert found.verdict == "not comparable"
    assert "too few people: if all 5 agreed, p = 0.062" in found.why
    assert "--seed 0 --seed 1." in found.why
    more = [*few, record("none", ALL[:5], seed=1), record("x", NOBODY[:5], seed=1)]
    assert verdict(claim("lowers AA"), *more).verdict == "match"


def test_people_whom_every_seed_protects_count_once_and_more_seeds_do_not_help() -> None:
    records = [
        record(defense, hits, seed=seed, labels=list(range(5)))
        for seed, kept in enumerate((["1111"] * 5, ["0000"] * 5))
        for defense, hits in (("none", ["1111"] * 5), ("x", kept))
    ]
    found = verdict(claim("lowers AA"), *records)
    assert not isinstance(found.evidence, Missing)
    assert (found.evidence.effect, found.evidence.num) == (0.5, 5)
    assert found.why.endswith("Take a suite with more protected people.")
    aa = Cells(records).number("mirror", OTHER, "aa")
    assert isinstance(aa, Measured)
    hits = np.array([True] * 20 + [False] * 20)
    assert (aa.low, aa.high) == grouped_wilson(hits, np.tile(np.repeat(np.arange(5), 4), 2))
    assert "5 protected people in all" in reproduce(find_layout("lpa"), records).notes[0]


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
    assert verdict(both, *good[:2], record("y", ALL)).verdict == "not shown"
    assert verdict(both, *good[:2]).verdict == "not comparable"


def test_an_attack_that_ranks_as_reported() -> None:
    order = claim("attack order", columns=(NONE,), attacks=("mirror", "dmi"))
    strong, weak = record("none", ALL), record("none", NOBODY, attack="dmi")
    assert verdict(order, strong, weak).verdict == "match"
    assert verdict(order, record("none", NOBODY), record("none", ALL, attack="dmi")).verdict == "differs"
    assert verdict(order, strong).why == "the records of suite quick have no attack 'dmi'"


FEW = ["1111"] * 3 + ["0000"] * (PEOPLE - 3)


@pytest.mark.parametrize(
    ("own", "plain", "expected", "why"),
    [
        (record("x", NOBODY), record("none", ALL), "match", "AA at most 10.0 %, p = 0.0078 after Holm"),
        (
            record("x", ["1000"] * PEOPLE), record("none", ALL),
            "differs", "opposite: AA at least 15.0 %, more than 1 point above chance",
        ),
        (  # one person may look like what the attack makes of everybody
            record("x", ["1111", *NOBODY[1:]], aa=(0.125, 0.05, 0.4, 32)), record("none", ALL),
            "not shown", "AA at most 40.0 %, and measured more than 1 point above chance",
        ),
        (  # one hit of 32: above chance by more than a paper's last digit
            record("x", ["1000", *NOBODY[1:]]), record("none", ALL),
            "not shown", "AA at most 13.1 %, and measured more than 1 point above chance",
        ),
        (  # an interval that reaches down to chance is no evidence
            record("x", NOBODY, aa=(0.225, 0.0, 0.6, 32)), record("none", ALL),
            "not shown", "AA at most 60.0 %, and measured more than 1 point above chance",
        ),
        (
            record("x", NOBODY, aa=(0.0, 0.0, 0.6, 32)), record("none", SOME, aa=(0.55, 0.5, 0.6, 32)),
            "not shown", "AA at most 60.0 %, no less than the undefended 55.0 %",
        ),
        (  # three people of eight were found at all
            record("x", NOBODY), record("none", FEW),
            "not shown", "AA at most 10.0 %, but the drop has p = 0.25 after Holm",
        ),
        (
            record("x", NOBODY), record("none", NOBODY),
            "not comparable", "the undefended attack does no better than guessing: nothing to stop",
        ),
    ],
)  # fmt: skip
def test_an_attack_that_does_no_better_than_guessing(own: Json, plain: Json, expected: str, why: str) -> None:
    found = verdict(claim("at chance", limit=0.01), plain, own)
    assert (found.verdict, found.why) == (expected, why)
    if not isinstance(found.evidence, Missing):
        assert (found.evidence.num, found.evidence.of) == (PEOPLE, "people")


def test_one_drop_that_two_claims_rest_on_counts_once() -> None:
    cells = Cells([record("none", ALL), record("x", NOBODY)])
    found = judge([claim("lowers AA"), claim("at chance", limit=0.01)], cells)
    assert [one.p_holm for one in found] == [2 / 2**PEOPLE] * 2


@pytest.mark.parametrize(
    ("own", "expected", "why"),
    [
        ((0.895, 0.885, 0.905, 900), "match", "the interval bears it"),
        ((0.86, 0.84, 0.88, 900), "not shown", "the interval reaches beyond the limit"),
        ((0.5, 0.48, 0.52, 900), "differs", "opposite: "),
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
        ((0.9, 0.88, 0.92, 900), "not shown", "not shown"),
    ],
)
def test_accuracy_that_falls_or_rises(own: Any, costs: str, raises: str) -> None:
    records = record("none"), record("x", mc_all=own)
    assert verdict(claim("costs accuracy"), *records).verdict == costs
    assert verdict(claim("raises accuracy"), *records).verdict == raises


def test_a_difference_of_fractions_ends_at_100_points() -> None:
    records = [
        record(defense, seed=seed, mc_all=(value, value - 0.01, value + 0.01, 900))
        for defense, values in (("none", (0.9, 0.2)), ("x", (0.1, 0.8)))
        for seed, value in enumerate(values)
    ]
    for one in (claim("costs accuracy"), claim("keeps accuracy", limit=0.05)):
        found = verdict(one, *records)
        assert not isinstance(found.evidence, Missing)
        assert (found.verdict, found.evidence.low, found.evidence.high) == ("not shown", -1, 1)


def test_an_error_that_rises_and_one_without_an_interval() -> None:
    plain, own = record("none", mse=(0.01, 0.009, 0.011, 100)), record("x", mse=(0.02, 0.018, 0.022, 100))
    raised = claim("raises error", metric="mse")
    assert verdict(raised, plain, own).verdict == "match"
    flat = record("none", mse=(0.01, 0.01, 0.01, 100)), record("x", mse=(0.02, 0.02, 0.02, 100))
    assert "neither number has an interval" in verdict(raised, *flat).why
    assert "have no mse of this cell" in verdict(raised, plain, record("x", mse=None)).why


def test_distances_are_counted_seed_by_seed_however_many_attacks_there_are() -> None:
    moved = claim("raises distance", attacks=("mirror", "dmi"), metric="mean_feature_distance")
    records = [
        record(defense, seed=seed, attack=attack, distance=50.0 + 10 * (defense == "x"))
        for seed in range(8)
        for attack in ("mirror", "dmi")
        for defense in ("none", "x")
    ]
    found = verdict(moved, *records)
    assert (found.verdict, found.p_holm) == ("match", 2 / 2**8)
    few = verdict(moved, *records[:20])
    assert (few.verdict, few.p_holm) == ("not comparable", None)
    assert few.why == "5 seeds give 5 independent cells; too few, a sign test needs 6"
    assert evidence_text(few) == "+20.0 % [+20.0 to +20.0], 5 seeds"
    one = verdict(moved, *records[:4])
    assert one.why == "1 seed gives 1 independent cell; too few, a sign test needs 6"
    assert evidence_text(one) == "+20.0 %, 1 seed"


def test_seeds_too_few_for_a_sign_test_do_not_cost_the_other_claims_power() -> None:
    cells = Cells([record("none", ALL), record("x", NOBODY, distance=60.0)])
    moved = claim("raises distance", metric="mean_feature_distance")
    assert judge([claim("lowers AA"), moved], cells)[0].p_holm == 2 / 2**PEOPLE


def test_a_judge_above_the_victim() -> None:
    above = claim("judge above victim", attacks=(), reference=NONE, columns=(NONE,))
    assert verdict(above, record("none")).verdict == "match"
    assert verdict(above, record("none", mc_all=(0.99, 0.985, 0.995, 900))).verdict == "differs"


def test_disputed_claims_do_not_count_and_p_values_are_adjusted_over_the_others() -> None:
    cells = Cells([record("none", ALL), record("x", NOBODY)])
    first, second = claim("lowers AA"), claim("costs accuracy")
    disputed = claim("lowers AA", disputed="the paper does not say so")
    found = judge([first, second, disputed], cells)
    assert [one.verdict for one in found] == ["match", "not shown", "not comparable"]
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "synthfaces"}, "synthfaces, 64 px, 1000 people"),
        ({"size": [3, 32, 32]}, "folder, 32 px, 1000 people"),
        ({"num_classes": 50}, "folder, 64 px, 50 people"),
    ],
)
def test_a_suite_that_only_bears_the_name_has_other_data(change: Json, words: str) -> None:
    mirror = record("none", suite="celeba-64", aa=(0.7, 0.6, 0.8, 100))
    changed = {**mirror, "data": {**mirror["data"], **change}}
    found = entries([changed], ("CelebA", "", "Mirror"), "none")
    assert found["AA"].verdict == "not comparable"
    assert found["AA"].why == f"other data: CelebA there, {words} here"


@pytest.mark.parametrize("name", list(DATASETS))
def test_the_data_of_a_paper_are_those_of_the_suite(name: str) -> None:
    data = load_suite(name).data
    assert (data.kind, data.size, data.private) == ("folder", *DATASETS[name][1:])


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


def over(*records: Json, metric: str) -> Measured:
    found = Cells(records).number("mirror", OTHER, metric)
    assert isinstance(found, Measured)
    return found


def test_accuracies_of_several_seeds_are_pooled_over_people() -> None:
    aa = over(record("x", ["1111", "1100"]), record("x", ["0000", "1000"], seed=1), metric="aa")
    hits = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    expected = grouped_wilson(np.array(hits, dtype=bool), np.repeat(np.arange(4), 4))
    assert (aa.value, aa.count, aa.seeds) == (7 / 16, 16, 2)
    assert (aa.low, aa.high) == expected


def test_seeds_that_share_their_test_images_do_not_narrow_an_interval() -> None:
    own = (0.9, 0.88, 0.92, 900)
    alike = over(*(record("x", seed=seed, mc_all=own) for seed in range(4)), metric="mc_all")
    assert math.isclose(alike.low, 0.88)
    assert math.isclose(alike.high, 0.92)
    apart = over(record("x", mc_all=own), record("x", seed=1, mc_all=(0.7, 0.68, 0.72, 900)), metric="mc_all")
    within, between = 0.02 / 1.959964, 0.1  # two values 0.2 apart: variance 0.02, over two seeds 0.01
    error = math.hypot(within, between)
    reach = float(t.ppf(0.975, error**4 / between**4)) * error
    assert math.isclose(apart.value, 0.8)
    assert reach > 0.8  # two seeds have one degree of freedom
    assert (apart.low, apart.high) == (0.0, 1.0)
    assert math.isclose(apart.error, error, rel_tol=1e-6)
    errors = [
        record("x", seed=seed, mse=(value, value - 0.1, value + 0.1, 9))
        for seed, value in ((0, 3.0), (1, 1.0))
    ]
    assert over(*errors, metric="mse").high > 3  # no fraction, so not cut at 1


def test_accuracy_on_protected_people_over_seeds() -> None:
    sure, half = (1.0, 0.6, 1.0, 20), (0.5, 0.3, 0.7, 20)
    two = over(record("x", mc_target=sure), record("x", seed=1, mc_target=sure), metric="mc_target")
    assert (two.value, two.low, two.high) == (1.0, *wilson(2 * PEOPLE, 2 * PEOPLE))
    same = [record("x", seed=seed, mc_target=sure, labels=list(range(PEOPLE))) for seed in (0, 1)]
    assert over(*same, metric="mc_target").low == wilson(PEOPLE, PEOPLE)[0]
    mixed = over(record("x", mc_target=sure), record("x", seed=1, mc_target=half), metric="mc_target")
    assert (mixed.value, mixed.low, mixed.high) == (0.75, 0.0, 1.0)


def test_distances_without_intervals_have_none_over_seeds() -> None:
    records = [record("x", seed=seed, distance=50.0 + 10 * seed) for seed in (0, 1)]
    found = over(*records, metric="mean_feature_distance")
    assert (found.value, found.has_interval) == (55.0, False)


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
    flat = record("lpa", attack="ami", mse=(0.01, 0.009, 0.011, 100))
    assert reproduce(layout, [kept, flat]).verdict == "not shown"
    worse = record("lpa", attack="ami", mse=(0.005, 0.004, 0.006, 100))
    assert reproduce(layout, [kept, worse]).verdict == "differs"
    assert reproduce(layout, [kept]).verdict == "not comparable"
    summary = reproduce(layout, [kept, worse]).summary
    assert summary.startswith("Claims: 0 match, 1 differ, 1 not shown, 6 not comparable.")


def test_verdicts_differ_in_sign_and_in_gray() -> None:
    assert set(SIGNS) == set(TINTS) == set(VERDICTS)
    assert len(set(SIGNS.values())) == len(SIGNS)
    grays = sorted(float(np.dot(to_rgb(color), (0.299, 0.587, 0.114))) for color in TINTS.values())
    assert min(np.diff(grays)) > 0.05


def test_a_perfect_paper_on_two_seeds_of_five_people_can_be_told() -> None:
    """With ten people no claim of the largest table is out of reach, so two seeds are enough."""
    layout = find_layout("tifs23/table2")
    records = made_up(layout, seeds=2, people=5)
    found = judge(claims_of(layout), Cells(records))
    verdicts: dict[str, set[str]] = {}
    for one in found:
        verdicts.setdefault(one.claim.kind, set()).add(one.verdict)
    assert verdicts == {
        "lowers AA": {"match"},
        "at chance": {"match"},
        "keeps accuracy": {"match"},
        "costs accuracy": {"match"},
        "raises distance": {"not comparable"},  # two seeds
        "attack order": {"not shown", "not comparable"},  # all are alike, and one is disputed
    }


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
