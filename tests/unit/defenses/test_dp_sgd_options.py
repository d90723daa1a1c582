"""DP-SGD's options: nets that it takes, memory that it bounds, other ways to clip, people as the unit."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe

SPEC = NetSpec(name="softmax_regression", channels=1, size=8, num_classes=4)
VGG = NetSpec(name="small_vgg", width=4, channels=1, size=16, num_classes=4)
# a plain step: no noise, a clipping norm that nothing reaches, no average, no learning rate schedule
PLAIN: dict[str, object] = {
    "noise_multiplier": 0.0,
    "max_grad_norm": 1e9,
    "ema": 0.0,
    "schedule": "constant",
    "public_epochs": 0,
    "epochs": 1,
}


def dp_sgd(**fields: object) -> Any:
    """The defense, found by name as its users find it; its type is unknown here."""
    return cast(Any, get_defense("dp_sgd"))(**fields)


def make(spec: NetSpec = SPEC) -> Classifier:
    return build(spec, torch.Generator().manual_seed(0))


def view(count: int, spec: NetSpec = SPEC, *, labels: Tensor | None = None) -> DefenderView:
    generator = torch.Generator().manual_seed(0)
    people = torch.arange(count) % 4 if labels is None else labels
    images = torch.rand(count, spec.channels, spec.size, spec.size, generator=generator)
    data = Labeled(images, people)
    recipe = Recipe(epochs=1, batch=8, flip=True, shift=1)
    return DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def moved_by(defense: Any, data: DefenderView, spec: NetSpec = SPEC, *, seed: int = 0) -> Tensor:
    """Change of all weights by a training from the same start."""
    start = weights(defense.prepare(make(spec)))
    return weights(defense.train(defense.prepare(make(spec)), data, Context(seed=seed))) - start


def gradient(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the mean loss of a batch, over all parameters in order."""
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize(
    "name", ["small_vgg", "vgg16", "vgg16_bn", "small_resnet", "small_resnet14", "small_convnext", "mlp"]
)
def test_on_every_kind_of_net_a_plain_step_follows_the_mean_gradient(name: str) -> None:
    """In two parts, so that gradients of single images, their sum and its parts are all right."""
    spec = NetSpec(name=name, width=4, size=32, num_classes=4)
    data = view(6, spec)
    # two large groups: Opacus' rule leaves so thin a vgg16_bn one value in a group, which normalizes to 0
    defense = dp_sgd(**PLAIN, batch=6, lr=1.0, max_physical_batch=4, groups=2)
    net = defense.prepare(make(spec))
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    wanted = -gradient(net.train(), data.private_train.images, data.private_train.labels)
    sizes = [p.numel() for p in net.parameters()]
    for got, want in zip(moved_by(defense, data, spec).split(sizes), wanted.split(sizes)):
        assert float((got - want).norm()) <= 1e-3 * float(want.norm()) + 1e-5  # rounding of weights near 1


@pytest.mark.filterwarnings("ignore:Full backward hook is firing when:UserWarning")
@pytest.mark.parametrize(
    ("kept", "is_right"), [(torch.channels_last, False), (torch.contiguous_format, True)]
)
def test_opacus_misreads_maps_that_lie_channels_last(kept: torch.memory_format, is_right: bool) -> None:
    """Why nets are trained contiguous; once the first case fails, Opacus is mended and that can go."""
    from opacus.grad_sample import GradSampleModule

    data = view(6, VGG).private_train
    net = dp_sgd().prepare(make(VGG)).train().to(memory_format=kept)
    wanted = gradient(net, data.images, data.labels)
    GradSampleModule(net)
    F.cross_entropy(net(data.images), data.labels).backward()
    samples = [cast(Any, p).grad_sample.mean(0).flatten() for p in net.parameters()]
    assert (float((torch.cat(samples) - wanted).norm()) < 1e-3 * float(wanted.norm())) == is_right


