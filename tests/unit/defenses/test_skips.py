"""RoLSS, SSF and TTS: which shortcuts go, when, and on which nets they can."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets import CLASSIFIERS, Classifier, NetSpec, Residual, build, last_skips
from mibench.plugin import Card, Context
from mibench.registry import get_defense
from mibench.testing import checks_for
from mibench.training import Recipe, fit

SPEC = NetSpec(name="small_resnet14", width=4, channels=1, size=16, num_classes=4)
FLAT = ("mlp", "small_resnet", "small_vgg", "softmax_regression", "vgg16", "vgg16_bn")
NAMES = ("rolss", "ssf", "tts")


def defense(name: str, **fields: object) -> Any:
    return cast(Any, get_defense(name)).from_params(fields)


def make(name: str = "small_resnet14", seed: int = 0) -> Classifier:
    spec = NetSpec(name=name, width=4, channels=1, size=16, num_classes=4)
    return build(spec, torch.Generator().manual_seed(seed))


def images() -> Tensor:
    return torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def view(epochs: int = 2) -> DefenderView:
    labels = torch.arange(32) % 4
    data = Labeled(torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(2)), labels)
    recipe = Recipe(epochs=epochs, batch=16)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def scales(net: Classifier) -> list[float]:
    """The scale of every block with an identity shortcut, from shallow to deep."""
    return [block.skip_scale for block in net.modules() if isinstance(block, Residual) and block.has_identity]


def is_same(one: Classifier, other: Classifier) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def train(plugin: Any, epochs: int = 2) -> Classifier:
    net: Classifier = plugin.train(plugin.prepare(make()), view(epochs), Context(seed=3))
    return net


def test_k_zero_is_rolss_and_k_one_the_original_bit_for_bit() -> None:
    net, x = make().eval(), images()
    removed = defense("rolss").prepare(net)
    assert torch.equal(defense("ssf", k=0.0).prepare(net)(x), removed(x))
    assert torch.equal(defense("ssf", k=1.0).prepare(net)(x), net(x))
    weak = defense("ssf").prepare(net)
    assert not torch.equal(weak(x), removed(x))
    assert not torch.equal(weak(x), net(x))


@pytest.mark.parametrize("k", [0.0, 1.0])
def test_so_it_is_in_training(k: float) -> None:
    data = view()
    plain = fit(make(), data.private_train, Context(seed=3), recipe=data.recipe)
    got, removed = train(defense("ssf", k=k)), train(defense("rolss"))
    assert is_same(got, removed if k == 0 else plain)
    assert not is_same(removed, plain)


def test_gradients_pass_as_the_equation_says() -> None:
    """Over z' = g(z) + k z, a block's Jacobian is that of g plus k times the identity."""
    z = torch.rand(1, 16, 2, 2, generator=torch.Generator().manual_seed(4))
    net = make().eval()

    def jacobian(k: float) -> Tensor:
        (block,) = last_skips(defense("ssf", k=k).prepare(net))
        found: Tensor = torch.autograd.functional.jacobian(block, z)
        return found.reshape(64, 64)

    of_g = jacobian(0.0)
    assert torch.allclose(jacobian(0.2) - of_g, 0.2 * torch.eye(64), atol=1e-5)
    assert torch.allclose(jacobian(1.0) - of_g, torch.eye(64), atol=1e-5)


@pytest.mark.parametrize(("name", "wanted"), [("rolss", 0.0), ("ssf", 0.2), ("tts", 0.0)])
def test_the_last_stage_alone_is_touched_and_the_net_handed_in_is_not(name: str, wanted: float) -> None:
    net = make()
    assert scales(net) == [1.0] * 4  # two blocks in the first stage, one each in the others
    assert scales(defense(name).prepare(net)) == [1.0, 1.0, 1.0, wanted]
    assert scales(net) == [1.0] * 4


@pytest.mark.parametrize("name", NAMES)
def test_projected_shortcuts_stay(name: str) -> None:
    """A block that changes the shape answers as before, bit for bit."""
    before: Any
    after: Any
    before = make().eval()
    after = defense(name).prepare(before)
    z = torch.rand(1, 8, 4, 4, generator=torch.Generator().manual_seed(4))
    assert torch.equal(after.stages[2][0](z), before.stages[2][0](z))


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_state_is_rebuilt_by_prepare(name: str) -> None:
    plugin = defense(name)
    trained = train(plugin, epochs=1)
    again = plugin.prepare(make(seed=9))
    again.load_state_dict(trained.state_dict())
    again.eval()
    assert torch.equal(again(images()), trained(images()))
    assert scales(trained) == scales(again)


@pytest.mark.parametrize("name", NAMES)
def test_nets_without_such_shortcuts_are_refused_with_one_sentence(name: str) -> None:
    plugin = defense(name)
    for net in FLAT:
        assert plugin.misfit(NetSpec(name=net)) == (
            f"net '{net}' has no identity shortcut in its last stage. "
            "Choose a residual victim: inception_resnet_v1, ir50, small_convnext, small_resnet14."
        )
    for net in set(CLASSIFIERS) - set(FLAT):
        assert plugin.misfit(NetSpec(name=net)) == ""
    with pytest.raises(ValueError, match=f"{name}: net 'small_vgg' has no identity shortcut"):
        plugin.prepare(make("small_vgg"))


def test_tts_trains_with_shortcuts_first() -> None:
    """32 images in batches of 16 are 2 steps an epoch; 5 of 100 epochs of 20 are the first 2 of 40."""
    seen: list[float] = []

    class Watching(Recipe):
        def loss(self, net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            seen.append(scales(net)[-1])
            return super().loss(net, x, y)

    ctx, data = Context(), view().private_train
    recipe = Watching(epochs=20, batch=16)
    shown = DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)
    plugin = defense("tts")
    net = plugin.train(plugin.prepare(make()), shown, ctx)
    assert seen == [1.0] * 2 + [0.0] * 38
    assert ctx.notes["tts_steps"] == 2
    assert scales(net)[-1] == 0


def test_tts_without_a_first_stage_is_rolss_and_with_one_neither_that_nor_plain() -> None:
    removed = train(defense("rolss"))
    assert is_same(train(defense("tts", share=0.0)), removed)
    assert not is_same(train(defense("tts", share=0.5)), removed)


def test_tts_always_ends_without_shortcuts() -> None:
    """Also where its share rounds to all steps: the weights are those of plain training, the net is not."""
    data = view()
    plain = fit(make(), data.private_train, Context(seed=3), recipe=data.recipe)
    nearly = train(defense("tts", share=0.99))
    assert is_same(nearly, plain)
    assert scales(nearly)[-1] == 0
    assert not torch.equal(nearly(images()), plain(images()))


@pytest.mark.parametrize(
    ("name", "wrong", "match"),
    [
        ("ssf", {"k": -0.1}, r"ssf: k must lie in \[0, 1\], got -0.1"),
        ("ssf", {"k": 1.1}, r"ssf: k must lie in \[0, 1\], got 1.1"),
        ("tts", {"share": 1.0}, r"tts: share must lie in \[0, 1\), got 1.0"),
        ("tts", {"share": -0.1}, r"tts: share must lie in \[0, 1\), got -0.1"),
    ],
)
def test_wrong_fields_are_named(name: str, wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        defense(name, **wrong)


class Refusing(Defense):
    """A defense that no net of the checks suits."""

    name, card, acts = "refusing", Card(title="Test: refuses every net"), "training"

    def misfit(self, net: NetSpec) -> str:
        return f"net '{net.name}' is too small."

    def prepare(self, net: Classifier) -> Classifier:
        return net


def test_the_checks_take_a_net_that_fits_and_say_so_where_none_does() -> None:
    (check,) = [check for check in checks_for(get_defense("rolss")) if check.name == "survives_storing"]
    assert check.run().status == "ok"
    (check,) = [check for check in checks_for(Refusing) if check.name == "survives_storing"]
    told = check.run()
    assert told.status == "fail"
    assert "refuses all nets of the checks: net 'small_vgg' is too small." in told.text
