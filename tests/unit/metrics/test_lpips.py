"""LPIPS with weights drawn at random: against torchmetrics, and what becomes of the user's file."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.errors import MibenchError, PluginError, WeightsError
from mibench.metric import Case, Estimate, Metric
from mibench.nets import seeded
from mibench.plugin import Context
from mibench.registry import get_metric
from mibench.testing import checks_for
from mibench.weights import weights_digest

from .conftest import MakeCase, one_hots

NETS = ("alex", "vgg")


def backbone(net: str) -> dict[str, Tensor]:
    """The convolutions of torchvision's network, drawn at random; the classifier is left out."""
    import torchvision

    make = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[net]
    with seeded(torch.Generator().manual_seed(len(net))), torch.device("meta"):
        shapes = {name: value.shape for name, value in make(weights=None).features.state_dict().items()}
    generator = torch.Generator().manual_seed(len(net))
    return {
        f"features.{name}": torch.randn(shape, generator=generator) / max(1, shape[1:].numel()) ** 0.5
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for net in NETS:
        made[net] = folder / f"{net}.safetensors"
        save_file(backbone(net), made[net])
    return made


@pytest.fixture
def pair_case(make_case: MakeCase) -> Case:
    return pairs(make_case, channels=3, size=40)


def pairs(make_case: MakeCase, *, channels: int, size: int) -> Case:
    generator = torch.Generator().manual_seed(0)
    truth, drawn = (torch.rand(5, channels, size, size, generator=generator) for _ in range(2))
    targets = torch.tensor([0, 0, 1, 1, 2])
    got = Reconstructions.collect(0.6 * truth + 0.4 * drawn, targets)
    return dataclasses.replace(
        make_case(one_hots([0]), [0]), got=got, truth=truth, protected=targets < 2, max_batch=3
    )


def lpips(case: Case, file: Path | str, net: str = "alex") -> Estimate | None:
    return get_metric("lpips").from_params({"weights": str(file), "net": net}).measure(case, Context())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_it_agrees_with_torchmetrics(
    net: str, channels: int, make_case: MakeCase, files: dict[str, Path]
) -> None:
    """Its own network and its own weights of the channels, over the same convolutions."""
    from torchmetrics.functional.image.lpips import _LPIPS

    with warnings.catch_warnings(), seeded(torch.Generator()):
        warnings.simplefilter("ignore")
        reference: Any = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    weights = backbone(net)
    own = {name: weights[f"features.{name.split('.', 1)[1]}"] for name in reference.net.state_dict()}
    reference.net.load_state_dict(own)
    case = pairs(make_case, channels=channels, size=40)
    assert case.truth is not None
    rows = case.protected
    one, other = (x[rows].expand(-1, 3, -1, -1) for x in (case.got.images, case.truth))
    expected = float(reference(one, other, normalize=True).double().mean())
    found = lpips(case, files[net], net)
    assert found is not None
    assert expected > 0.01
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.low < found.value < found.high
    assert found.count == 4


@pytest.mark.parametrize("net", NETS)
def test_equal_images_are_at_zero(net: str, pair_case: Case, files: dict[str, Path]) -> None:
    assert pair_case.truth is not None
    same = Reconstructions.collect(pair_case.truth, pair_case.got.targets)
    assert lpips(dataclasses.replace(pair_case, got=same), files[net], net) == Estimate(0.0, 0.0, 0.0, 4)


def test_a_distance_by_hand(make_case: MakeCase, tmp_path: Path) -> None:
    """Convolutions of zeros with biases of one give the same features for all images, but the first layer's.

    There map 0 sees the red of the middle pixel of its window, all others nothing: of every position the unit
    features differ in two directions, and the package's weights of the channels say by how much.
    """
    import lpips as package

    weights = {name: torch.zeros_like(value) for name, value in backbone("alex").items()}
    weights["features.0.weight"][0, 0, 5, 5] = 1.0
    weights["features.0.bias"][1] = 1.0
    save_file(weights, tmp_path / "net.safetensors")
    truth = torch.zeros(1, 3, 32, 32)
    bright = torch.ones(1, 3, 32, 32)
    case = dataclasses.replace(
        make_case(one_hots([0]), [0]),
        got=Reconstructions.collect(bright, torch.tensor([0])),
        truth=truth,
        protected=torch.tensor([True]),
    )
    folder = Path(package.__file__).parent / "weights" / "v0.1"
    channels = (
        torch.load(folder / "alex.pth", map_location="cpu", weights_only=True)["lin0.model.1.weight"]
        .flatten()
        .double()
    )
    # red 1 becomes (1 + 0.030) / 0.458 in the package's units, red 0 falls below zero, where the ReLU ends it
    red = (1 + 0.030) / 0.458
    unit = torch.tensor([red, 1.0], dtype=torch.float64) / (red**2 + 1) ** 0.5
    expected = channels[0] * unit[0] ** 2 + channels[1] * (1 - unit[1]) ** 2
    found = lpips(case, tmp_path / "net.safetensors")
    assert found is not None
    assert found.value == pytest.approx(float(expected), rel=1e-4)


def test_it_keeps_the_contract_of_metrics(files: dict[str, Path]) -> None:
    """The checks that measure, which need a file, so that they are left out for the bare plugin."""
    kind = get_metric("lpips")
    measuring = {
        "gives_a_sound_estimate",
        "repeats_itself",
        "order_does_not_matter",
        "noise_moves_it_one_way",
    }
    assert not measuring & {check.name for check in checks_for(kind)}
    words = {"toy": {"weights": str(files["vgg"]), "net": "vgg"}, "__module__": kind.__module__}
    subject: type[Metric] = dataclasses.dataclass(frozen=True, kw_only=True)(type("Given", (kind,), words))
    own = {check.name: check for check in checks_for(subject)}
    for name in measuring:
        verdict = own[name].run()
        assert verdict.status == "ok", verdict.text


def test_class_goals_are_not_measured_and_need_no_network(pair_case: Case) -> None:
    assert lpips(dataclasses.replace(pair_case, truth=None), "nowhere.pt") is None


def test_a_whole_state_of_torchvision_is_taken(
    pair_case: Case, files: dict[str, Path], tmp_path: Path
) -> None:
    state = {**backbone("alex"), "classifier.1.weight": torch.zeros(3, 3)}
    torch.save(state, tmp_path / "whole.pth")
    assert lpips(pair_case, tmp_path / "whole.pth") == lpips(pair_case, files["alex"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features.3.bias": None}, r"'features.3.bias' of torchvision's AlexNet is missing"),
        (
            {"features.0.weight": torch.zeros(64, 1, 11, 11)},
            r"has the shape \[64, 1, 11, 11\], torchvision's Al",
        ),
        ({"features.9.weight": torch.zeros(1)}, r"'features.9.weight' is no part of torchvision's AlexNet"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: dict[str, Tensor | None], words: str, pair_case: Case, tmp_path: Path
) -> None:
    state = {name: value for name, value in {**backbone("alex"), **change}.items() if value is not None}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=words):
        lpips(pair_case, tmp_path / "net.safetensors")


@pytest.mark.parametrize(("net", "size"), [("alex", 30), ("vgg", 15)])
def test_images_without_enough_pixels_are_refused(
    net: str, size: int, make_case: MakeCase, files: dict[str, Path]
) -> None:
    with pytest.raises(PluginError, match=f"takes images of {size + 1} pixels or more, got {size}"):
        lpips(pairs(make_case, channels=3, size=size), files[net], net)
    assert lpips(pairs(make_case, channels=3, size=size + 1), files[net], net) is not None


def test_without_weights_the_field_is_named(pair_case: Case) -> None:
    bare = get_metric("lpips")()
    for ask in (bare.key_params, lambda: bare.measure(pair_case, Context())):
        with pytest.raises(MibenchError, match=r"metric 'lpips': field 'weights' is empty\. Give the path"):
            ask()


def test_without_the_package_its_extra_is_named(
    pair_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(backbone("alex") | {"classifier.0.bias": torch.ones(1)}, tmp_path / "other.safetensors")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(PluginError, match=r"Install 'mibench\[lpips\]'"):
        lpips(pair_case, tmp_path / "other.safetensors")


def test_the_key_holds_the_content_and_not_the_path(files: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copy(files["alex"], tmp_path / "elsewhere.bin"))
    keys = [
        get_metric("lpips").from_params({"weights": str(file)}).key_params() for file in (files["alex"], copy)
    ]
    assert keys[0] == keys[1] == {"weights": weights_digest(copy), "net": "alex"}


def test_only_the_planned_file_is_measured_with(files: dict[str, Path]) -> None:
    kind, paths = get_metric("lpips"), {"weights": str(files["alex"])}
    planned = kind.from_params(paths).key_params()
    assert kind.planned(planned, paths) == kind.from_params(paths)
    with pytest.raises(WeightsError, match="has changed since the plan"):
        kind.planned(planned, {"weights": str(files["vgg"])})
