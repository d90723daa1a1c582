"""Known answers of DeepInversion: batch statistics, variation, jitter, companies, planning."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.errors import BlockedError, QueryBudgetError
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import WhiteBoxVictim, fingerprint, freeze

deep: Any = importlib.import_module(get_attack("deep_inversion").__module__)
bn: Any = importlib.import_module("mibench.attacks._statistics")

CLASSES = 5
TINY: dict[str, Any] = {"steps": 6, "coarse_steps": 3, "company": 4, "warmup_steps": 2}


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("deep_inversion").from_params({**TINY, **options})


def net_of(name: str = "small_vgg") -> Classifier:
    spec = NetSpec(name=name, width=8, size=16, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(3))
    freeze(net)
    return net


def victim_of(net: Classifier | None = None, **options: Any) -> WhiteBoxVictim:
    held = net_of() if net is None else net
    return WhiteBoxVictim(lambda x: held(x).softmax(1), held, **options)


def run(
    targets: list[int], victim: WhiteBoxVictim | None = None, ctx: Context | None = None, **options: Any
) -> Reconstructions:
    attack, victim, ctx = attack_of(**options), victim or victim_of(), ctx or Context(seed=5)
    prior = attack.adapt_prior({}, victim, images(12), ctx)
    got: Reconstructions = attack.invert(victim, prior, torch.tensor(targets), ctx)
    return got


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


# batch statistics


class TwoNorms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.second(2 * self.first(x) + 1)
        return done


def store(layer: nn.BatchNorm2d, x: Tensor) -> None:
    """Make the statistics of x (N, C, H, W) those that the layer has stored."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.copy_(x.mean((0, 2, 3)))
    layer.running_var.copy_(x.var((0, 2, 3), unbiased=False))


def gap_of(net: nn.Module, x: Tensor, *, groups: int = 1, first: float = 1.0) -> Tensor:
    layers = bn.normalizations(net)
    with bn.statistics(layers, groups) as gaps:
        net(x)
    found: Tensor = bn.distance(gaps, layers, first)
    return found


def test_the_distance_is_zero_where_the_stored_statistics_are_the_batch_s() -> None:
    net, x = TwoNorms(), images(6)
    store(net.first, x)
    store(net.second, 2 * net.first(x) + 1)
    assert gap_of(net, x).item() == pytest.approx(0, abs=1e-5)
    assert gap_of(net, images(6, seed=1)).item() > 1e-2


def test_the_distance_is_the_length_of_both_differences_and_the_first_layer_is_scaled() -> None:
    net, x = TwoNorms(), images(6)
    store(net.first, x)
    assert net.first.running_mean is not None
    assert net.first.running_var is not None
    store(net.second, 2 * net.first(x) + 1)
    net.second.running_mean += torch.tensor([3.0, 4.0, 0.0])  # type: ignore[operator]  # a buffer of this layer
    assert gap_of(net, x).item() == pytest.approx(5, abs=1e-4)
    assert gap_of(net, x, first=10).item() == pytest.approx(5, abs=1e-4)
    store(net.second, x)
    plain = gap_of(net, x, first=0).item()
    net.first.running_var += torch.tensor([0.0, 0.3, 0.4])
    inputs = 2 * net.first(x) + 1
    second = [(inputs.mean((0, 2, 3)) - x.mean((0, 2, 3))).norm()]
    second.append((inputs.var((0, 2, 3), unbiased=False) - x.var((0, 2, 3), unbiased=False)).norm())
    assert gap_of(net, x, first=10).item() == pytest.approx(5 + float(sum(second)), rel=1e-4)
    assert plain > 0


def test_each_company_has_its_own_statistics_and_no_hook_is_left() -> None:
    net, x = TwoNorms(), images(6)
    apart = torch.cat([gap_of(net, x[:3]), gap_of(net, x[3:])])
    torch.testing.assert_close(gap_of(net, x, groups=2), apart)
    assert not any(layer._forward_pre_hooks for layer in net.modules())


def test_a_net_without_stored_statistics_is_blocked() -> None:
    with pytest.raises(BlockedError, match="stores no statistics, it has 0 BatchNorm2d"):
        run([0], victim_of(net_of("mlp")))


def test_a_view_that_does_not_lead_through_the_net_is_blocked() -> None:
    other = net_of()
    with pytest.raises(BlockedError, match="4 of 4 BatchNorm2d layers did not run"):
        run([0], victim_of(view=other))


# other terms


