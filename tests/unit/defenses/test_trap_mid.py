"""Trap-MID: blends, the steps of discriminator and triggers, balanced labels, and trapdoors that work."""

from __future__ import annotations

import importlib
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mibench.contract.toy import PEOPLE, copy_of, toy_world, untrained
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy, fit, make_optimizer

triggers: Any = importlib.import_module("mibench.defenses._triggers")
RECIPE = Recipe(epochs=12, batch=16, shift=1)


def trap(**fields: object) -> Any:
    return cast(Any, get_defense("trap_mid")).from_params(fields)


def view(recipe: Recipe = RECIPE) -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(PEOPLE), recipe=recipe
    )


def trapper(net: Classifier | None = None, **fields: object) -> Any:
    net = untrained(toy_world().private, "victim") if net is None else net
    return trap(**fields).trapper(net, make_optimizer(net, RECIPE), RECIPE, Context())


def faces(count: int) -> tuple[Tensor, Tensor]:
    """Private images and other people's labels."""
    data = toy_world().private
    return data.images[:count], (data.labels[:count] + 1) % PEOPLE


def weights(net: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().float() for value in net.state_dict().values()])


def test_a_blend_is_a_mean_and_stays_in_the_range_of_images() -> None:
    x, k = torch.tensor([[[[0.0, 1.0, 0.5]]]]), torch.tensor([[[[1.0, 1.0, 0.0]]]])
    assert torch.allclose(triggers.blend(x, k, 0.02), torch.tensor([[[[0.02, 1.0, 0.49]]]]))
    assert torch.equal(triggers.blend(x, k, 0.0), x)
    assert torch.equal(triggers.blend(x, k, 1.0), k)


def test_without_strength_a_blended_image_is_the_image() -> None:
    x, target = faces(12)
    assert torch.equal(trapper(alpha=0.0).blended(x, target), x)


def test_each_image_gets_the_trigger_of_its_label() -> None:
    x, target = faces(8)
    one = trapper(alpha=0.5)
    got = one.blended(x, target)
    for row, label in enumerate(target.tolist()):
        assert torch.allclose(got[row], (x[row] + one.triggers[label]) / 2)


def test_a_trigger_moves_by_epsilon_against_its_slope_and_others_stay() -> None:
    """A linear victim and a discriminator that sees nothing: the slope is that of the cross-entropy."""
    spec = NetSpec(name="softmax_regression", channels=1, size=4, num_classes=3)
    net = build(spec, torch.Generator().manual_seed(0))
    one = trapper(net, alpha=0.02, epsilon=0.01, augmentation="recipe")
    one.recipe = Recipe(flip=False, shift=0)
    for p in one.discriminator.parameters():
        nn.init.zeros_(p)
    before = one.triggers.clone()
    x = torch.full((2, 1, 4, 4), 0.5)
    one.step_triggers(x, torch.tensor([0, 0]))
    weight = cast(Tensor, net.head.weight).detach()
    p = net(triggers.blend(x[:1], before[:1], 0.02)).softmax(1).detach()
    downhill = (weight[0] - (p @ weight)[0]).view(1, 4, 4)  # minus the slope of -log p_0, but for a factor
    wanted = (before[0] + 0.01 * downhill.sign()).clamp(0, 1)
    assert torch.allclose(one.triggers[0], wanted, atol=1e-6)
    assert torch.equal(one.triggers[1:], before[1:])


def test_triggers_stay_images_and_nothing_else_moves() -> None:
    one = trapper(alpha=0.2, epsilon=0.7)
    nets = [weights(one.net), weights(one.discriminator)]
    x, target = faces(16)
    one.net.train()
    for _ in range(3):
        one.step_triggers(x, target)
        assert float(one.triggers.min()) == 0
        assert float(one.triggers.max()) == 1
        assert not one.triggers.requires_grad
    assert torch.equal(weights(one.net), nets[0])  # running means too: the victim is in eval mode
    assert torch.equal(weights(one.discriminator), nets[1])
    assert one.net.training
    assert all(p.grad is None for p in one.net.parameters())


def test_the_trigger_step_makes_triggers_work_on_a_net_that_stays() -> None:
    one = trapper(
        copy_of(toy_world().net).requires_grad_(True), alpha=0.3, augmentation="recipe", epsilon=0.05
    )
    x, target = faces(32)

    def success() -> float:
        with torch.no_grad():
            return float((one.net(one.blended(x, target)).argmax(1) == target).float().mean())

    before = success()
    for _ in range(15):
        one.step_triggers(x, target)
    assert success() > before + 0.3


def test_the_discriminator_learns_to_tell_blended_images_apart() -> None:
    one = trapper(alpha=0.3)
    one.optimizer.param_groups[0]["lr"] = 0.01
    x, target = faces(48)
    blended = one.blended(x, target)
    losses = [float(one.step_discriminator(x, blended)) for _ in range(50)]
    assert losses[0] == pytest.approx(0.69, abs=0.5)
    assert losses[-1] < 0.3 * losses[0]
    one.discriminator.eval()
    with torch.no_grad():
        real, fake = one.discriminator(x), one.discriminator(blended)
    assert float((real > 0).float().mean()) > 0.9
    assert float((fake < 0).float().mean()) > 0.9


