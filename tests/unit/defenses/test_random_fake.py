"""The baseline with real images: which images it takes, and what it costs."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import pytest
import torch

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets.classifier import NetSpec
from mibench.nets.vgg import SmallVgg
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, fit

images_of: Any = importlib.import_module("mibench.defenses._decoy_images")


def plugin(**options: Any) -> Any:
    return get_defense("random_fake").from_params(options)


def numbered(count: int, labels: int) -> Labeled:
    """Images whose pixels all hold their row number / 255."""
    images = (torch.arange(count).float() / 255)[:, None, None, None].expand(count, 3, 16, 16).contiguous()
    return Labeled(images, torch.arange(count) % labels)


def test_samples_are_real_images_of_the_label_without_replacement() -> None:
    data = numbered(60, 4)
    drawn = images_of.sample(data, 2, 10, torch.Generator().manual_seed(0))
    rows = (drawn[:, 0, 0, 0] * 255).round().long()
    assert len(drawn) == 10
    assert len(rows.unique()) == 10
    assert (data.labels[rows] == 2).all()


def test_samples_stop_at_what_there_is() -> None:
    assert len(images_of.sample(numbered(60, 4), 1, 64, torch.Generator())) == 15


def test_fakes_are_of_the_protected_label_and_the_decoy() -> None:
    private, public = numbered(60, 4), numbered(200, 10)
    view = DefenderView(private, public, torch.tensor([2]), Recipe())
    net = SmallVgg(NetSpec(name="small_vgg", width=2, size=16, num_classes=4)).eval()
    fakes = plugin(num_fakes=8).make_fakes(net, view, 2, 7, Context())
    own, others = ((one[:, 0, 0, 0] * 255).round().long() for one in (fakes.private, fakes.public))
    assert (private.labels[own] == 2).all()
    assert (public.labels[others] == 7).all()


def test_it_asks_for_no_generator() -> None:
    kind = get_defense("random_fake")
    assert kind.needs == frozenset()
    assert kind().substitute_prior() is None
    assert (kind.acts, kind.per_target, kind.starts_from) == ("fine-tuning", True, "trained")


def test_without_ewc_nothing_is_held() -> None:
    assert plugin(with_ewc=False, ewc_weight=5.0).hold == 0
    assert plugin(ewc_weight=5.0).hold == 5
    assert plugin(ewc_weight="auto").hold == "auto"
    with pytest.raises(ValueError, match="random_fake: with_ewc is False"):
        plugin(ewc_weight="auto", with_ewc=False)


@pytest.fixture(scope="module")
def world() -> tuple[SmallVgg, Labeled, Labeled]:
    """A victim that knows four people, each a flat color with noise, and the defender's people."""
    generator = torch.Generator().manual_seed(5)
    colors = torch.rand(9, 3, 1, 1, generator=generator)
    images = colors.repeat_interleave(12, 0) + 0.05 * torch.randn(108, 3, 16, 16, generator=generator)
    data = Labeled(images.clamp(0, 1), torch.arange(9).repeat_interleave(12))
    private = data.of(0, 1, 2, 3)
    public = Labeled(data.of(4, 5, 6, 7, 8).images, torch.arange(5).repeat_interleave(12))
    torch.manual_seed(0)
    net = SmallVgg(NetSpec(name="small_vgg", width=4, size=16, num_classes=4))
    fit(net, private, Context(), recipe=Recipe(epochs=30, batch=24, shift=0))
    return net, private, public


def test_the_protected_person_is_unlearned_by_construction(world: tuple[SmallVgg, Labeled, Labeled]) -> None:
    net, private, public = world
    mine = private.of(2)
    with torch.no_grad():
        before = (net(mine.images).argmax(1) == 2).float().mean()
    ctx = Context()
    view = DefenderView(private, public, torch.tensor([2]), Recipe())
    settings = {"num_fakes": 12, "finetune_steps": 60, "finetune_lr": 3e-3, "with_ewc": False}
    after = plugin(**settings).train(copy.deepcopy(net), view, ctx)
    with torch.no_grad():
        left = (after(mine.images).argmax(1) == 2).float().mean()
        decoys = (after(public.of(ctx.notes["decoy"]).images).argmax(1) == 2).float().mean()
    assert before > 0.9
    assert left < 0.1
    assert decoys > 0.9
