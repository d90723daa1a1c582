"""Random erasing: areas, shapes, places and fillings of the rectangles, and the training with them."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy, fit

SPEC = NetSpec(name="mlp", width=16, channels=1, size=16, num_classes=4)
COUNT, HEIGHT, WIDTH = 4000, 32, 24


def midre(**fields: object) -> Any:
    return cast(Any, get_defense("midre")).from_params(fields)


def make() -> Classifier:
    return build(SPEC, torch.Generator().manual_seed(0))


def view(*, epochs: int = 20) -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(80) % 4
    patterns = torch.rand(4, 1, 16, 16, generator=generator)
    data = Labeled(0.7 * patterns[labels] + 0.3 * torch.rand(80, 1, 16, 16, generator=generator), labels)
    recipe = Recipe(epochs=epochs, batch=16, lr=0.1, flip=False, shift=0)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def erased_by(defense: Any, seed: int = 0) -> Tensor:
    found: Tensor = defense.rectangles(COUNT, HEIGHT, WIDTH, torch.Generator().manual_seed(seed))
    return found


def sides(erased: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width of each rectangle (N,), after a check that it is one."""
    tall, wide = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.sum((1, 2)), tall * wide)
    return tall.float(), wide.float()


@pytest.mark.parametrize(("least", "most"), [(0.1, 0.4), (0.1, 0.8), (0.3, 0.3)])
@pytest.mark.parametrize("ratio", [1.0, 0.3])
def test_areas_and_shapes_keep_to_their_ranges(least: float, most: float, ratio: float) -> None:
    erased = erased_by(midre(least_area=least, area=most, ratio=ratio))
    tall, wide = sides(erased)
    shares = tall * wide / (HEIGHT * WIDTH)
    rounding = 0.03  # half a pixel on each side
    assert float(shares.min()) >= least - rounding
    assert float(shares.max()) <= most + rounding
    assert float(shares.mean()) == pytest.approx((least + most) / 2, abs=0.03)
    if most <= 0.4:  # nothing sticks out of the image
        assert bool((tall <= wide / ratio + 1 / ratio).all())
        assert bool((wide <= tall / ratio + 1 / ratio).all())
    assert (float((tall / wide).std()) > 0.3) == (ratio < 1)


def test_every_image_loses_another_place_and_everywhere_is_hit() -> None:
    erased = erased_by(midre())
    often = erased.float().mean(0)
    assert float(often.min()) > 0  # corners too
    assert float(often[HEIGHT // 2, WIDTH // 2]) < 1
    assert not torch.equal(erased[0], erased[1])
    centered = erased_by(midre(place="center"))
    assert bool(centered[:, HEIGHT // 2, WIDTH // 2].all())
    assert not bool(centered[:, 0, 0].any())


def test_rate_is_the_share_of_images() -> None:
    hit = erased_by(midre(rate=0.5)).any(2).any(1).float().mean()
    assert float(hit) == pytest.approx(0.5, abs=0.04)
    assert bool(erased_by(midre()).any(2).any(1).all())


def test_a_whole_image_can_go() -> None:
    assert bool(erased_by(midre(area=1.0, least_area=1.0)).all())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", ["imagenet", "mean", "random", "black"])
def test_fillings_touch_the_rectangle_alone(fill: str, channels: int) -> None:
    x = 0.2 + 0.1 * torch.rand(8, channels, 16, 16, generator=torch.Generator().manual_seed(1))
    defense, before = midre(fill=fill), x.clone()
    got = defense.erase(x, torch.Generator().manual_seed(2))
    erased = defense.rectangles(8, 16, 16, torch.Generator().manual_seed(2))[:, None].expand_as(x)
    assert torch.equal(x, before)
    assert torch.equal(got[~erased], x[~erased])
    inside = got[:, 0][erased[:, 0]]
    if fill == "imagenet":
        assert torch.allclose(inside, torch.tensor(0.485 if channels == 3 else 0.4490), atol=1e-4)
    elif fill == "black":
        assert not bool(inside.any())
    elif fill == "mean":
        assert torch.allclose(inside, torch.tensor(0.25), atol=0.02)
    else:
        assert float(inside.std()) == pytest.approx(12**-0.5, abs=0.03)


@pytest.mark.parametrize("off", [{"area": 0.0}, {"rate": 0.0}])
def test_without_rectangles_it_is_plain_training_bit_for_bit(off: dict[str, float]) -> None:
    data = view(epochs=2)
    plain = fit(make(), data.private_train, Context(seed=1), recipe=data.recipe)
    got = midre(**off).train(make(), data, Context(seed=1))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def test_the_net_never_sees_a_whole_image_and_learns_nevertheless() -> None:
    """At area 1 for all images nothing is left to learn from."""
    data = view(epochs=40)
    assert accuracy(midre().train(make(), data, Context()), data.private_train) > 0.9
    blind = midre(area=1.0, least_area=1.0, fill="black").train(make(), data, Context())
    with torch.no_grad():
        largest = blind(torch.zeros(1, 1, 16, 16)).softmax(1).max()
    assert float(largest) < 0.4


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"area": 1.1}, r"area must lie in \[0, 1\]"),
        ({"rate": -0.1}, r"rate must lie in \[0, 1\]"),
        ({"ratio": 0.0}, r"ratio must lie in \(0, 1\]"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        midre(**wrong)
