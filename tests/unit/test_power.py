"""What a suite can see: power at the difference that is found, order in people, what cannot be seen."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mibench.forecast import sight
from mibench.plan import build_plan
from mibench.power import (
    MEASURED,
    POWER,
    People,
    _Trial,
    measured,
    sight_line,
    smallest_difference,
)
from mibench.record import SCHEMA, Record
from mibench.statistics import FLIPS, holm, sign_flip
from mibench.suite import Suite


def power_by_the_real_test(people: int, images: int, difference: float, rivals: int, runs: int) -> float:
    """Share of experiments in which one defense that helps is found among others that do nothing.

    Written apart from the module: the package's own sign_flip and holm, and all rivals drawn.
    """
    random = np.random.default_rng(20)
    mean, spread, kept = MEASURED.mean, MEASURED.spread, MEASURED.kept
    total = mean * (1 - mean) / spread**2 - 1
    found = 0
    for _ in range(runs):
        rates = random.beta(mean * total, (1 - mean) * total, people)
        plain = random.binomial(images, rates) / images
        p_values = []
        for rival in range(rivals):
            own = np.array([
                rate if random.random() < kept else random.beta(mean * total, (1 - mean) * total)
                for rate in rates
            ])  # fmt: skip
            lowered = own * (1 - difference / mean) if rival == 0 else own
            p_values.append(sign_flip(random.binomial(images, lowered) / images - plain))
        found += bool(holm(np.array(p_values))[0] < 0.05)
    return found / runs


@pytest.mark.parametrize(("people", "rivals"), [(8, 1), (10, 2)])
def test_the_found_difference_is_seen_four_times_out_of_five(people: int, rivals: int) -> None:
    sight = smallest_difference(people, 8, rivals)
    assert sight.difference is not None
    power = power_by_the_real_test(people, 8, sight.difference, rivals, runs=350)
    assert power == pytest.approx(POWER, abs=0.05)
    assert power_by_the_real_test(people, 8, 0.6 * sight.difference, rivals, runs=80) < POWER - 0.1


def test_more_people_see_less_and_more_rivals_see_worse() -> None:
    sights = [smallest_difference(people, 8, 4).difference for people in (12, 20, 40, 60, 61, 120)]
    found = [one for one in sights if one is not None]
    assert len(found) == len(sights)
    assert all(later <= earlier + 0.01 for earlier, later in pairwise(found))
    assert found[-1] < 0.6 * found[0]
    one, many = (smallest_difference(40, 8, rivals).difference or math.nan for rivals in (1, 26))
    assert one < many


def test_five_people_cannot_tell_six_defenses_apart() -> None:
    sight = smallest_difference(5, 8, 6)
    assert sight.difference is None
    assert sight.least_p == pytest.approx(6 * 2 / 2**5)
    assert sight.text == "none among 6 (the least p after Holm is 0.38)"
    assert smallest_difference(1, 8, 1).least_p == 1.0


def test_where_not_even_full_protection_can_be_seen_that_is_said() -> None:
    weak = People(mean=0.05, spread=0.05, kept=0.9)
    sight = smallest_difference(10, 4, 1, weak)
    assert (sight.difference, sight.text) == (None, "none among 1 (not even AA 0)")


def test_p_values_are_those_of_the_package() -> None:
    random = np.random.default_rng(3)
    for people in (7, 40, 80):
        differences = random.integers(-7, 10, size=(20, people)) / 8
        expected = np.array([sign_flip(one) for one in differences])
        found = _Trial(people, 8, MEASURED).p_values(differences)
        if people == 7:  # all patterns are tried
            assert found == pytest.approx(expected)
        # two draws of 9999 patterns: four standard errors of twice a share
        error = 4 * 2 * np.sqrt(2 * expected / 2 * (1 - expected / 2) / FLIPS)
        assert (np.abs(found - expected) <= error + 0.002).all()
        assert (found < 0.1).any()
    assert inspect.signature(sign_flip).parameters["draws"].default == FLIPS


def test_one_line_names_every_number_of_rivals_once() -> None:
    line = sight_line(10, 8, [26, 1, 0, 26])
    assert "10 people \N{MULTIPLICATION SIGN} 8 images" in line
    assert line.count("among 26") == 1
    assert line.endswith("none among 26 (the least p after Holm is 0.051).")
    assert "there is no defense" in sight_line(10, 8, [0])


def test_a_line_takes_less_than_a_second() -> None:
    started = time.process_time()
    sight_line(60, 50, [26])
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("labels", "size"),
    [([1], "1 person \N{MULTIPLICATION SIGN} 4 images"), ([], "2 people \N{MULTIPLICATION SIGN} 2 images")],
)
def test_a_plan_counts_who_is_protected_in_several_seeds_once(
    make_suite: Callable[..., Suite], labels: list[int], size: str
) -> None:
    targets = {"protected": 1, "bystanders": 1, "attacked": 2, "images": 2, "labels": labels}
    suite = make_suite(seeds=[0, 3], targets=targets, defenses={"none": {}, "dp_sgd": {}})
    assert f" {size} can show" in sight(build_plan(suite))


def test_the_model_of_people_is_recovered_from_records() -> None:
    truth = People(mean=0.4, spread=0.25, kept=0.5)
    total = truth.mean * (1 - truth.mean) / truth.spread**2 - 1
    random = np.random.default_rng(0)
    labels, images = 1500, 6
    rates, fresh = random.beta(truth.mean * total, (1 - truth.mean) * total, size=(2, labels))
    defended = np.where(random.random(labels) < truth.kept, rates, fresh)
    records = [record("none", "nothing", rates, images), record("bido", "training", defended, images)]
    found = measured([*records, record("netguard", "fine-tuning", fresh, images)], "mirror")
    assert found.mean == pytest.approx(truth.mean, abs=0.03)
    assert found.spread == pytest.approx(truth.spread, abs=0.02)
    assert found.kept == pytest.approx(truth.kept, abs=0.08)
    with pytest.raises(ValueError, match="'dmi' was not measured"):
        measured(records, "dmi")


@pytest.mark.parametrize(
    ("rates", "images", "told"),
    [
        ([0.2, 0.5, 0.8], 1, "3 people, 1 images each. Give records of two"),
        ([0.5], 4, "1 people, 4 images each"),
        ([1.0, 1.0, 1.0], 4, "the people differ by no more than chance"),
    ],
)
def test_records_that_tell_no_spread_are_refused(rates: list[float], images: int, told: str) -> None:
    records = [record("none", "nothing", rates, images), record("bido", "training", rates, images)]
    with pytest.raises(ValueError, match=told):
        measured(records, "mirror")


def record(defense: str, acts: str, rates: Any, images: int) -> Record:
    """A record of hits drawn from rates."""
    random = np.random.default_rng(list(defense.encode()))
    hits = {
        str(i): "".join("1" if random.random() < rate else "0" for _ in range(images))
        for i, rate in enumerate(rates)
    }
    return Record(
        suite="s", cell="0" * 12, view="stripped", seed=0, victim_net="small_vgg", status="ok", chance=0.1,
        attack={"label": "mirror", "control": False, "params": {}}, data={"digest": "d"},
        judge={}, targets={},
        defense={"label": defense, "acts": acts}, hits=hits, schema=SCHEMA,
    )  # fmt: skip


def test_people_that_no_beta_distribution_has_are_refused() -> None:
    with pytest.raises(ValueError, match="no beta distribution"):
        People(mean=0.5, spread=0.5, kept=0.5)
    with pytest.raises(ValueError, match="kept must lie"):
        People(mean=0.5, spread=0.1, kept=1.5)