def test_the_variation_of_a_constant_image_is_zero_and_that_of_a_step_is_known() -> None:
    flat = torch.full((2, 3, 1, 4, 4), 0.7)
    assert deep.variation(flat).tolist() == [0.0, 0.0]
    step = torch.zeros(1, 1, 1, 3, 4)
    step[..., 2:] = 1
    # one pair across in each of three rows, none down, one pair along each diagonal in each of two row pairs
    assert deep.variation(step).item() == pytest.approx(math.sqrt(3) + 2 * math.sqrt(2))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), step=st.integers(0, 50), jitter=st.sampled_from([0.0, 0.2, 0.5]))
def test_the_jitter_is_a_bijection_alike_for_a_whole_company(seed: int, step: int, jitter: float) -> None:
    x = torch.arange(2 * 2 * 1 * 6 * 6).float().view(2, 2, 1, 6, 6)
    noise = Noise.of_targets(seed, torch.tensor([0, 1]))
    got = deep.jittered(x, noise, attack_of(jitter=jitter), "views", step)
    assert torch.equal(got.flatten(2).sort().values, x.flatten(2))
    torch.testing.assert_close(got[:, 1] - got[:, 0], torch.full((2, 1, 6, 6), 36.0))
    if jitter == 0:
        assert all(torch.equal(one, old) or torch.equal(one, old.flip(3)) for one, old in zip(got, x))


def test_rolls_reach_both_ends_of_their_range_and_half_of_the_views_are_mirrored() -> None:
    x = torch.zeros(1, 1, 1, 10, 10)
    x[..., 5, 4] = 1
    noise = Noise.of_targets(0, torch.tensor([3]))
    places, mirrored = set(), 0
    for step in range(400):
        row, col = (
            deep.jittered(x, noise, attack_of(jitter=0.2, flip=False), "v", step)[0, 0, 0]
            .nonzero()[0]
            .tolist()
        )
        places.add((row - 5, col - 4))
        both = deep.jittered(x, noise, attack_of(jitter=0.0), "v", step)[0, 0, 0].nonzero()[0].tolist()
        mirrored += both == [5, 5]
    assert places == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}
    assert 160 < mirrored < 240


def test_the_divergence_is_zero_for_equal_answers_and_symmetric() -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)) * 4
    first, second = logits
    torch.testing.assert_close(deep.divergence(first, first), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(deep.divergence(first, second), deep.divergence(second, first))
    sure = torch.tensor([[300.0, 0.0]])
    apart = 0.99 * math.log(0.99 / 0.5) + 0.01 * math.log(0.01 / 0.5)
    assert deep.divergence(sure, sure.flip(1)).item() == pytest.approx(apart, rel=1e-4)


def test_the_loss_is_the_sum_of_its_terms() -> None:
    victim, options = victim_of(), {"bn_weight": 0.3, "first_bn": 2.0, "tv_weight": 0.4, "l2_weight": 0.5}
    attack = attack_of(**options, jitter=0.0, flip=False)
    labels = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    shared = deep._Run(attack, victim, {}, Context())
    noise = Noise.of_targets(0, torch.tensor([0, 1]))
    states = torch.randn(2, 4 * 3 * 16 * 16, generator=torch.Generator().manual_seed(1))
    got, score = deep._Objective(shared, labels, noise, shrink=1, purpose="v")(states)
    for company in range(2):
        s = states[company].view(4, 3, 16, 16)
        x = 0.449 + 0.226 * s
        expected = F.cross_entropy(victim.net(x), labels[company])
        expected = expected + 0.3 * gap_of(victim.net, x, first=2.0)[0]
        expected = expected + 0.4 * deep.variation(s[None])[0] + 0.5 * s.flatten(1).norm(dim=1).mean()
        torch.testing.assert_close(got[company], expected)
    assert torch.equal(score, got)


def test_coarse_images_are_averages_that_the_victim_sees_enlarged() -> None:
    seen: list[Tensor] = []
    net = net_of()

    def view(x: Tensor) -> Tensor:
        seen.append(x.detach())
        logits: Tensor = net(x)
        return logits

    run([0], victim_of(net, view=view), jitter=0.0, flip=False)
    coarse, fine = seen[:4], seen[4:-1]
    assert len(fine) == 7
    for x in coarse:
        torch.testing.assert_close(x, F.interpolate(F.avg_pool2d(x, 2), scale_factor=2))
    assert all((x - F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)).abs().max() > 0.1 for x in fine)


# companies