def test_an_image_alone_bounds_its_own_gradient() -> None:
    """The other images of a batch move its gradient nowhere."""
    data, norm = view(6, VGG), 1e-3
    fields = PLAIN | {"max_grad_norm": norm}
    sums = []
    for count in (5, 6):
        kept = Labeled(data.private_train.images[:count], data.private_train.labels[:count])
        part = DefenderView(private_train=kept, public=kept, targets=data.targets, recipe=data.recipe)
        sums.append(moved_by(dp_sgd(**fields, batch=count, lr=10.0), part, VGG) * count / 10)
    assert float((sums[1] - sums[0]).norm()) == pytest.approx(norm, rel=2e-2)


class Twice(Classifier):
    """Calls one layer twice in a forward pass, behind batch norm and a ReLU in place, like torchvision's."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.feature_dim = 6
        self.inlet = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.shared = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = self.inlet(x).mean((2, 3))
        return (torch.tanh(self.shared(torch.tanh(self.shared(hidden)))),)


def test_a_layer_that_is_called_twice_has_both_calls_in_its_gradient() -> None:
    data = view(6)
    defense = dp_sgd(**PLAIN, batch=6, lr=1e-2)
    net = defense.prepare(Twice())
    before = weights(net)
    wanted = -1e-2 * gradient(net.train(), data.private_train.images, data.private_train.labels)
    change = weights(defense.train(net, data, Context())) - before
    assert torch.allclose(change, wanted, rtol=1e-3, atol=1e-6)


def test_opacus_validator_is_blind_to_operations_in_place() -> None:
    """So that `prepare` has to look for them itself."""
    from opacus.validators import ModuleValidator

    fixed = ModuleValidator.fix(Twice())
    assert ModuleValidator.validate(fixed, strict=False) == []
    assert any(getattr(module, "inplace", False) for module in fixed.modules())
    assert not any(getattr(module, "inplace", False) for module in dp_sgd().prepare(Twice()).modules())


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is on, and their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        known = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, Tensor) and id(one.untyped_storage()) not in known:
                size = one.untyped_storage().nbytes()
                self.now += size
                self.peak = max(self.peak, self.now)
                weakref.finalize(one.untyped_storage(), self.free, size)
        return out

    def free(self, size: int) -> None:
        self.now -= size


def peak_bytes(spec: NetSpec, **fields: object) -> int:
    """Peak of a training's tensors above that of one which holds a single image's gradient."""
    peaks: list[int] = []
    for most in ({"max_physical_batch": 1}, fields):
        defense = dp_sgd(**PLAIN, batch=48, **most)
        net, data = defense.prepare(make(spec)), view(48, spec)
        with LiveBytes() as live:
            defense.train(net, data, Context())
        peaks.append(live.peak)
    return peaks[1] - peaks[0]


def test_the_gradients_of_single_images_stay_within_their_bound() -> None:
    """13,000 parameters: 12 images fit 1 MiB, and 48 do not."""
    spec = NetSpec(name="mlp", width=16, channels=3, size=16, num_classes=4)
    bound = 2**20
    assert dp_sgd(gradient_mib=1).physical_batch(make(spec)) == 10
    assert 0.7 * bound < peak_bytes(spec, gradient_mib=1) <= bound
    assert peak_bytes(spec, max_physical_batch=48) > 4 * bound


def test_a_bound_on_memory_leaves_at_least_one_image_and_at_most_max_physical_batch() -> None:
    net = make(NetSpec(name="mlp", width=200, channels=3, size=32, num_classes=4))
    assert dp_sgd(gradient_mib=1).physical_batch(net) == 1
    assert dp_sgd(gradient_mib=10**6, max_physical_batch=7).physical_batch(net) == 7
    net.requires_grad_(False).head.requires_grad_(True)  # 804 parameters, 800 of them in one tensor
    assert dp_sgd(gradient_mib=1, max_physical_batch=10**6).physical_batch(net) == 2**20 // (4 * 1604)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(({}, {"gradient_mib": 1}), id="bound in MiB"),
        pytest.param(({}, {"max_physical_batch": 5}), id="bound in images"),
    ],
)
def test_the_physical_batch_moves_results_by_roundings_alone(parts: tuple[dict[str, object], ...]) -> None:
    """With a schedule and augmentation, which would both see the parts if they were let."""
    spec = NetSpec(name="mlp", width=16, channels=3, size=16, num_classes=4)
    fields = {"noise_multiplier": 0.5, "batch": 24, "epochs": 4, "lr": 0.1, "augment": True}
    one, other = (moved_by(dp_sgd(**fields, public_epochs=0, **part), view(48, spec), spec) for part in parts)
    sizes = [dp_sgd(**part).physical_batch(make(spec)) for part in parts]
    assert sizes[0] > sizes[1]
    assert float((one - other).norm()) < 1e-4 * float(one.norm())


def test_the_learning_rate_follows_true_steps() -> None:
    """Twelve steps of a gradient that the bound C fixes: their lengths are those of the schedule."""
    fields = PLAIN | {"max_grad_norm": 1e-3, "momentum": 0.0, "schedule": "cosine", "epochs": 12}
    change = moved_by(dp_sgd(**fields, batch=1, lr=1.0), view(1))
    rates = [1.0] + [0.5 * (1 + math.cos(math.pi * step / 11)) for step in range(11)]
    assert float(change.norm()) == pytest.approx(1e-3 * sum(rates), rel=1e-2)


@pytest.mark.parametrize("norm", [1e-3, 0.05])
def test_each_layer_is_clipped_to_its_share(norm: float) -> None:
    """Weight and bias of one layer: each moves by C / sqrt(2), which together is C."""
    net, data = make(), view(1)
    before = [p.detach().clone() for p in net.parameters()]
    fields = PLAIN | {"max_grad_norm": norm}
    got = dp_sgd(**fields, batch=1, lr=1.0, clipping="per_layer").train(net, data, Context())
    moves = [float((new - old).norm()) for new, old in zip(got.parameters(), before)]
    assert moves == pytest.approx([norm / math.sqrt(2)] * 2, rel=1e-2)
    assert math.hypot(*moves) <= norm * (1 + 1e-6) + 1e-7  # rounding of weights near 1


def test_clipping_by_layer_takes_the_noise_of_the_whole_norm() -> None:
    spec = NetSpec(name="softmax_regression", channels=1, size=50, num_classes=4)  # 4 * 2500 + 4 weights
    fields = PLAIN | {"noise_multiplier": 4e3, "max_grad_norm": 1e-3}
    noise = moved_by(dp_sgd(**fields, batch=10, lr=1.0, clipping="per_layer"), view(10, spec), spec) * 10
    error = 1 / math.sqrt(2 * len(noise))  # relative standard error of a standard deviation
    assert float(noise.std()) == pytest.approx(4.0, rel=4 * error)


PEOPLE = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2])


def test_a_person_is_clipped_as_a_whole() -> None:
    """Each person's mean gradient, clipped, counts once, however many images the person has."""
    data, norm = view(9, labels=PEOPLE), 0.05
    fields = PLAIN | {"max_grad_norm": norm}
    net, wanted = make(), torch.zeros(len(weights(make())))
    for person in range(3):
        own = data.private_train.images[person == PEOPLE], PEOPLE[person == PEOPLE]
        grad = gradient(net, *own)
        assert float(grad.norm()) > norm
        wanted -= grad * norm / grad.norm() / 3
    got = moved_by(dp_sgd(**fields, batch=3, lr=1.0, unit="identity"), data)
    assert torch.allclose(got, wanted, atol=1e-5)


