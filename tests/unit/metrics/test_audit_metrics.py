"""Second opinions: known values of each metric, and what each does without a success or an opinion."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur, resize

from mibench.attack import Reconstructions
from mibench.data.split import Labeled
from mibench.embedder import Embedder, centroids
from mibench.errors import PluginError
from mibench.metric import Case, Estimate
from mibench.nets import Classifier, NetSpec
from mibench.plugin import Context
from mibench.registry import get_metric
from mibench.statistics import grouped_wilson

from .conftest import CLASSES, PixelJudge, labeled, one_hots

MakeCase = Callable[..., Case]


class Shifted(PixelJudge):
    """A judge that says the label after the brightest pixel's."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).roll(1, 1)


class Says(Classifier):
    """A judge with one fixed opinion of each image, whatever it shows."""

    def __init__(self, labels: Sequence[int]) -> None:
        super().__init__(NetSpec(name="says", channels=1, size=1, num_classes=CLASSES))
        self.head = nn.Identity()
        self.told = nn.Parameter(torch.tensor(one_hots(labels)), requires_grad=False)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.told[: len(x)],)


def measure(name: str, case: Case, **fields: Any) -> Estimate:
    got = get_metric(name)(**fields).measure(case, Context())
    assert got is not None
    return got


def test_the_audit_judge_has_its_own_successes(make_case: MakeCase) -> None:
    case = replace(make_case(one_hots([0, 1, 2, 3]), [0, 1, 2, 0]), audit=Says([0, 1, 5, 0]))
    got = measure("aa_audit", case)
    hits = np.array([True, True, False, True])
    assert (got.value, got.low, got.high) == (0.75, *grouped_wilson(hits, np.array([0, 1, 2, 0])))


def test_agreement_is_counted_among_the_judges_successes(make_case: MakeCase) -> None:
    case = replace(make_case(one_hots([0, 1, 2, 3]), [0, 1, 2, 0]), audit=Says([0, 1, 5, 0]))
    assert measure("aa", case).value == 0.75
    assert measure("agreement", case).value == pytest.approx(2 / 3)
    assert measure("agreement", case).count == 3
    assert measure("aa_agreed", case).value == 0.5
    assert measure("aa_agreed", case).count == 4


def test_nothing_agrees_where_nothing_succeeds(make_case: MakeCase) -> None:
    case = replace(make_case(one_hots([3, 3]), [0, 1]), audit=Says([0, 1]))
    assert get_metric("agreement")().measure(case, Context()) is None
    assert measure("aa_agreed", case).value == 0.0
    assert measure("aa_audit", case).value == 1.0


def test_bystanders_do_not_count(make_case: MakeCase) -> None:
    case = replace(make_case(one_hots([0, 1]), [0, 1], protected=[0]), audit=Says([0, 5]))
    for name in ("aa_audit", "agreement", "aa_agreed", "aa_blur"):
        assert (measure(name, case).value, measure(name, case).count) == (1.0, 1)


def test_a_judge_that_disagrees_with_itself_confirms_nothing(make_case: MakeCase) -> None:
    case = replace(make_case(one_hots([0, 1, 2]), [0, 1, 2]), audit=Shifted())
    assert measure("aa", case).value == 1.0
    assert measure("agreement", case).value == 0.0


@pytest.mark.parametrize("name", ["aa_audit", "agreement", "aa_agreed", "aa_embedder", "private_gap"])
def test_what_a_metric_needs_must_be_there(make_case: MakeCase, name: str) -> None:
    assert get_metric(name).needs
    with pytest.raises(PluginError, match=r"the cell has no '(audit|embedder|public)'"):
        get_metric(name)().measure(make_case(one_hots([0]), [0]), Context())


class Flat(nn.Module):
    """An image's pixels as its point."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def in_space(case: Case, public: Labeled | None = None) -> Case:
    return replace(case, embedder=Embedder(Flat()), public=public)


def test_the_embedder_knows_people_by_their_nearest_centroid(make_case: MakeCase) -> None:
    half = [(1.0, 0.9, *[0.0] * 6), (0.9, 1.0, *[0.0] * 6)]
    case = in_space(make_case(half, [0, 0]))
    got = measure("aa_embedder", case)
    assert (got.value, got.count) == (0.5, 2)


def test_centroids_are_means_of_directions() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    got = centroids(points, torch.tensor([0, 0, 1]))
    assert torch.allclose(got, torch.tensor([[math.sqrt(0.5), math.sqrt(0.5)], [0.0, 1.0]]))


def test_the_gap_is_public_distance_less_private_distance(make_case: MakeCase) -> None:
    """The first image is its person's own; its nearest stranger is a right angle away, so sqrt 2."""
    public = labeled(one_hots([4, 5]), [0, 1])
    got = measure("private_gap", in_space(make_case(one_hots([0]), [0]), public))
    assert got.value == pytest.approx(math.sqrt(2))
    assert got.count == 1
    stolen = measure("private_gap", in_space(make_case(one_hots([4]), [0]), public))
    assert stolen.value == pytest.approx(-math.sqrt(2))
    both = measure("private_gap", in_space(make_case(one_hots([0, 4, 1, 5]), [0, 0, 1, 1]), public))
    assert both.value == pytest.approx(0.0, abs=1e-6)
    assert both.low < 0 < both.high


