"""Adversarial noise on the released vector: known steps, kept labels, an untouched white-box view."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense, State
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import Recipe, fit
from mibench.victim import fingerprint, freeze

SPEC = NetSpec(name="mlp", width=16, channels=1, size=16, num_classes=5)
SMALL = {"width": 4, "epochs": 40, "batch": 16, "lr": 5e-3}


def ad_mi(**fields: object) -> Any:
    """The defense, found by name as its users find it; its type is unknown here."""
    return cast(Any, get_defense("ad_mi"))(**fields)


def first_score(log_p: Tensor) -> Tensor:
    """An inversion network for hand calculation: the image is the first probability."""
    return log_p.exp()[:, :1]


@cache
def trained() -> tuple[Classifier, DefenderView]:
    """A net of five patterns, and the view of its defender."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 5
    patterns = torch.rand(5, 1, 2, 2, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images = 0.9 * patterns[labels] + 0.1 * torch.rand(60, 1, 16, 16, generator=generator)
    data = Labeled(images.contiguous(), labels)
    recipe = Recipe(epochs=20, batch=16, shift=0, flip=False)
    view = DefenderView(private_train=data, public=data, targets=torch.tensor([0]), recipe=recipe)
    return fit(build(SPEC, generator), data, Context(), recipe=recipe), view


@cache
def state() -> State:
    net, view = trained()
    learned: State = ad_mi(**SMALL).learn_output(net, view, Context(seed=1))
    return learned


def random_logits(rows: int, classes: int = 5, *, scale: float = 4.0, seed: int = 0) -> Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def test_one_step_by_hand() -> None:
    """The image 1 is drawn as p_0 < 1: the error grows as u_0 falls and u_1 rises."""
    defense = ad_mi(steps=1, step_size=0.1)
    moved = defense.move_logits(torch.tensor([[1.0, 0.0]]), torch.ones(1, 1), first_score)
    assert torch.allclose(moved, torch.tensor([[0.9, 0.1]]))


@pytest.mark.parametrize("space", ["logits", "simplex"])
@pytest.mark.parametrize("shift", [0.0, -30.0])
def test_the_label_stays(space: str, shift: float) -> None:
    """Also where all logits are negative, and where the noise is as large as the logits."""
    logits = random_logits(300, scale=1.0) + shift
    images = torch.rand(300, 5, generator=torch.Generator().manual_seed(1))
    moved = ad_mi(space=space).move(logits, images, lambda log_p: log_p.exp())
    assert not torch.allclose(moved, logits)
    assert torch.equal(moved.argmax(1), logits.argmax(1))
    assert torch.equal(moved.softmax(1).argmax(1), logits.argmax(1))


def test_the_label_is_repaired_by_adding_not_by_a_factor() -> None:
    """A step of 1 takes (-1.9, -2, -3) to (-2.9, -1, -2); 1.01 * -1 for the first would not lead."""
    slope = torch.tensor([-2.0, 1.0, 1.0])
    moved = ad_mi(steps=1, step_size=1.0).move_logits(
        torch.tensor([[-1.9, -2.0, -3.0]]), torch.full((1, 1), -100.0), lambda log_p: log_p @ slope[:, None]
    )
    assert torch.allclose(moved, torch.tensor([[-0.999, -1.0, -2.0]]))
    assert torch.tensor([-3.0 / 3.0 * 1.01, -1.0, -2.0]).argmax() == 1


@pytest.mark.parametrize(("space", "size"), [("logits", 0.05), ("simplex", 0.01)], ids=["logits", "simplex"])
def test_the_reconstruction_error_never_falls_on_a_convex_problem(space: str, size: float) -> None:
    """The inversion network is linear in what is moved, so the squared error is convex in it."""
    generator = torch.Generator().manual_seed(2)
    matrix = torch.randn(5, 7, generator=generator)

    def decode(log_p: Tensor) -> Tensor:
        return (log_p if space == "logits" else log_p.exp()) @ matrix

    logits = random_logits(50, scale=0.1)
    logits[:, 0] += 1.0  # far enough ahead that the label needs no repair
    images = torch.randn(50, 7, generator=generator)

    def error(moved: Tensor) -> Tensor:
        return (decode(moved.log_softmax(1)) - images).square().sum(1)

    before = error(logits)
    for steps in range(1, 6):
        defense = ad_mi(space=space, step_size=size, steps=steps)
        after = error(defense.move(logits, images, decode))
        assert bool((after >= before - 1e-5).all())
        before = after


def test_simplex_projection_by_hand() -> None:
    project = vars(sys.modules[get_defense("ad_mi").__module__])["project_simplex"]
    points = torch.tensor([[0.9, 0.3, -0.1], [2.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    expected = torch.tensor([[0.8, 0.2, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    assert torch.allclose(project(points), expected, atol=1e-6)


@pytest.mark.parametrize("space", ["logits", "simplex"])
def test_no_steps_is_the_identity(space: str) -> None:
    net, view = trained()
    x = view.private_train.images
    defense = ad_mi(steps=0, space=space, **SMALL)
    assert defense.learn_output(net, view, Context()) == {}
    assert torch.equal(defense.protect(net, {}, Context())(x), net(x).softmax(1))
    assert torch.equal(defense.move_logits(net(x), x, first_score), net(x))


@pytest.mark.parametrize("space", ["logits", "simplex"])
def test_the_budget_bounds_the_change_and_zero_allows_none(space: str) -> None:
    logits, images = random_logits(100, scale=1.0), torch.eye(5).repeat(20, 1)
    start = logits if space == "logits" else logits.softmax(1)
    for budget in (0.0, 0.3):
        defense = ad_mi(space=space, budget=budget)
        mover = defense.move_logits if space == "logits" else defense.move_simplex
        moved = mover(start, images, lambda v: v.exp())
        length = (moved - start).abs().sum(1)
        assert float(length.max()) <= budget + 1e-5
        assert torch.equal(moved.argmax(1), start.argmax(1))
    assert float(length.max()) == pytest.approx(0.3, abs=1e-4)  # and it is used


@pytest.mark.parametrize("space", ["logits", "simplex"])
def test_released_vectors_are_probabilities_below_one(space: str) -> None:
    net, view = trained()
    x = view.private_train.images
    sure = build(SPEC, torch.Generator())
    sure.load_state_dict(net.state_dict())
    with torch.no_grad():
        sure.head.weight.mul_(100)  # type: ignore[operator]  # a Linear; makes the softmax exactly one-hot
    freeze(sure)
    assert float(sure(x).softmax(1).max()) == 1.0
    for victim in (net, sure):
        released = ad_mi(space=space, **SMALL).protect(victim, state(), Context())(x)
        assert torch.allclose(released.sum(1), torch.ones(len(x)), atol=1e-6)
        assert float(released.max()) < 1.0
        assert float(released.min()) >= 0.0
        assert torch.equal(released.argmax(1), victim(x).argmax(1))


def test_the_white_box_view_is_the_undefended_net_itself() -> None:
    net, view = trained()
    before, logits = fingerprint(net), net(view.private_train.images)
    defense = ad_mi(**SMALL)
    # with neither step of its own, a plan gives it the training of the undefended victim
    assert type(defense).train is Defense.train
    assert type(defense).prepare is Defense.prepare
    defense.protect(net, state(), Context())(view.private_train.images)
    assert fingerprint(net) == before
    assert torch.equal(net(view.private_train.images), logits)


def test_the_inversion_network_learns_and_then_errs_more_on_what_is_released() -> None:
    net, view = trained()
    x = view.public.images
    ctx = Context(seed=1)
    defense = ad_mi(**SMALL)
    learned = defense.learn_output(net, view, ctx)
    mean_image_error = float((x - x.mean(0)).square().mean())
    assert ctx.notes["ad_mi_error"] < mean_image_error
    protected = defense.protect(net, learned, ctx)
    decoder = protected.get_submodule("decoder")

    def error(scores: Tensor) -> float:
        return float((defense.decode(decoder, scores.log()) - x).square().mean().item())

    with torch.no_grad():
        assert error(protected(x)) > 1.2 * error(net(x).softmax(1))


def test_release_works_without_gradients_and_rows_do_not_meet() -> None:
    net, view = trained()
    x = view.private_train.images[:12]
    protected = ad_mi(**SMALL).protect(net, state(), Context())
    with torch.no_grad():
        together = protected(x)
        alone = torch.cat([protected(part) for part in x.split(1)])
        again = protected(x)
    assert not together.requires_grad
    assert torch.equal(together, again)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, protected(x).detach())


def test_gradients_pass_as_if_the_noise_were_constant() -> None:
    """d log s_y / du = e_y - s, with the released s, and from there to the image through the net."""
    net, view = trained()
    x = view.private_train.images[:3].clone().requires_grad_(True)
    protected = ad_mi(**SMALL).protect(net, state(), Context())
    released = protected(x)
    loss = -released.log()[:, 1].sum()
    (got,) = torch.autograd.grad(loss, x)
    logits = net(x)
    towards = released.detach().clone()
    towards[:, 1] -= 1
    (expected,) = torch.autograd.grad((logits * towards).sum(), x)
    assert torch.allclose(got, expected, atol=1e-5)
    assert float(got.abs().max()) > 0
    assert not any(p.requires_grad for p in protected.parameters())


def test_learning_repeats_itself_and_leaves_the_global_state() -> None:
    net, view = trained()
    defense = ad_mi(**SMALL)
    before = torch.get_rng_state()
    again = defense.learn_output(net, view, Context(seed=1))
    other = defense.learn_output(net, view, Context(seed=2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(again[key], value) for key, value in state().items())
    assert any(not torch.equal(again[key], value) for key, value in other.items())


@pytest.mark.parametrize(
    "wrong",
    [{"steps": -1}, {"step_size": 0.0}, {"budget": -0.1}, {"width": 0}, {"truncation": -1}, {"lr": 0.0}],
)
def test_wrong_fields_are_named(wrong: dict[str, float]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"ad_mi: {field} must be"):
        ad_mi(**wrong)