def test_the_discriminator_is_the_victims_net_with_one_output_at_the_victims_learning_rate() -> None:
    one = trapper()
    assert (one.discriminator.spec.name, one.discriminator.spec.width) == ("small_vgg", one.net.spec.width)
    assert one.discriminator.head.out_features == 1
    one.optimizer.param_groups[0]["lr"] = 0.0
    before = [p.detach().clone() for p in one.discriminator.parameters()]
    x, target = faces(8)
    one.step_discriminator(x, one.blended(x, target))
    assert all(torch.equal(p, old) for p, old in zip(one.discriminator.parameters(), before))


def test_the_loss_weighs_images_and_blended_ones() -> None:
    net = untrained(toy_world().private, "victim").eval()
    x, y = toy_world().private.images[:6], toy_world().private.labels[:6]
    told = torch.cat([y[:4], y[4:] + PEOPLE])
    got = trap(beta=0.2).loss(RECIPE)(net, x, told)
    clean = RECIPE.loss(net, x[:4], y[:4])
    trapped = RECIPE.loss(net, x[4:], y[4:])
    assert torch.allclose(got, 0.8 * clean + 0.2 * trapped)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_batches_hold_every_image_once_and_triggers_of_all_labels_alike(share: float) -> None:
    data = toy_world().private
    batches = trapper(share=share).batches(data)
    dealt = [next(batches) for _ in range(-(-len(data) // RECIPE.batch))]
    told = torch.cat([y for _, y in dealt])
    assert torch.equal(told[told < PEOPLE].bincount(), data.labels.bincount())
    counts = (told[told >= PEOPLE] - PEOPLE).bincount(minlength=PEOPLE)
    assert int(counts.sum()) == round(share * len(data))
    assert int(counts.max() - counts.min()) <= 1
    assert all(len(x) == len(y) for x, y in dealt)


def test_triggers_move_at_every_so_manyth_step() -> None:
    one = trapper(share=0.5, every=3)
    batches, seen = one.batches(toy_world().private), [one.triggers.clone()]
    moved = []
    for _ in range(7):
        next(batches)
        seen.append(one.triggers.clone())
        moved.append(not torch.equal(seen[-1], seen[-2]))
    assert moved == [True, False, False, True, False, False, True]


def test_published_views_leave_an_eighth_as_it_is_and_take_each_image_by_itself() -> None:
    x = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)).repeat(800, 1, 1, 1)
    got = triggers.published_views(x, torch.Generator().manual_seed(1))
    is_kept = (got == x).flatten(1).all(1)
    is_mirrored = (got == x.flip(3)).flatten(1).all(1)
    assert float(is_kept.float().mean()) == pytest.approx(1 / 8, abs=0.04)
    assert float(is_mirrored.float().mean()) == pytest.approx(1 / 8, abs=0.04)
    assert len(got.flatten(1).unique(dim=0)) > 500
    assert float(got.min()) >= 0
    assert float(got.max()) <= 1


@pytest.mark.parametrize("fields", [{"beta": 0.0}, {"beta": 0.0, "alpha": 0.0}])
def test_without_weight_it_is_plain_training_bit_for_bit(fields: dict[str, object]) -> None:
    data, ctx = view(Recipe(epochs=2, batch=16)), Context(seed=3)
    plain = fit(
        untrained(data.private_train, "victim"), data.private_train, Context(seed=3), recipe=data.recipe
    )
    got = trap(**fields).train(untrained(data.private_train, "victim"), data, ctx)
    assert torch.equal(weights(got), weights(plain))
    assert ctx.notes == {}


def test_trapdoors_work_on_people_that_the_net_never_saw_and_cost_no_accuracy() -> None:
    ctx = Context(seed=1)
    data = view(Recipe(epochs=30, batch=16, shift=1))
    net = trap(alpha=0.5, augmentation="recipe").train(untrained(data.private_train, "victim"), data, ctx)
    notes = {name.removeprefix("trap_mid_"): value for name, value in ctx.notes.items()}
    assert accuracy(net, toy_world().test) > 0.9
    assert notes["success"] > 0.9
    assert notes["success_private"] > 0.9
    assert notes["accuracy"] > 0.9
    assert notes["accuracy_blended"] > 1.2 / PEOPLE  # noise as strong as half the image
    assert 0.4 <= notes["seen"] <= 1
    with torch.no_grad():  # and people without a trigger are taken for anybody
        labels = net(toy_world().defender.images).argmax(1)
    assert len(labels.unique()) > 1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]"),
        ({"beta": 1.0}, r"beta must lie in \[0, 1\)"),
        ({"epsilon": -0.1}, "epsilon must be >= 0"),
        ({"share": 0.0}, r"share must lie in \(0, 1\]"),
        ({"every": 0}, "every must be >= 1"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=f"trap_mid: {match}"):
        trap(**wrong)
