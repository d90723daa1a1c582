"""DP-SGD: clipping, noise and accounting against what the mathematics says, and a clean net at the end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, accuracy

SPEC = NetSpec(name="softmax_regression", channels=1, size=8, num_classes=4)
VGG = NetSpec(name="small_vgg", width=4, channels=1, size=16, num_classes=4)
# a plain step: no noise, a clipping norm that nothing reaches, no average, no learning rate schedule
PLAIN: dict[str, object] = {
    "noise_multiplier": 0.0,
    "max_grad_norm": 1e9,
    "ema": 0.0,
    "schedule": "constant",
    "public_epochs": 0,
}
NOISY = {"noise_multiplier": 1.0}  # saves the search for a calibrated one


def dp_sgd(**fields: object) -> Any:
    """The defense, found by name as its users find it; its type is unknown here."""
    return cast(Any, get_defense("dp_sgd"))(**fields)


def make(spec: NetSpec = SPEC) -> Classifier:
    return build(spec, torch.Generator().manual_seed(0))


def view(count: int, *, size: int = 8, seed: int = 0) -> DefenderView:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    patterns = torch.rand(4, 1, size, size, generator=generator)
    images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, 1, size, size, generator=generator)
    data = Labeled(images, labels)
    recipe = Recipe(epochs=2, batch=8, flip=False, shift=0)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def moved_by(defense: Any, data: DefenderView, ctx: Context) -> Tensor:
    """Change of all weights by a training from the same start."""
    return weights(defense.train(make(), data, ctx)) - weights(make())


def test_without_noise_and_clipping_it_is_plain_sgd_on_the_whole_batch() -> None:
    """Sample rate 1 takes every image in every Poisson batch."""
    data = view(12)
    net = make()
    x, y = data.private_train.images, data.private_train.labels
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3, momentum=0.9)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    got = dp_sgd(**PLAIN, batch=12, epochs=4, lr=0.3).train(make(), data, Context())
    assert torch.allclose(weights(got), weights(net), atol=1e-6)


@pytest.mark.parametrize("norm", [1e-3, 0.05])
def test_each_images_gradient_is_clipped(norm: float) -> None:
    """One image, one step of lr 1: the weights move by the clipped gradient and by no more than C."""
    for seed in range(5):
        fields = PLAIN | {"max_grad_norm": norm}
        change = moved_by(dp_sgd(**fields, batch=1, epochs=1, lr=1.0), view(1, seed=seed), Context())
        assert float(change.norm()) <= norm * (1 + 1e-6) + 1e-7  # rounding of weights near 1
        assert float(change.norm()) == pytest.approx(norm, rel=1e-2)


def test_the_noise_of_the_summed_gradient_has_deviation_sigma_times_c() -> None:
    """A gradient of at most N * C = 1e-2 vanishes in noise of deviation 4; z-test over 10**4 weights."""
    spec = replace(SPEC, size=50)  # 4 * 2500 + 4 weights
    start = weights(make(spec))
    defense = dp_sgd(
        noise_multiplier=4e3, max_grad_norm=1e-3, batch=10, epochs=1, lr=1.0, ema=0.0, public_epochs=0
    )
    noise = (weights(defense.train(make(spec), view(10, size=50), Context())) - start) * 10
    assert len(noise) > 10**4
    error = 1 / math.sqrt(2 * len(noise))  # relative standard error of a standard deviation
    assert float(noise.std()) == pytest.approx(4.0, rel=4 * error)
    assert abs(float(noise.mean())) < 4 * 4.0 / math.sqrt(len(noise))


def test_the_noise_multiplier_of_a_known_budget() -> None:
    """Opacus' Renyi accountant for N = 2000, B = 64, 20 epochs, epsilon 8, delta 1e-5."""
    defense = dp_sgd(batch=64, epochs=20)
    assert defense.sample_rate(2000) == 0.032
    assert defense.steps(2000) == 625
    assert defense.noise(2000) == pytest.approx(0.8557, abs=0.01)


def test_the_spent_epsilon_is_that_of_the_steps_that_were_taken() -> None:
    """One step at noise 1.0 and rate 0.25 costs 3.0808 at delta 1e-5 (Renyi); the training takes four."""
    from opacus.accountants import create_accountant

    accountant = create_accountant("rdp")
    accountant.history = [(1.0, 0.25, 1)]
    assert accountant.get_epsilon(delta=1e-5) == pytest.approx(3.0808, abs=1e-4)
    accountant.history = [(1.0, 0.25, 4)]
    ctx = Context()
    dp_sgd(**NOISY, batch=4, epochs=1, public_epochs=0).train(make(), view(16), ctx)
    assert ctx.notes["dp_steps"] == 4
    assert ctx.notes["dp_epsilon"] == accountant.get_epsilon(delta=1e-5)


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_a_calibrated_training_keeps_to_its_budget_and_says_so(accountant: str) -> None:
    ctx = Context()
    defense = dp_sgd(accountant=accountant, epsilon=4.0, batch=10, epochs=3, public_epochs=0)
    defense.train(make(), view(40), ctx)
    assert 3.5 < ctx.notes["dp_epsilon"] <= 4.0
    assert ctx.notes["dp_noise_multiplier"] == defense.noise(40)
    assert (ctx.notes["dp_sample_rate"], ctx.notes["dp_steps"], ctx.notes["dp_delta"]) == (0.25, 12.0, 1e-5)


