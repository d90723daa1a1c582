"""The baseline changes nothing: it is the suite's recipe and the softmax."""

from __future__ import annotations

import torch

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, fit

SPEC = NetSpec(name="mlp", width=8, channels=1, size=8, num_classes=3)


def small_view() -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    data = Labeled(torch.rand(24, 1, 8, 8, generator=generator), torch.arange(24) % 3)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=Recipe(epochs=2))


def test_none_overrides_no_step() -> None:
    none = get_defense("none")
    for step in ("prepare", "train", "learn_output", "protect", "substitute_prior"):
        assert getattr(none, step) is getattr(Defense, step)
    assert none.acts == "nothing"
    assert not none.needs
    assert not none.per_target


def test_none_trains_like_the_recipe_bit_for_bit() -> None:
    view = small_view()
    first, second = (build(SPEC, torch.Generator().manual_seed(1)) for _ in range(2))
    got = get_defense("none")().train(first, view, Context(seed=4))
    expected = fit(second, view.private_train, Context(seed=4), recipe=view.recipe)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(got.state_dict()[name], tensor), name


def test_none_releases_the_softmax() -> None:
    none, view = get_defense("none")(), small_view()
    net = none.train(build(SPEC, torch.Generator().manual_seed(1)), view, Context())
    x = view.private_train.images
    state = none.learn_output(net, view, Context())
    assert state == {}
    assert torch.equal(none.protect(net, state, Context())(x), net(x).softmax(1))
