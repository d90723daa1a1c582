"""MID: the divergence, the bottleneck's interface, its noise, and what the divergence does to a net."""

from __future__ import annotations

import importlib
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy, fit

SPEC = NetSpec(name="mlp", width=32, channels=1, size=8, num_classes=4)
bottleneck: Any = importlib.import_module("mibench.defenses._bottleneck")


def mid(**fields: object) -> Any:
    return cast(Any, get_defense("mid")).from_params(fields)


def make() -> Classifier:
    return build(SPEC, torch.Generator().manual_seed(0))


def view(count: int = 80, *, epochs: int = 30) -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    patterns = torch.rand(4, 1, 8, 8, generator=generator)
    images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, 1, 8, 8, generator=generator)
    data = Labeled((images * 255).round() / 255, labels)
    recipe = Recipe(epochs=epochs, batch=16, lr=0.1, flip=False, shift=0)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def noisy(**fields: object) -> tuple[Any, Tensor]:
    """An untrained bottleneck whose deviations are near 1, and a few images."""
    net = mid(**fields).prepare(make())
    with torch.no_grad():
        net.encoder.bias[net.feature_dim :].fill_(5.5)
    net.renew(torch.Generator().manual_seed(1))
    with torch.no_grad():
        net.encoder.bias[net.feature_dim :].fill_(5.5)
    return net.eval(), view().private_train.images[:6]


@pytest.mark.parametrize(
    ("mean", "deviation", "wanted"), [((1, 0), (1, 1), 0.5), ((0, 0), (0.5, 2), 1.125), ((0, 0), (1, 1), 0)]
)
def test_divergence_of_known_codes(
    mean: tuple[float, ...], deviation: tuple[float, ...], wanted: float
) -> None:
    got = bottleneck.divergence(torch.tensor([mean]).float(), torch.tensor([deviation]).float())
    assert float(got) == pytest.approx(wanted, abs=1e-5)


def test_the_code_takes_the_features_place() -> None:
    for fields, width in (({}, 16), ({"width": 5}, 5)):
        net = mid(**fields).prepare(make())
        x = view().private_train.images[:3]
        assert net.feature_dim == width
        assert net.features(x).shape == (3, width)
        assert torch.equal(net(x), net.head(net.features(x)))
    mean, deviation = net.encode(x)
    # the deviation starts near softplus(-5)
    assert float(deviation.detach().median()) == pytest.approx(0.0067, rel=0.5)
    assert mean.dtype == torch.float32


def test_prepare_rebuilds_the_same_net_and_leaves_the_given_one() -> None:
    start = make()
    first, second = mid().prepare(start), mid().prepare(make())
    assert isinstance(start.head, nn.Linear)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_the_mean_code_has_no_noise() -> None:
    net, x = noisy(inference="mean")
    assert torch.equal(net.features(x), net.encode(x)[0])


def test_sampled_noise_hangs_on_the_image_alone() -> None:
    net, x = noisy(inference="sampled")
    whole = net.features(x)
    assert torch.equal(net.features(x), whole)
    assert torch.allclose(net.features(x[3:4]), whole[3:4], atol=1e-5)
    assert torch.allclose(net.features((x + 1e-4).clamp(0, 1)), whole, atol=1e-2)  # bytes do not change
    other = x.clone()
    other[0, 0, 0, 0] = (other[0, 0, 0, 0] + 0.5) % 1.0
    assert float((net.features(other)[0] - whole[0]).detach().abs().max()) > 0.5
    assert torch.allclose(net.features(other)[1:], whole[1:], atol=1e-5)


def test_the_key_of_the_noise_is_stored_and_hangs_on_the_seed() -> None:
    net, x = noisy()
    before = net.features(x)
    again = mid().prepare(make())
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.eval().features(x), before)
    net.key.add_(1)
    assert not torch.allclose(net.features(x), before, atol=0.1)


@pytest.mark.parametrize("inference", ["sampled", "fresh"])
def test_the_noise_is_standard_normal_times_the_deviation(inference: str) -> None:
    net, _ = noisy(inference=inference, width=64)
    images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    mean, deviation = net.encode(images)
    noise = ((net.features(images) - mean) / deviation).detach()
    assert abs(float(noise.mean())) < 4 / noise.numel() ** 0.5
    assert float(noise.var()) == pytest.approx(1.0, abs=4 * (2 / noise.numel()) ** 0.5)
    assert abs(float((noise[0] * noise[1]).mean())) < 0.5


def test_fresh_noise_differs_each_time_and_averages_out() -> None:
    net, x = noisy(inference="fresh")
    draws = torch.stack([net.features(x) for _ in range(400)]).detach()
    assert not torch.equal(draws[0], draws[1])
    mean, deviation = net.encode(x)
    assert torch.allclose(draws.mean(0), mean, atol=5 * float(deviation.detach().max()) / 20)


def test_without_bottleneck_it_is_plain_training_bit_for_bit() -> None:
    data = view(epochs=2)
    plain = fit(make(), data.private_train, Context(seed=2), recipe=data.recipe)
    defense = mid(beta=None)
    got = defense.train(defense.prepare(make()), data, Context(seed=2))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def test_more_weight_leaves_fewer_nats_and_more_noise() -> None:
    data = view()
    notes = []
    for beta in (1e-4, 1e-2, 0.3):
        ctx = Context()
        defense = mid(beta=beta)
        net = defense.train(defense.prepare(make()), data, ctx)
        notes.append((ctx.notes["mid_nats"], ctx.notes["mid_deviation"]))
        if beta < 0.1:
            assert accuracy(net, data.private_train) > 0.8
    assert notes[0][0] > notes[1][0] > notes[2][0] >= 0
    assert notes[0][1] < notes[1][1] < notes[2][1] < 1.1


def test_new_layers_and_training_noise_hang_on_the_seed() -> None:
    data, defense = view(epochs=1), mid()
    before = torch.get_rng_state()
    heads = [
        defense.train(defense.prepare(make()), data, Context(seed=seed)).head.weight for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_its_weakness_follows_the_inference() -> None:
    found = {name: mid(inference=name).weaknesses for name in ("sampled", "fresh", "mean")}
    assert found == {"sampled": {"keyed_noise"}, "fresh": {"fresh_noise"}, "mean": set()}
    assert mid(beta=None).weaknesses == set()


@pytest.mark.parametrize(
    ("wrong", "match"), [({"beta": -0.1}, "beta must be >= 0"), ({"width": -1}, "width must be >= 0")]
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        mid(**wrong)