@pytest.mark.parametrize(("unit", "is_bounded"), [("identity", True), ("image", False)])
def test_a_person_moves_the_sum_by_no_more_than_c(unit: str, is_bounded: bool) -> None:
    """The person with five images, there or not: the sum of a step's gradients differs by at most C."""
    norm = 0.05
    sums = []
    for first in (0, 5):
        data = view(9, labels=PEOPLE)
        kept = Labeled(data.private_train.images[first:], PEOPLE[first:])
        count = len(kept.labels.unique()) if unit == "identity" else len(kept)
        fields = PLAIN | {"max_grad_norm": norm}
        part = DefenderView(private_train=kept, public=kept, targets=data.targets, recipe=data.recipe)
        sums.append(moved_by(dp_sgd(**fields, batch=count, lr=1.0, unit=unit), part) * count)
    assert (float((sums[0] - sums[1]).norm()) <= norm * (1 + 1e-3)) == is_bounded


def test_a_budget_for_people_counts_people() -> None:
    """Four people of 12 images each at rate 1/4, also where a batch is empty."""
    ctx, fields = Context(seed=1), {"noise_multiplier": 1.0, "delta": 0.1, "public_epochs": 0, "lr": 0.01}
    defense = dp_sgd(**fields, batch=1, epochs=4, unit="identity", augment=True)
    assert any(len(taken) == 0 for taken in defense._draw(4, ctx))
    net = defense.train(defense.prepare(make(VGG)), view(48, VGG), ctx)
    assert bool(torch.isfinite(weights(net)).all())
    assert (ctx.notes["dp_sample_rate"], ctx.notes["dp_steps"]) == (0.25, 16.0)
    assert ctx.notes["dp_unit"] == "identity"
    with pytest.raises(ValueError, match="below 1 / 4 private people"):
        dp_sgd(delta=0.3, unit="identity").train(make(), view(48), Context())