def test_parts_of_a_batch_change_nothing_and_are_not_counted_as_steps() -> None:
    whole, in_parts = (
        dp_sgd(**NOISY, batch=16, epochs=3, max_physical_batch=part, schedule="constant", public_epochs=0)
        for part in (64, 3)
    )
    ctx = Context(seed=2)
    assert torch.allclose(moved_by(whole, view(48), ctx), moved_by(in_parts, view(48), ctx), atol=1e-5)
    assert ctx.notes["dp_steps"] == 9


def test_no_noise_is_reported_as_no_guarantee() -> None:
    ctx = Context()
    dp_sgd(**PLAIN, batch=4, epochs=1).train(make(), view(8), ctx)
    assert ctx.notes["dp_epsilon"] == "infinite"


def test_empty_batches_are_survived_and_counted() -> None:
    """Three images at rate 1/3: most trainings of 60 steps meet an empty batch (0.3 each)."""
    data, ctx = view(3, size=16), Context(seed=1)
    defense = dp_sgd(**NOISY, batch=1, epochs=20, lr=0.01, public_epochs=0)
    assert any(len(rows) == 0 for rows in defense._draw(3, ctx))
    net = defense.train(defense.prepare(make(VGG)), data, ctx)
    assert ctx.notes["dp_steps"] == 60
    assert bool(torch.isfinite(weights(net)).all())


def test_prepare_leaves_no_batch_norm_and_rebuilds_the_same_net() -> None:
    original = make(VGG)
    assert any(isinstance(module, nn.BatchNorm2d) for module in original.modules())
    first, second = (dp_sgd().prepare(make(VGG)) for _ in range(2))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in first.modules())
    assert any(isinstance(module, nn.GroupNorm) for module in first.modules())
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    frozen = make(VGG).eval().requires_grad_(False)
    assert dp_sgd().prepare(frozen).state_dict().keys() == first.state_dict().keys()


def test_groups_can_be_chosen() -> None:
    norms = [m for m in dp_sgd(groups=2).prepare(make(VGG)).modules() if isinstance(m, nn.GroupNorm)]
    assert norms
    assert {norm.num_groups for norm in norms} == {2}


class InPlaceNet(Classifier):
    """Breaks per-image gradients: ReLU overwrites what the layer before it handed to the hook."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.feature_dim = 6
        self.hidden = nn.Sequential(nn.Linear(64, 6), nn.ReLU(inplace=True))
        self.head = nn.Linear(6, 4)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.hidden(x.flatten(1)),)


def test_in_place_operations_break_opacus_and_are_taken_out() -> None:
    from opacus.grad_sample import GradSampleModule

    data = view(8)
    x = data.private_train.images
    with pytest.raises(RuntimeError, match="inplace"):
        GradSampleModule(InPlaceNet())(x).sum().backward()
    defense = dp_sgd(**PLAIN, batch=8, epochs=1)
    net = defense.prepare(InPlaceNet())
    before = weights(net)
    assert not torch.equal(weights(defense.train(net, data, Context())), before)


def test_the_same_seed_gives_the_same_net_and_the_global_state_stays() -> None:
    before = torch.get_rng_state()
    defense = dp_sgd(**NOISY, batch=8, epochs=2, augment=True, public_epochs=1)
    nets = [weights(defense.train(make(), view(32), Context(seed=seed))) for seed in (3, 3, 4)]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_the_trained_net_is_plain_and_frozen() -> None:
    defense = dp_sgd(**NOISY, batch=8, epochs=1, public_epochs=1)
    net = defense.prepare(make(VGG))
    got = defense.train(net, view(16, size=16), Context())
    assert got is net
    assert not got.training
    assert not any(module._forward_hooks or module._backward_hooks for module in got.modules())
    for parameter in got.parameters():
        assert not parameter.requires_grad
        assert not hasattr(parameter, "grad_sample")
    assert got.head.weight.shape == (4, got.feature_dim)


def test_a_frozen_backbone_meets_public_people_alone() -> None:
    """Other private images, same public ones: only the head may differ."""
    defense = dp_sgd(**NOISY, batch=8, epochs=2, public_epochs=1, trainable="head")
    data = view(16, size=16)
    other = replace(data, private_train=view(16, size=16, seed=5).private_train)
    first, second = (defense.train(defense.prepare(make(VGG)), one, Context()) for one in (data, other))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]) != name.startswith("head."), name


def test_the_average_lags_behind_the_last_weights() -> None:
    """Constant gradients would leave the average between the start and the end."""
    fields = PLAIN | {"batch": 12, "epochs": 5, "lr": 0.05, "momentum": 0.0}
    last = moved_by(dp_sgd(**fields), view(12), Context())
    average = moved_by(dp_sgd(**(fields | {"ema": 0.9})), view(12), Context())
    assert 0 < float(average.norm()) < float(last.norm())
    assert float(F.cosine_similarity(average, last, dim=0)) > 0.95


def test_it_learns_under_a_loose_budget() -> None:
    data = view(400)
    net = dp_sgd(epsilon=50.0, batch=200, epochs=10, public_epochs=0).train(make(), data, Context())
    assert accuracy(net, data.private_train) > 0.6


def test_delta_must_lie_below_one_over_the_number_of_images() -> None:
    with pytest.raises(ValueError, match=r"delta must lie below 1 / 20 private images \(0.05\)"):
        dp_sgd(delta=0.05).train(make(), view(20), Context())


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"epsilon": 0.0}, "epsilon must be > 0"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be > 0 and finite"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"groups": -1}, "groups must be >= 0"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"delta": 1.0}, "delta must lie in"),
        ({"noise_multiplier": -1.0}, "noise_multiplier must be >= 0"),
        ({"trainable": "head", "public_epochs": 0}, "freezes layers that nothing has trained"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dp_sgd(**wrong)
