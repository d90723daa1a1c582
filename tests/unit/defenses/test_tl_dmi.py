"""TL-DMI: what is frozen stays bit for bit, and holds nothing of the private images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, fit

VGG = NetSpec(name="small_vgg", width=4, channels=1, size=16, num_classes=4)
SHORT = {"pretrain_epochs": 1, "head_epochs": 1}


def tl_dmi(**fields: object) -> Any:
    return cast(Any, get_defense("tl_dmi")).from_params(fields)


def make(name: str = "small_vgg") -> Classifier:
    return build(replace(VGG, name=name), torch.Generator().manual_seed(0))


def labeled(seed: int, people: int) -> Labeled:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(32) % people
    return Labeled(torch.rand(32, 1, 16, 16, generator=generator), labels)


def view(private: int = 0) -> DefenderView:
    return DefenderView(
        private_train=labeled(private, 4),
        public=labeled(9, 6),
        targets=torch.tensor([0]),
        recipe=Recipe(epochs=1, batch=16),
    )


def first_stages(net: Classifier, count: int) -> set[str]:
    return {name for name in net.state_dict() if name.startswith(tuple(f"stages.{i}." for i in range(count)))}


@pytest.mark.parametrize("fields", [{"frozen_blocks": 2}, {"frozen_share": 0.44}])
@pytest.mark.parametrize("freeze_bn", [True, False])
def test_frozen_tensors_do_not_hang_on_private_images(fields: dict[str, float], freeze_bn: bool) -> None:
    """Two of four stages are 4 of 9 layers with weights; statistics drift unless they are held too."""
    defense = tl_dmi(**fields, **SHORT, freeze_bn=freeze_bn)
    one, other = (defense.train(make(), view(seed), Context()).state_dict() for seed in (0, 1))
    frozen = first_stages(make(), 2)
    assert len(frozen) == 14  # convolution and norm, twice: weight, bias; and three buffers of each norm
    for name, tensor in one.items():
        if name.endswith("num_batches_tracked"):
            continue
        is_same = name in frozen and (freeze_bn or "running" not in name)
        assert torch.equal(tensor, other[name]) == is_same, name


def test_frozen_tensors_are_those_of_the_pre_training() -> None:
    """Buffers and counters included, against a training that met no private image."""
    defense = tl_dmi(frozen_blocks=2, freeze_bn=True, **SHORT)
    got = defense.train(make(), view(), Context()).state_dict()
    public = make()
    defense._learn_public(public, view(), view().recipe, Context().child("public"))
    for name in first_stages(public, 2):
        assert torch.equal(got[name], public.state_dict()[name]), name
    assert not torch.equal(got["stages.2.0.weight"], public.state_dict()["stages.2.0.weight"])


def test_what_is_frozen_is_counted_from_the_image_on() -> None:
    x = torch.rand(1, 1, 16, 16)
    net = make()
    assert tl_dmi(frozen_blocks=1).frozen(net, x) == {
        f"stages.0.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")
    }
    assert tl_dmi(frozen_share=0.0).frozen(net, x) == frozenset()
    everything = {name for name, _ in net.named_parameters()}
    assert tl_dmi(frozen_share=0.99).frozen(net, x) == {n for n in everything if not n.startswith("head.")}
    # the published index of VGG-16-BN: three blocks and the first convolution of the fourth
    big = build(replace(VGG, name="vgg16_bn", size=32, width=2), torch.Generator().manual_seed(0))
    frozen = tl_dmi().frozen(big, torch.rand(1, 1, 32, 32))
    wanted = first_stages(big, 3) | {f"stages.3.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")}
    assert frozen == {name for name in wanted if "running" not in name and "num_" not in name}


def test_a_residual_net_freezes_its_stem_with_its_first_block() -> None:
    frozen = tl_dmi(frozen_blocks=1).frozen(make("small_resnet"), torch.rand(1, 1, 16, 16))
    assert "stem.weight" in frozen
    assert not any(name.startswith(("stages.1", "norm", "head")) for name in frozen)


def test_asking_what_is_frozen_changes_nothing() -> None:
    net = make().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    for fields in ({"frozen_blocks": 2}, {"frozen_share": 0.5}):
        tl_dmi(**fields).frozen(net, torch.rand(1, 1, 16, 16))
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any(p.requires_grad for p in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_switched_off_it_is_plain_training_bit_for_bit() -> None:
    data = view()
    plain = fit(make(), data.private_train, Context(seed=1), recipe=data.recipe)
    off = tl_dmi(frozen_share=0.0, pretrain_epochs=0, head_epochs=0).train(make(), data, Context(seed=1))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(off.state_dict()[name], tensor), name


def test_the_head_learns_alone_first_and_everything_ends_frozen() -> None:
    """With a fine-tuning rate near zero only the head's own training moves anything."""
    data = view()
    still = replace(data, recipe=Recipe(epochs=1, batch=16, lr=1e-12, weight_decay=0.0))
    defense = tl_dmi(frozen_share=0.3, **SHORT)
    ctx = Context()
    net = defense.train(make(), still, ctx)
    assert not any(p.requires_grad for p in net.parameters())
    assert net.head.weight.shape == (4, net.feature_dim)
    assert 0 < ctx.notes["tl_frozen"] < 0.1  # the first layers are small
    moved = defense.train(make(), data, Context())
    assert not torch.equal(moved.head.weight, net.head.weight)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"frozen_blocks": -1}, "frozen_blocks must be >= 0"),
        ({"frozen_share": 1.0}, r"frozen_share must lie in \[0, 1\)"),
        ({"head_epochs": -1}, "head_epochs must be >= 0"),
        ({"pretrain_epochs": 0}, "freezes layers that nothing has trained"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        tl_dmi(**wrong)


def test_a_net_of_too_few_blocks_is_named() -> None:
    with pytest.raises(ValueError, match="it has 4 hidden blocks, not 5"):
        tl_dmi(frozen_blocks=5).frozen(make(), torch.rand(1, 1, 16, 16))
    flat = build(replace(VGG, name="softmax_regression", width=0), torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="no weights lie before its block 1"):
        tl_dmi(frozen_blocks=1).frozen(flat, torch.rand(1, 1, 16, 16))
