"""Similarity to the mean image of a person: known answers, and scikit-image's index."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.data.split import Labeled
from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import one_hots

MakeCase = Callable[..., Case]


def faces(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def case_of(
    make_case: MakeCase, got: Tensor, targets: list[int], real: Labeled, shielded: list[bool]
) -> Case:
    case = make_case(one_hots([0]), [0])
    found = Reconstructions.collect(got, torch.tensor(targets))
    return dataclasses.replace(case, got=found, private_train=real, protected=torch.tensor(shielded))


def value(case: Case) -> Estimate | None:
    return get_metric("class_mean_ssim")().measure(case, Context(seed=0))


def test_the_mean_of_the_right_person_scores_one_and_of_another_less(make_case: MakeCase) -> None:
    real = Labeled(faces(6), torch.tensor([0, 0, 0, 1, 1, 1]))
    means = torch.stack([real.of(label).images.mean(0) for label in (0, 1)])
    right = value(case_of(make_case, means, [0, 1], real, [True, True]))
    wrong = value(case_of(make_case, means.flip(0), [0, 1], real, [True, True]))
    assert right is not None
    assert wrong is not None
    assert right.value == pytest.approx(1.0, abs=1e-6)
    assert right.count == 2
    assert wrong.value < 0.5


def test_it_is_the_index_of_scikit_image_against_the_mean(make_case: MakeCase) -> None:
    metrics: Any = pytest.importorskip("skimage.metrics")
    real = Labeled(faces(4), torch.zeros(4, dtype=torch.int64))
    got = faces(2, seed=1)
    mean = real.images.double().mean(0)[0].numpy()
    wanted = [
        metrics.structural_similarity(
            image[0].double().numpy(),
            mean,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            full=True,
        )[1][5:-5, 5:-5].mean()
        for image in got
    ]
    found = value(case_of(make_case, got, [0, 0], real, [True, True]))
    assert found is not None
    assert found.value == pytest.approx(sum(wanted) / 2, abs=1e-6)


def test_bystanders_do_not_count(make_case: MakeCase) -> None:
    real = Labeled(faces(4), torch.tensor([0, 0, 1, 1]))
    means = torch.stack([real.of(label).images.mean(0) for label in (0, 1)])
    got = torch.stack([means[0], 1 - means[1]])
    one = value(case_of(make_case, got, [0, 1], real, [True, False]))
    assert one is not None
    assert one.value == pytest.approx(1.0, abs=1e-6)
    assert one.count == 1
    assert value(case_of(make_case, got, [0, 1], real, [False, False])) is None
