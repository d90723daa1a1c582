"""Rates: known values, intervals, independence of the order of rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mibench.data.split import Labeled
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.registry import get_metric
from mibench.statistics import wilson

from .conftest import CLASSES, labeled, one_hots

MakeCase = Callable[..., Case]
RATES = ("aa", "aa5", "aa_all", "aa_null", "mc_all", "mc_target", "far_decoy", "far_public")


def measure(name: str, case: Case, *, seed: int = 0) -> Estimate:
    got = get_metric(name)().measure(case, Context(seed=seed))
    assert got is not None
    return got


@pytest.mark.parametrize("name", RATES)
def test_rates_are_shown_in_percent_and_named_like_their_file(name: str) -> None:
    assert get_metric(name).percent
    assert get_metric(name).name == name


def test_aa_counts_the_judges_first_guess(make_case: MakeCase) -> None:
    case = make_case(one_hots([0, 0, 1, 2]), [0, 1, 1, 1])
    assert measure("aa", case).value == 0.5
    assert measure("aa", case).count == 4


def test_aa_leaves_bystanders_out_and_aa_all_does_not(make_case: MakeCase) -> None:
    case = make_case(one_hots([0, 1, 3]), [0, 2, 3], protected=[0, 2])
    assert measure("aa", case).value == 0.5
    assert measure("aa_all", case).value == pytest.approx(2 / 3)


def test_aa_of_one_target_has_wilsons_interval(make_case: MakeCase) -> None:
    case = make_case(one_hots([1, 1, 1, 0]), [1, 1, 1, 1])
    got = measure("aa", case)
    assert (got.low, got.high) == wilson(3, 4)


def test_aa_of_several_targets_counts_targets_and_not_images(make_case: MakeCase) -> None:
    """Two targets, one always hit and one never, tell nothing of other targets, whatever the images."""
    case = make_case(one_hots([0] * 20 + [2] * 20), [0] * 20 + [1] * 20)
    got = measure("aa", case)
    assert (got.value, got.low, got.high) == pytest.approx((0.5, 0.0, 1.0), abs=0.002)


def test_aa_of_no_success_keeps_a_width(make_case: MakeCase) -> None:
    case = make_case(one_hots([3] * 6), [0, 0, 1, 1, 2, 2])
    got = measure("aa", case)
    assert got.value == got.low == 0.0
    assert got.high == wilson(0, 3)[1]


@pytest.mark.parametrize(("target", "top5"), [(7, 1.0), (3, 1.0), (2, 0.0)])
def test_aa5_takes_the_first_five(target: int, top5: float, make_case: MakeCase) -> None:
    case = make_case([tuple(place / CLASSES for place in range(CLASSES))], [target])
    assert measure("aa", case).value == float(target == CLASSES - 1)
    assert measure("aa5", case).value == top5


def test_a_judge_that_cannot_tell_accepts_nothing(make_case: MakeCase) -> None:
    case = make_case([(0.5,) * CLASSES, (0.5,) * CLASSES], [0, 1])
    assert measure("aa5", case).value == 0.0
    case.logits = torch.full((2, CLASSES), torch.nan)
    assert measure("aa5", case).value == 0.0


def test_aa_null_is_zero_for_the_right_people(make_case: MakeCase) -> None:
    case = make_case(one_hots([0, 1, 2]), [0, 1, 2])
    assert measure("aa_null", case).value == 0.0


def test_aa_null_is_the_mean_over_all_derangements(make_case: MakeCase) -> None:
    """Three labels have two derangements; counted by hand, the guesses below hit 2 and 1 of 4."""
    guesses, targets = [1, 2, 0, 3], [0, 1, 1, 2]
    hits = []
    for exchanged in ({0: 1, 1: 2, 2: 0}, {0: 2, 1: 0, 2: 1}):
        hits.append(sum(guess == exchanged[target] for guess, target in zip(guesses, targets)) / 4)
    assert hits == [0.5, 0.25]
    assert measure("aa_null", make_case(one_hots(guesses), targets)).value == sum(hits) / 2


def test_aa_null_of_one_target_takes_all_other_labels(make_case: MakeCase) -> None:
    got = measure("aa_null", make_case(one_hots([0, 0, 1, 2]), [0] * 4))
    assert got.value == pytest.approx(0.5 / (CLASSES - 1))


def test_mc_all_is_the_accuracy_of_the_deployed_victim(make_case: MakeCase) -> None:
    test = labeled(one_hots([0, 1, 2, 3, 3]), [0, 1, 2, 3, 0])
    got = measure("mc_all", make_case(one_hots([0]), [0], test=test))
    assert got.value == 0.8
    assert (got.low, got.high) == wilson(4, 5)


def test_mc_all_of_several_models_counts_each(make_case: MakeCase) -> None:
    models = (((0,), None), ((1,), None))
    got = measure("mc_all", make_case(one_hots([0]), [0], models=models))
    assert (got.value, got.count) == (1.0, 2 * CLASSES)


def test_mc_target_asks_each_model_about_its_own_labels(make_case: MakeCase) -> None:
    test = labeled(one_hots([0, 1, 2, 2, 3]), [0, 1, 1, 2, 3])
    models = (((0,), None), ((1,), None))
    got = measure("mc_target", make_case(one_hots([0]), [0], models=models, test=test))
    assert got.value == pytest.approx(2 / 3)
    assert got.count == 3


def test_mc_target_without_test_images_is_not_measured(make_case: MakeCase) -> None:
    test = labeled(one_hots([1]), [1])
    case = make_case(one_hots([0]), [0], test=test)
    assert get_metric("mc_target")().measure(case, Context()) is None


PUBLIC = labeled(one_hots([0, 0, 1, 2, 0, 3]), [5, 5, 5, 6, 6, 6])


def test_far_decoy_counts_the_decoys_images_alone(make_case: MakeCase) -> None:
    case = make_case(one_hots([0]), [0], models=(((0,), 5),), public=PUBLIC)
    got = measure("far_decoy", case)
    assert got.value == pytest.approx(2 / 3)
    assert (got.low, got.high) == wilson(2, 3)


def test_far_decoy_needs_a_decoy(make_case: MakeCase) -> None:
    case = make_case(one_hots([0]), [0], public=PUBLIC)
    assert get_metric("far_decoy")().measure(case, Context()) is None


def test_far_public_counts_all_public_images(make_case: MakeCase) -> None:
    case = make_case(one_hots([0]), [0], models=(((0,), 5),), public=PUBLIC)
    assert measure("far_public", case).value == 0.5


def test_far_public_of_one_model_and_of_one_model_a_label_agree(make_case: MakeCase) -> None:
    one = make_case(one_hots([0]), [0], models=(((0, 1), None),), public=PUBLIC)
    two = make_case(one_hots([0]), [0], models=(((0,), None), ((1,), None)), public=PUBLIC)
    assert measure("far_public", one) == measure("far_public", two)
    assert measure("far_public", one).value == pytest.approx((3 / 6 + 1 / 6) / 2)


@pytest.mark.parametrize("name", RATES)
def test_rates_do_not_depend_on_the_order_of_rows(name: str, make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(40, CLASSES, generator=generator)
    targets = torch.randint(0, 3, (40,), generator=generator)
    order = torch.randperm(40, generator=generator)
    models = (((0,), 0), ((1,), 1), ((2,), 0))
    real = Labeled(images[:, None, None, :], targets)
    mixed = Labeled(real.images[order], targets[order])
    results = [
        measure(
            name,
            make_case(
                part.images.flatten(1).tolist(), part.labels.tolist(), models=models, test=part, public=part
            ),
        )
        for part in (real, mixed)
    ]
    assert results[0] == results[1]
    assert results[0].low < results[0].value < results[0].high


@pytest.mark.parametrize("name", ["aa", "mc_all"])
def test_the_interval_follows_the_seed_and_nothing_else(name: str, make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(30, CLASSES, generator=generator).tolist()
    test = Labeled(torch.rand(20, 1, 1, CLASSES, generator=generator), torch.arange(20) % CLASSES)
    case = make_case(images, [0, 1, 2] * 10, models=(((0,), None), ((1,), None)), test=test)
    state = torch.get_rng_state()
    assert measure(name, case, seed=1) == measure(name, case, seed=1)
    assert measure(name, case, seed=1).value == measure(name, case, seed=2).value
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["aa", "aa5", "aa_null"])
def test_without_protected_rows_nothing_is_measured(name: str, make_case: MakeCase) -> None:
    case = make_case(one_hots([1]), [1], protected=[0])
    assert get_metric(name)().measure(case, Context()) is None