@settings(deadline=None, max_examples=40)
@given(classes=st.integers(2, 9), size=st.integers(1, 12), seed=st.integers(0, 999))
def test_every_label_stands_in_its_company_once_a_round(classes: int, size: int, seed: int) -> None:
    ctx = Context(seed=seed)
    targets = torch.arange(classes).repeat(3)
    slots = deep.slots_of(targets, classes, ctx)
    assert slots.sort().values.tolist() == list(range(3 * classes))
    labels = deep.company_labels(slots // size, size, classes, ctx)
    assert torch.equal(labels.gather(1, (slots % size)[:, None]).squeeze(1), targets)


def test_a_label_ends_the_same_alone_in_company_and_in_chunks() -> None:
    together = run([1, 3, 1, 0])
    torch.testing.assert_close(run([1]).images, together.images[:1], atol=1e-5, rtol=0)
    torch.testing.assert_close(run([1, 1]).images, together.images[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(run([0, 3]).images, together.images[[3, 1]], atol=1e-5, rtol=0)
    chunked = run([1, 3, 1, 0], ctx=Context(seed=5, max_batch=1))
    torch.testing.assert_close(chunked.images, together.images, atol=1e-5, rtol=0)
    assert not torch.equal(together.images[0], together.images[2])


def test_the_statistics_come_near_those_stored_and_the_labels_are_found() -> None:
    victim = victim_of()
    options: dict[str, Any] = {"company": 5, "coarse_steps": 0, "jitter": 0.0, "flip": False, "first_bn": 1.0}
    start, end = (run(list(range(5)), victim, steps=steps, bn_weight=1.0, **options) for steps in (0, 60))
    assert gap_of(victim.net, end.images) < 0.8 * gap_of(victim.net, start.images)
    assert (end.confidence > start.confidence).all()
    blind = run(list(range(5)), victim, steps=60, bn_weight=0.0, **options)
    assert gap_of(victim.net, end.images) < gap_of(victim.net, blind.images)


# planning, curve, state


def test_queries_of_a_whole_company_are_counted_and_shared() -> None:
    victim = victim_of()
    got = run([0], victim)
    assert victim.queries.forward == 4 * (4 + 7) + 1
    assert got.effort is not None
    assert got.effort.queries.tolist() == [*range(4, 45, 4), 45]
    victim = victim_of()
    shared = run([0, 1, 2, 3, 4], victim, company=5)
    assert victim.queries.forward == 5 * (4 + 7) + 5
    assert shared.effort is not None
    assert shared.effort.queries.tolist() == list(range(1, 13))


@pytest.mark.parametrize("allowance", [9, 30, 44])
def test_an_allowance_shortens_both_resolutions(allowance: int) -> None:
    victim = victim_of(allowance=allowance, max_queries=allowance)
    got = run([2], victim)
    # less than a step of each resolution may be left over
    assert allowance - 8 < victim.queries.forward <= allowance
    assert got.effort is not None
    assert torch.isfinite(got.images).all()


def test_an_allowance_below_a_company_is_refused() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 8 queries"):
        run([2], victim_of(allowance=8))


def test_the_curve_ends_with_the_result_and_falls_at_each_resolution() -> None:
    effort = (got := run([1, 4], steps=40, jitter=0.0, flip=False)).effort
    assert effort is not None
    assert torch.equal(effort.images[-1], quantize(got.images))
    assert len(effort.queries) == len(effort.images) == len(effort.loss)
    fine = effort.loss[4:]
    assert (fine.diff(dim=0) <= 0).all()
    assert fine[-1].sum() < fine[0].sum()


def test_the_victim_and_the_global_generator_are_left_alone() -> None:
    victim, state = victim_of(), torch.get_rng_state()
    before = fingerprint(victim.net)
    one, two = run([0, 3], victim), run([0, 3], victim)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(run([0, 3], ctx=Context(seed=6)).images, one.images)
    assert fingerprint(victim.net) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(layer._forward_pre_hooks for layer in victim.net.modules())


def test_the_student_is_taught_once_and_moves_the_result() -> None:
    student = {"net": "small_resnet", "width": 8, "recipe": {"epochs": 1, "batch": 6}}
    victim = victim_of()
    with_student = run([0, 3], victim, student_weight=5.0, student=student)
    assert not torch.equal(with_student.images, run([0, 3]).images)
    plain = victim_of()
    run([0, 3], plain)
    assert victim.queries.forward == plain.queries.forward + 12  # its public images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be >= 0, got -1"),
        ({"company": 0}, "company must be >= 1 and lr > 0, got 0"),
        ({"lr": 0.0}, "company must be >= 1 and lr > 0, got 4 and 0.0"),
        ({"jitter": 0.6}, "jitter must lie in .* got 0.6"),
        ({"bn_weight": -1.0}, "bn_weight must be >= 0, got -1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"deep_inversion: {message}"):
        attack_of(**options)
