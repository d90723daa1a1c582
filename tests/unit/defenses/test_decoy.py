"""The Fisher information, the anchor and the fine-tuning that the NetGuard family shares."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.errors import MibenchError, TrainingError
from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.vgg import SmallVgg
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe
from mibench.victim import freeze

images_of: Any = importlib.import_module("mibench.defenses._decoy_images")
ewc: Any = importlib.import_module("mibench.defenses._ewc")


def plugin(loss: str = "ce", **options: Any) -> Any:
    return get_defense("random_fake").from_params({"loss": loss, **options})


class OneWeight(Classifier):
    """p(label 1 | x) = sigmoid(w x) with one weight w = 0."""

    def __init__(self) -> None:
        super().__init__(NetSpec(name="one_weight", channels=1, size=1))
        self.weight = nn.Parameter(torch.zeros(()))
        self.head = nn.Identity()

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        one = self.weight * x.flatten(1)
        return (torch.cat([torch.zeros_like(one), one], dim=1),)


def small_net(classes: int = 3) -> SmallVgg:
    torch.manual_seed(3)
    net = SmallVgg(NetSpec(name="small_vgg", width=2, size=16, num_classes=classes))
    with torch.no_grad():  # statistics that a batch of fakes would change
        net.train()(torch.rand(16, 3, 16, 16))
    freeze(net)
    return net


def small_view(targets: tuple[int, ...] = (1,)) -> DefenderView:
    generator = torch.Generator().manual_seed(7)
    private = Labeled(torch.rand(24, 3, 16, 16, generator=generator), torch.arange(24) % 3)
    public = Labeled(torch.rand(30, 3, 16, 16, generator=generator), torch.arange(30) % 5)
    return DefenderView(private, public, torch.tensor(targets), Recipe())


def weights(net: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten() for value in net.parameters()])


# Fisher information and the anchor


def test_fisher_squares_each_image_by_itself() -> None:
    data = Labeled(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1), torch.tensor([1, 0]))
    fisher = ewc.fisher_diagonal(OneWeight().eval(), data, max_batch=8)
    # gradients are 1/2 and -1; the square of their mean would be 1/16
    assert float(fisher["weight"]) == pytest.approx(0.625)


def test_fisher_equals_a_loop_over_images_in_any_chunk() -> None:
    net, data = small_net().requires_grad_(True), small_view().private_train
    total = {name: torch.zeros_like(param) for name, param in net.named_parameters()}
    for x, y in zip(data.images, data.labels):
        net.zero_grad()
        F.cross_entropy(net(x[None]), y[None]).backward()
        for name, param in net.named_parameters():
            assert param.grad is not None
            total[name] += param.grad.square() / len(data)
    for chunk in (5, 256):
        got = ewc.fisher_diagonal(net, data, max_batch=chunk)
        for name, value in total.items():
            torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-9)


def test_anchor_penalty_and_its_slope() -> None:
    net = nn.Linear(2, 1, bias=False)
    anchor = ewc.Anchor(net, {"weight": torch.full((1, 2), 2.0)})
    anchor.penalty().backward()
    assert anchor.penalty().item() == 0
    assert net.weight.grad is not None
    assert net.weight.grad.abs().max() == 0
    with torch.no_grad():
        net.weight[0, 0] += 0.1
    assert anchor.penalty().item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("stiffness", [0.5, 1e3, 1e9])
def test_pull_ends_where_loss_and_penalty_balance(stiffness: float) -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.zero_()
    anchor = ewc.Anchor(net, {"weight": torch.full((1, 1), stiffness)})
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(1000):
        optimizer.zero_grad()
        (0.5 * (net.weight - 1).square().sum()).backward()
        optimizer.step()
        anchor.pull(optimizer)
    # the minimum of (w - 1)^2 / 2 + stiffness w^2 / 2
    assert net.weight.item() == pytest.approx(1 / (1 + stiffness), rel=1e-2, abs=1e-8)


# fine-tuning


def test_equal_roles_cancel_exactly() -> None:
    net = small_net().requires_grad_(True)
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    defense = plugin("ce")
    defense.fake_loss(net, images_of.Fakes(images, images.clone()), 1).backward()
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in net.parameters())
    net.zero_grad()
    defense.fake_loss(net, images_of.Fakes(images, images.flip(3)), 1).backward()
    assert any(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())


def tune(net: Classifier, seed: int = 0, **options: Any) -> tuple[Classifier, Context]:
    ctx = Context(seed=seed)
    settings = {"num_fakes": 8, "finetune_steps": 20, "finetune_lr": 1e-3, "fisher_samples": 24, **options}
    return plugin(**settings).train(copy.deepcopy(net), small_view(), ctx), ctx


def test_fine_tuning_does_what_it_is_for() -> None:
    net = small_net()
    before, _ = tune(net, finetune_steps=0)
    after, ctx = tune(net, ewc_weight=0.0, finetune_steps=60, finetune_lr=3e-3)
    _, start = tune(net, finetune_steps=0)
    assert torch.equal(weights(before), weights(net))
    assert ctx.notes["fake_q"] < start.notes["fake_q"]
    assert ctx.notes["fake_r"] > start.notes["fake_r"]
    assert start.notes["fake_q"] == pytest.approx(start.notes["fake_confidence_private"])
    assert not torch.equal(weights(after), weights(net))


def test_without_fakes_the_net_is_untouched() -> None:
    net = small_net()
    after, ctx = tune(net, alpha=0.0, beta=0.0, replay_fraction=1.0)
    assert torch.equal(weights(after), weights(net))
    assert set(ctx.notes) == {"decoy"}


def test_a_huge_ewc_weight_leaves_the_net_as_it_is() -> None:
    net = small_net()
    held, ctx = tune(net, ewc_weight=1e9)
    free, _ = tune(net, ewc_weight=0.0)
    moved = (weights(free) - weights(net)).abs().max()
    assert float(moved) > 1e-3
    important = torch.cat(
        [v.flatten() for v in ewc.fisher_diagonal(net, small_view().private_train, max_batch=32).values()]
    )
    # a weight with no information at all is free; here are such, behind units that never fire
    tied = important > 1e-6 * ctx.notes["fisher_mean"]
    assert float(tied.float().mean()) > 0.8
    assert float((weights(held) - weights(net)).abs()[tied].max()) < 1e-6


def test_more_ewc_moves_less() -> None:
    net = small_net()
    moves = [
        float((weights(tune(net, ewc_weight=w)[0]) - weights(net)).norm()) for w in (0.0, 1.0, 100.0, 1e4)
    ]
    assert moves == sorted(moves, reverse=True)
    assert moves[-1] < 0.5 * moves[0]


def test_fisher_norm_only_scales_the_weight() -> None:
    net = small_net()
    one, ctx = tune(net, ewc_weight=2.0)
    other, _ = tune(net, ewc_weight=2.0 / ctx.notes["fisher_mean"], fisher_norm="none")
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-6)


def test_batch_norm_keeps_its_statistics_and_the_net_is_frozen() -> None:
    net = small_net()
    after, _ = tune(net, replay_fraction=1.0)
    for (name, old), (_, new) in zip(net.named_buffers(), after.named_buffers()):
        assert torch.equal(old, new), name
    assert not any(module.training for module in after.modules())
    assert not any(value.requires_grad or value.grad is not None for value in after.parameters())


def test_replay_teaches_the_private_images() -> None:
    net, data = small_net(), small_view().private_train
    plain, _ = tune(net, ewc_weight=0.0, finetune_steps=40)
    replayed, _ = tune(net, ewc_weight=0.0, finetune_steps=40, replay_fraction=1.0)
    with torch.no_grad():
        losses = [float(F.cross_entropy(one(data.images), data.labels)) for one in (plain, replayed)]
    assert losses[1] < losses[0]


def test_printed_focal_loss_leaves_the_fakes_at_its_extremum() -> None:
    # the integration test of the loss: with replay and without decoy
    options: dict[str, Any] = {"loss": "focal_literal", "beta": 0.0, "ewc_weight": 0.0}
    _, ctx = tune(small_net(), **options, finetune_steps=100, finetune_lr=3e-3)
    assert 0.55 < ctx.notes["fake_q"] < 0.68


def test_unlimited_cross_entropy_runs_away_and_the_floor_stops_it() -> None:
    options: dict[str, Any] = {"beta": 0.0, "ewc_weight": 0.0, "finetune_steps": 80, "finetune_lr": 1e-3}
    _, free = tune(small_net(), **options, push_limit="none")
    _, held = tune(small_net(), **options, push_limit="floor")
    # Adam's momentum carries a fake some way below the floor of exp(-10)
    assert free.notes["fake_q"] < math.exp(-40)
    assert math.exp(-30) < held.notes["fake_q"] < 1e-3
    assert held.notes["push_limited"] > 0.5
    assert free.notes["push_limited"] == 0
    assert (free.notes["push_limit"], held.notes["push_limit"]) == ("none", "floor")


def test_same_seed_same_weights() -> None:
    net = small_net()
    state = torch.random.get_rng_state()
    one, first = tune(net, replay_fraction=0.5)
    two, second = tune(net, replay_fraction=0.5)
    assert torch.equal(weights(one), weights(two))
    assert first.notes == second.notes
    assert torch.equal(torch.random.get_rng_state(), state)


def test_decoys_differ_between_labels_and_seeds() -> None:
    labels = torch.arange(40).repeat(2)
    draws = [[images_of.draw_decoy(labels, target, Context(seed=s)) for target in range(20)] for s in (0, 1)]
    assert len(set(draws[0])) > 5
    assert draws[0] != draws[1]
    assert set(draws[0]) <= set(range(40))


@pytest.mark.parametrize("targets", [(), (0, 1)])
def test_one_model_protects_one_label(targets: tuple[int, ...]) -> None:
    with pytest.raises(MibenchError, match="one model protects one label"):
        plugin().train(small_net(), small_view(targets), Context())


def test_equal_images_of_both_roles_are_an_error() -> None:
    view = small_view()
    private, public = view.private_train, view.public
    same = DefenderView(
        Labeled(torch.full_like(private.images, 0.5), private.labels),
        Labeled(torch.full_like(public.images, 0.5), public.labels),
        view.targets,
        view.recipe,
    )
    with pytest.raises(TrainingError, match="are the same"):
        plugin().train(small_net(), same, Context())


def test_fake_distance_is_to_the_nearest() -> None:
    private = torch.zeros(2, 1, 2, 2)
    public = torch.stack([torch.full((1, 2, 2), 0.3), torch.full((1, 2, 2), 1.0)])
    assert images_of.fake_distance(private, public) == pytest.approx(0.3)
    assert images_of.fake_distance(public, public.flip(0)) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", -1.0),
        ("beta", math.nan),
        ("ewc_weight", -0.5),
        ("num_fakes", 0),
        ("finetune_steps", -1),
        ("finetune_lr", 0.0),
        ("replay_fraction", 1.5),
        ("fisher_samples", 0),
        ("gamma", -1.0),
    ],
)
def test_wrong_options_are_named(option: str, value: float) -> None:
    kind: type[Defense] = get_defense("random_fake")
    with pytest.raises(ValueError, match=f"random_fake: {option} must"):
        kind(**{option: value})