def test_a_tiny_rate_leaves_most_batches_empty_and_counts_them_all() -> None:
    ctx = Context()
    defense = dp_sgd(noise_multiplier=1.0, batch=1, epochs=1, public_epochs=0, lr=0.01, clipping="per_layer")
    data = view(60, VGG)
    assert sum(len(taken) == 0 for taken in defense._draw(60, ctx)) > 10
    net = defense.train(defense.prepare(make(VGG)), data, ctx)
    assert bool(torch.isfinite(weights(net)).all())
    assert (ctx.notes["dp_sample_rate"], ctx.notes["dp_steps"]) == (1 / 60, 60.0)


def test_public_training_and_frozen_layers_change_nothing_in_the_account() -> None:
    spent = []
    for fields in ({"public_epochs": 0}, {"public_epochs": 1}, {"public_epochs": 1, "trainable": "head"}):
        ctx = Context()
        defense = dp_sgd(noise_multiplier=1.0, batch=8, epochs=2, **fields)
        defense.train(defense.prepare(make(VGG)), view(16, VGG), ctx)
        spent.append(ctx.notes)
    assert spent[0] == spent[1] == spent[2]
    assert set(spent[0]) == {"dp_epsilon", "dp_delta", "dp_noise_multiplier", "dp_sample_rate", "dp_steps"}


def test_what_the_account_rests_on_is_among_the_fields_that_a_record_shows() -> None:
    fields = dp_sgd(epsilon=1.0, accountant="prv", max_grad_norm=0.1).params()
    wanted = {"epsilon": 1.0, "accountant": "prv", "max_grad_norm": 0.1, "delta": 1e-5, "trainable": "all"}
    assert {name: fields[name] for name in wanted} == wanted


def test_the_levels_of_its_knob_run_from_weak_to_strong() -> None:
    defense = cast(Any, get_defense("dp_sgd"))
    assert defense.strength == "epsilon"
    assert list(defense.strength_levels) == sorted(defense.strength_levels, reverse=True)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"gradient_mib": -1}, "gradient_mib must be >= 0"),
        ({"gradient_mib": 8, "unit": "identity"}, "gradient_mib = 8 does nothing with unit"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        dp_sgd(**wrong)
