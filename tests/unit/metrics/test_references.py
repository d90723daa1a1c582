"""Accuracies and pixel and Frechet distances against libraries that others wrote."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.metric import Case
from mibench.plugin import Context
from mibench.registry import get_metric

from .conftest import CLASSES, MakeCase, one_hots


def value(name: str, case: Any) -> float:
    found = get_metric(name)().measure(case, Context())
    assert found is not None
    return found.value


def cloud_case(make_case: MakeCase, num_got: int, num_real: int, dim: int) -> Case:
    """A cell whose features are two clouds of some correlation, of other centers and spreads."""
    generator = torch.Generator().manual_seed(num_got + dim)
    mix = torch.randn(dim, dim, generator=generator) / dim**0.5
    case = make_case([(0.0,)] * num_got, [0] * num_got)
    case.features = torch.randn(num_got, dim, generator=generator) @ mix + 0.3
    case.real_features = torch.randn(num_real, dim, generator=generator), torch.zeros(num_real)
    return case


class _Given(nn.Module):
    """Takes features for images."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(("num_got", "num_real", "dim"), [(200, 150, 24), (60, 90, 8), (40, 300, 2)])
def test_frechet_distance_agrees_with_torchmetrics(
    num_got: int, num_real: int, dim: int, make_case: MakeCase
) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    case = cloud_case(make_case, num_got, num_real, dim)
    reference = FrechetInceptionDistance(feature=_Given(dim)).set_dtype(torch.float64)
    reference.update(case.real_features[0].double(), real=True)
    reference.update(case.features.double(), real=False)
    assert value("fid", case) == pytest.approx(float(reference.compute()), rel=1e-6)


@pytest.mark.parametrize(("num_got", "num_real", "dim"), [(200, 150, 24), (60, 90, 8), (30, 50, 80)])
def test_frechet_distance_agrees_with_torch_fidelity(
    num_got: int, num_real: int, dim: int, make_case: MakeCase
) -> None:
    """The last pair has fewer images than features, so that both covariances are singular."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    case = cloud_case(make_case, num_got, num_real, dim)
    clouds = [fid_features_to_statistics(part.double()) for part in (case.features, case.real_features[0])]
    expected = fid_statistics_to_metric(*clouds, verbose=False)[KEY_METRIC_FID]
    assert value("fid", case) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    num_got=st.integers(1, 30), num_real=st.integers(1, 30), dim=st.integers(1, 12), seed=st.integers(0, 99)
)
def test_mean_feature_distance_agrees_with_scipy(num_got: int, num_real: int, dim: int, seed: int) -> None:
    from scipy.spatial.distance import sqeuclidean

    random = np.random.default_rng(seed)
    got, real = random.normal(size=(num_got, dim)), random.normal(size=(num_real, dim)) + 1
    words = {
        "features": torch.from_numpy(got),
        "protected": torch.ones(num_got, dtype=torch.bool),
        "real_features": (torch.from_numpy(real), None),
    }
    expected = float(sqeuclidean(got.mean(0), real.mean(0)))
    assert value("mean_feature_distance", type("Stand", (), words)) == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def judged(make_case: MakeCase) -> Case:
    """Random scores of sixty reconstructions, of which the labels 6 and 7 are bystanders."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, CLASSES, generator=generator)
    targets = torch.randint(0, CLASSES, (60,), generator=generator)
    # some are right, so that the accuracies are not near chance
    images[torch.arange(0, 60, 3), targets[::3]] += 0.5
    return make_case(images.clamp(0, 1).tolist(), targets.tolist(), protected=range(6))


@pytest.mark.parametrize(("name", "places"), [("aa", 1), ("aa5", 5)])
def test_accuracies_agree_with_torchmetrics_and_scikit_learn(name: str, places: int, judged: Case) -> None:
    from sklearn.metrics import top_k_accuracy_score
    from torchmetrics.functional.classification import multiclass_accuracy

    scores, targets = judged.logits[judged.protected], judged.got.targets[judged.protected]
    expected = multiclass_accuracy(scores, targets, num_classes=CLASSES, top_k=places, average="micro")
    other = top_k_accuracy_score(targets, scores.double(), k=places, labels=range(CLASSES))
    assert 0.15 < other < 0.95
    assert value(name, judged) == pytest.approx(float(expected), rel=1e-6)
    assert value(name, judged) == pytest.approx(other, rel=1e-12)


