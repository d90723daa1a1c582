"""The low-rank head: its rank, its parts, and where it narrows nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, fit

SPEC = NetSpec(name="small_vgg", width=4, channels=1, size=16, num_classes=12)


def low_rank(**fields: object) -> Any:
    return cast(Any, get_defense("low_rank")).from_params(fields)


def make(seed: int = 0) -> Classifier:
    return build(SPEC, torch.Generator().manual_seed(seed))


def images(count: int = 40) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def view() -> DefenderView:
    data = Labeled(images(48), torch.arange(48) % 12)
    recipe = Recipe(epochs=1, batch=16)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


@pytest.mark.parametrize("rank", [1, 3])
def test_the_plain_head_is_a_product_of_two_matrices(rank: int) -> None:
    """Logits are B (A f + a) + b, so all logits lie in `rank` dimensions around b."""
    net = low_rank(rank=rank, activation="none", norm=False).prepare(make()).eval()
    _, narrow, _, wide = net.head
    features = net.features(images())
    w = wide.weight @ narrow.weight
    assert torch.linalg.matrix_rank(w) == rank
    b = wide.weight @ narrow.bias + wide.bias
    logits = net(images())
    assert torch.allclose(logits, features @ w.T + b, atol=1e-5)
    assert torch.linalg.matrix_rank(logits - b, atol=1e-4) == rank


def test_the_default_is_the_authors_head() -> None:
    """Batch norm, 50 numbers, tanh; the logits then depend on the feature through 50 numbers in [-1, 1]."""
    assert low_rank().params() == {"rank": 50, "activation": "tanh", "norm": True}
    net = low_rank(rank=5).prepare(make()).eval()
    norm, narrow, activation, wide = net.head
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(activation, nn.Tanh)
    assert (narrow.out_features, wide.in_features, wide.out_features) == (5, 5, 12)
    code = torch.tanh(narrow(norm(net.features(images()))))
    assert torch.allclose(net(images()), wide(code), atol=1e-6)


def test_a_saturated_tanh_stops_the_gradient() -> None:
    """What the authors add it for: where the code is large, nothing of the image's change gets through."""
    slopes = {}
    for activation in ("tanh", "none"):
        net = low_rank(rank=3, activation=activation, norm=False).prepare(make()).eval()
        with torch.no_grad():
            net.head[1].bias.fill_(30.0)
        x = images(4).requires_grad_(True)
        slopes[activation] = float(torch.autograd.grad(net(x).sum(), x)[0].abs().max())
    assert slopes["tanh"] == 0
    assert slopes["none"] > 0


def test_the_body_and_the_net_handed_in_stay() -> None:
    net = make().eval()
    head = net.head
    narrowed = low_rank(rank=3).prepare(net).eval()
    assert net.head is head
    assert narrowed.feature_dim == net.feature_dim
    assert torch.equal(narrowed.features(images()), net.features(images()))
    assert torch.equal(narrowed(images()), narrowed.head(narrowed.features(images())))


def test_a_head_is_drawn_anew_for_each_seed_and_a_state_loads() -> None:
    plugin = low_rank(rank=3)
    nets = [plugin.train(plugin.prepare(make()), view(), Context(seed=seed)) for seed in (0, 0, 1)]
    weights = [net.head[1].weight for net in nets]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    again = plugin.prepare(make(seed=9))
    again.load_state_dict(nets[0].state_dict())
    assert torch.equal(again.eval()(images()), nets[0](images()))


def test_without_a_rank_it_is_plain_training_bit_for_bit() -> None:
    data, plugin = view(), low_rank(rank=None)
    plain = fit(make(), data.private_train, Context(seed=1), recipe=data.recipe)
    off = plugin.train(plugin.prepare(make()), data, Context(seed=1))
    assert list(plain.state_dict()) == list(off.state_dict())
    assert all(torch.equal(off.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())
    assert plugin.misfit(SPEC) == ""


def test_a_rank_that_narrows_nothing_is_refused() -> None:
    wanted = "rank 12 filters nothing out of 12 people. Give a rank below 12."
    assert low_rank(rank=12).misfit(SPEC) == wanted
    assert low_rank(rank=11).misfit(SPEC) == ""
    with pytest.raises(ValueError, match=f"low_rank: {wanted}"):
        low_rank(rank=12).prepare(make())
    narrow = NetSpec(name="mlp", width=8, channels=1, size=8, num_classes=12)
    wanted = "rank 9 filters nothing out of 8 entries of the feature. Give a rank below 8."
    before = torch.get_rng_state()
    assert low_rank(rank=9).misfit(narrow) == wanted
    assert low_rank(rank=7).misfit(narrow) == ""
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match=f"low_rank: {wanted}"):
        low_rank(rank=9).prepare(build(narrow, torch.Generator()))
    with pytest.raises(ValueError, match="low_rank: rank must be >= 1 or left out, got 0"):
        low_rank(rank=0)