def test_the_nearest_image_of_the_person_counts_and_no_one_elses(make_case: MakeCase) -> None:
    train = labeled([*one_hots([0, 6]), *one_hots(range(1, 6))], [0, 0, 1, 2, 3, 4, 5])
    public = labeled(one_hots([7]), [0])
    case = in_space(make_case(one_hots([6, 1]), [0, 0], train=train), public)
    assert measure("private_gap", case).value == pytest.approx(math.sqrt(2) / 2)


def test_edits_are_those_of_other_libraries() -> None:
    edits = importlib_edits()
    x = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    sigma = 0.02 * 40
    ours = edits.blurred(x, 0.02)[:, :, 4:-4, 4:-4]
    theirs = gaussian_blur(x, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma, sigma])[:, :, 4:-4, 4:-4]
    assert torch.allclose(ours, theirs, atol=1e-6)
    # the middle 20 of 40 pixels, doubled; resize repeats its own border, ours sees beyond it
    ours = edits.cropped(x, 0.5)[:, :, 1:-1, 1:-1]
    theirs = resize(x[:, :, 10:30, 10:30], [40, 40], antialias=False)[:, :, 1:-1, 1:-1]
    assert torch.allclose(ours, theirs, atol=1e-5)
    flat = torch.full((1, 1, 16, 16), 100 / 255)
    assert torch.equal(edits.recompressed(flat, 75), flat)
    file = io.BytesIO()
    pixels = (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    Image.fromarray(pixels).save(file, format="JPEG", quality=30)
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    assert torch.equal(edits.recompressed(x[:1], 30)[0], read)


def importlib_edits() -> Any:
    """The helpers of the metrics, which nothing but metrics imports by name."""
    import importlib

    return importlib.import_module(get_metric("aa_blur").__module__.rpartition(".")[0] + "._edits")


class Grain(Classifier):
    """Says label 1 to images whose neighboring pixels differ by more than a tenth on average, else 0."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="grain", channels=1, size=16, num_classes=2))
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0], [1.0]]))
            self.head.bias.copy_(torch.tensor([0.1, 0.0]))

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return ((x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))[:, None],)


def test_a_fine_pattern_does_not_survive_a_blur_and_a_coarse_one_does(make_case: MakeCase) -> None:
    columns = torch.arange(16)
    fine, coarse = 0.5 + 0.08 * (-1.0) ** columns, (columns // 4 % 2).float()
    images = torch.stack([fine, coarse])[:, None, None, :].expand(2, 1, 16, 16).contiguous()
    base = make_case(one_hots([0, 0]), [1, 1])
    case = replace(base, judge=Grain(), got=Reconstructions.collect(images, torch.tensor([1, 1])))
    assert measure("aa", case).value == 1.0
    assert measure("aa_blur", case, sigma=0.06).value == 0.5
    assert measure("aa_robust", case, sigma=0.06).value == 0.5


def test_what_survives_was_a_success_before_and_survives_each_edit(make_case: MakeCase) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(64, 1, 16, 16, generator=generator).mul(0.2).add(0.4)
    base = make_case(one_hots([0] * 64), [1] * 64)
    case = replace(
        base, judge=Grain(), got=Reconstructions.collect(images * 1.6 - 0.3, torch.ones(64).long())
    )
    values = {
        name: measure(name, case).value for name in ("aa", "aa_blur", "aa_crop", "aa_jpeg", "aa_robust")
    }
    assert values["aa_robust"] <= min(values["aa_blur"], values["aa_crop"], values["aa_jpeg"])
    assert max(values["aa_blur"], values["aa_crop"], values["aa_jpeg"]) <= values["aa"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("aa_blur", {"sigma": 0.0}),
        ("aa_crop", {"keep": 1.0}),
        ("aa_jpeg", {"quality": 96}),
        ("aa_robust", {"sigma": 0.2}),
        ("aa_robust", {"keep": 0.4}),
        ("aa_robust", {"quality": 0}),
    ],
)
def test_strengths_out_of_range_are_refused(name: str, fields: dict[str, float]) -> None:
    (field,) = fields
    with pytest.raises(ValueError, match=f"{name}: {field} must lie in"):
        get_metric(name)(**fields)