def test_accuracy_on_all_labels_agrees_with_scikit_learn(judged: Case) -> None:
    from sklearn.metrics import accuracy_score

    expected = accuracy_score(judged.got.targets, judged.logits.argmax(1))
    assert value("aa_all", judged) == pytest.approx(expected, rel=1e-12)
    assert value("aa_all", judged) != value("aa", judged)


def test_shuffled_accuracy_agrees_with_drawn_derangements(judged: Case) -> None:
    """scikit-learn's accuracy against the labels under each of many random derangements."""
    from sklearn.metrics import accuracy_score

    targets = judged.got.targets[judged.protected].numpy()
    guesses = judged.logits[judged.protected].argmax(1).numpy()
    random = np.random.default_rng(0)
    scores: list[float] = []
    while len(scores) < 1500:
        exchanged = random.permutation(6)
        if (exchanged != np.arange(6)).all():
            scores.append(accuracy_score(exchanged[targets], guesses))
    error = np.std(scores) / len(scores) ** 0.5
    assert value("aa_null", judged) == pytest.approx(float(np.mean(scores)), abs=4 * error)


@pytest.mark.parametrize("name", ["mc_all", "mc_target"])
def test_accuracies_of_the_victim_agree_with_scikit_learn(name: str, judged: Case) -> None:
    from sklearn.metrics import accuracy_score

    rows = torch.rand(50, CLASSES, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 4
    rows[::3, :] += torch.tensor(one_hots(labels[::3].tolist()))
    test = dataclasses.replace(judged.private_test, pixels=rows[:, None, None, :], labels=labels)
    chosen = torch.ones(50, dtype=torch.bool) if name == "mc_all" else labels == 0  # the fixture's one model
    expected = accuracy_score(labels[chosen], rows[chosen].argmax(1))
    assert 0.3 < expected < 0.95
    assert value(name, dataclasses.replace(judged, private_test=test)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["far_public", "far_decoy"])
def test_false_accepts_agree_with_scikit_learn(name: str, make_case: MakeCase) -> None:
    """The share of strangers' images taken for label 0 is the false positive rate of "is it label 0"."""
    from sklearn.metrics import confusion_matrix

    rows = torch.rand(60, CLASSES, generator=torch.Generator().manual_seed(2))
    rows[:, 0] += 0.3
    people = torch.arange(60) % 3
    case = make_case([(0.0,) * CLASSES], [0], models=(((0,), 2),))
    public = dataclasses.replace(case.defender_public, pixels=rows[:, None, None, :], labels=people)
    case = dataclasses.replace(case, defender_public=public)
    taken = (rows if name == "far_public" else rows[people == 2]).argmax(1) == 0
    table = confusion_matrix(np.zeros(len(taken)), taken, labels=[0, 1])
    assert 0 < table[0, 1] < len(taken)
    assert value(name, case) == pytest.approx(table[0, 1] / table[0].sum(), rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    size=st.integers(2, 12),
    noise=st.floats(0.02, 1),
    seed=st.integers(0, 99),
)
def test_pixel_distances_agree_with_scikit_image(channels: int, size: int, noise: float, seed: int) -> None:
    metrics: Any = pytest.importorskip("skimage.metrics")

    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(3, channels, size, size, generator=generator)
    drawn = torch.rand(truth.shape, generator=generator)
    got = Reconstructions.collect((1 - noise) * truth + noise * drawn, torch.zeros(3, dtype=torch.int64))
    words = {"got": got, "truth": truth, "protected": torch.ones(3, dtype=torch.bool), "max_batch": 2}
    case = type("Stand", (), words)
    pairs = [(a.double().numpy(), b.double().numpy()) for a, b in zip(truth, got.images)]
    errors = [metrics.mean_squared_error(*pair) for pair in pairs]
    ratios = [metrics.peak_signal_noise_ratio(*pair, data_range=1) for pair in pairs]
    assert value("mse", case) == pytest.approx(float(np.mean(errors)), rel=1e-9)
    assert value("psnr", case) == pytest.approx(float(np.mean(ratios)), rel=1e-9)
