"""Known answers of MI-Face without gradients: its differences, their number, and what stops it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.errors import AccessError, QueryBudgetError
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim, freeze

SHAPE = (3, 4, 4)
PIXELS = 48


def bb(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("mi_face_bb").from_params(options)


def smooth(x: Tensor) -> Tensor:
    """Probabilities of three labels, smooth in the pixels."""
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(x[0].numel(), 16, generator=generator) / 4
    second = torch.randn(16, 3, generator=generator)
    return (torch.tanh(x.flatten(1) @ first) @ second).softmax(1)


def victim_of(released: Callable[[Tensor], Tensor], *, classes: int = 3, **options: Any) -> ScoreVictim:
    shape = options.pop("shape", SHAPE)
    return ScoreVictim(released, shape=shape, num_classes=classes, **options)


def scene_of(attack: Any, victim: ScoreVictim, *, max_batch: int = 256) -> Any:
    prior = {"mean": torch.full(victim.shape, 0.5)}
    return attack._scene(victim, prior, Context(max_batch=max_batch))


def images(count: int = 2) -> Tensor:
    return 0.2 + 0.6 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def measured(attack: Any, x: Tensor, victim: ScoreVictim | None = None, **limits: int) -> Tensor:
    """Gradients of the cost of label 1 at x."""
    labels = torch.ones(len(x), dtype=torch.int64)
    scene = scene_of(attack, victim or victim_of(smooth), **limits)
    slopes: Tensor = attack.measured(scene, x, labels, Noise.of_targets(7, labels), 0)
    return slopes


def exact(attack: Any, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(attack.cost(smooth(x)[:, 1]).sum(), x)
    return slope


def run(victim: ScoreVictim, targets: list[int], **options: Any) -> Reconstructions:
    ctx = Context(seed=11)
    attack = bb(**options)
    public = torch.linspace(0.2, 0.8, 5)[:, None, None, None].expand(5, *victim.shape)
    got: Reconstructions = attack.invert(victim, attack.learn_prior(public, ctx), torch.tensor(targets), ctx)
    return got


@pytest.mark.parametrize("loss", ["prob", "ce"])
def test_all_differences_are_the_gradient_and_cost_two_queries_a_pixel(loss: str) -> None:
    attack, victim = bb(loss=loss), victim_of(smooth)
    torch.testing.assert_close(measured(attack, images(), victim), exact(attack, images()), atol=1e-4, rtol=0)
    assert victim.queries.forward == 2 * 2 * PIXELS
    assert victim.queries.gradient == 0


def test_differences_at_the_border_of_the_box_are_one_sided_and_right() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor) -> Tensor:
        seen.append(x)
        return smooth(x)

    x = images().round()  # every pixel lies on the border
    attack = bb(loss="ce", delta=1e-3)
    torch.testing.assert_close(measured(attack, x, victim_of(watched)), exact(attack, x), atol=2e-3, rtol=0)
    assert 0 <= torch.cat(seen).min() <= torch.cat(seen).max() <= 1


def test_free_pixels_may_leave_the_box() -> None:
    x = images().round()
    attack = bb(loss="ce", process="none", delta=5e-3)
    torch.testing.assert_close(measured(attack, x), exact(attack, x), atol=1e-4, rtol=1e-3)


def test_a_subset_measures_some_pixels_of_each_row_and_leaves_the_others() -> None:
    attack, victim = bb(estimator="subset", samples=10), victim_of(smooth)
    got, full = measured(attack, images(), victim), exact(attack, images())
    assert (got != 0).flatten(1).sum(1).tolist() == [10, 10]
    torch.testing.assert_close(got[got != 0], full[got != 0], atol=1e-4, rtol=0)
    assert ((got != 0)[0] != (got != 0)[1]).any()
    assert victim.queries.forward == 2 * 2 * 10
    assert torch.equal(measured(bb(estimator="subset", samples=999), images()), measured(bb(), images()))


def test_random_directions_are_right_in_the_mean() -> None:
    attack = bb(estimator="directions", samples=4000, loss="ce")
    x, victim = images(1), victim_of(smooth)
    full = exact(attack, x)
    got = measured(attack, x, victim)
    assert victim.queries.forward == 2 * 4000
    # the error of a mean over m directions is about |g| sqrt(d / m)
    assert (got - full).norm() < 1.5 * full.norm() * math.sqrt(PIXELS / 4000)
    one = measured(bb(estimator="directions", samples=1, loss="ce"), x)
    assert one.abs().std() < 1e-5 * one.abs().mean()


@pytest.mark.parametrize("estimator", ["all", "subset", "directions"])
def test_the_chunk_size_changes_no_bit_of_the_sum(estimator: str) -> None:
    attack = bb(estimator=estimator, samples=9)

    def pixelwise(x: Tensor) -> Tensor:  # each image by itself, so that the victim's roundings are alike
        return torch.cat([smooth(one[None]) for one in x])

    whole = measured(attack, images(), victim_of(pixelwise))
    for max_batch in (1, 12):
        assert torch.equal(measured(attack, images(), victim_of(pixelwise), max_batch=max_batch), whole)


def test_blocks_of_pixels_give_the_mean_gradient_of_each_block() -> None:
    attack, victim = bb(cell=2, loss="ce"), victim_of(smooth)
    full = exact(attack, images())
    means = torch.nn.functional.avg_pool2d(full, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(measured(attack, images(), victim), means, atol=1e-4, rtol=0)
    assert victim.queries.forward == 2 * 2 * PIXELS // 4
    assert measured(bb(cell=3), images()).shape == (2, *SHAPE)


def test_a_whole_search_takes_the_path_of_the_gradient() -> None:
    net: Classifier = build(
        NetSpec(name="mlp", width=8, size=4, num_classes=3), torch.Generator().manual_seed(0)
    )
    freeze(net)
    options: dict[str, Any] = {
        "init": "grey",
        "loss": "ce",
        "step": 0.05,
        "max_iter": 5,
        "conf_stop": 1.0,
        "tv_weight": 0.01,
        "l2_weight": 0.02,
        "mean_weight": 0.03,
    }
    black = run(victim_of(lambda x: net(x).softmax(1)), [0, 2], **options, delta=1e-3)
    white_box: Any = get_attack("mi_face").from_params(options)
    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net)
    white = white_box.invert(victim, {"mean": torch.full(SHAPE, 0.5)}, torch.tensor([0, 2]), Context())
    torch.testing.assert_close(black.images, white.images, atol=2e-4, rtol=0)
    torch.testing.assert_close(black.confidence, white.confidence, atol=1e-4, rtol=0)


def test_a_step_costs_two_queries_a_pixel_and_one_for_the_cost() -> None:
    victim = victim_of(smooth)
    run(victim, [0, 1], init="mean", max_iter=3, conf_stop=1.0)
    assert victim.queries.forward == 2 * (3 * (2 * PIXELS + 1) + 1)


def test_a_row_that_is_sure_enough_is_not_measured() -> None:
    victim = victim_of(lambda x: torch.tensor([[0.995, 0.005, 0.0]]).expand(len(x), 3))
    got = run(victim, [0], init="grey")
    assert victim.queries.forward == 1
    assert got.confidence.item() == pytest.approx(0.995)


def test_two_labels_end_in_the_corner_of_the_box() -> None:
    weights = torch.tensor([[1.0, -2.0, 3.0], [-1.0, 1.0, 2.0]])
    victim = victim_of(lambda x: (x.flatten(1) @ weights.T).softmax(1), classes=2, shape=(3, 1, 1))
    got = run(victim, [0], max_iter=300, conf_stop=1.0)
    assert got.images.flatten().tolist() == [1.0, 0.0, 1.0]


def test_rounded_scores_give_no_gradient_so_the_start_comes_back() -> None:
    def rounded(x: Tensor) -> Tensor:
        return (smooth(x) * 10).round() / 10

    options: dict[str, Any] = {"init": "mean", "max_iter": 10, "conf_stop": 1.0, "step": 1.0}
    stuck = run(victim_of(rounded), [0, 1, 2], **options, patience=4)
    torch.testing.assert_close(stuck.images, torch.full((3, *SHAPE), 0.5))
    free = run(victim_of(smooth), [0, 1, 2], **options)
    assert (free.images - 0.5).abs().amax((1, 2, 3)).min() > 0.01


def test_a_label_is_not_enough_and_a_spent_budget_is_let_through() -> None:
    label: Any = LabelVictim(smooth, shape=SHAPE, num_classes=3)
    with pytest.raises(AccessError, match="a label-level victim has no 'scores'"):
        run(label, [0])
    with pytest.raises(QueryBudgetError, match="budget of 50 images"):
        run(victim_of(smooth, max_queries=50), [0], conf_stop=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"cell": 0}, "cell must be >= 1, got 0"),
        ({"delta": 0.0}, "delta must lie in"),
        ({"delta": 0.6}, "delta must lie in"),
        ({"process": "dae", "cell": 2}, "a code has no blocks of 2 pixels"),
        ({"max_iter": 0}, "max_iter must be >= 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"mi_face_bb: {message}"):
        bb(**options)


def test_it_shares_the_fields_of_the_white_box_attack() -> None:
    def names(attack: str) -> set[str]:
        return {one.name for one in dataclasses.fields(get_attack(attack))}

    assert names("mi_face_bb") - names("mi_face") == {"estimator", "samples", "delta", "cell"}
    assert not names("mi_face") - names("mi_face_bb")
