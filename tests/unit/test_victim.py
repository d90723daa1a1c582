"""Victims give what their level allows, count every image and notice when they are touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.errors import AccessError, QueryBudgetError
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.victim import LabelVictim, QueryCount, ScoreVictim, WhiteBoxVictim, fingerprint, freeze

SHAPE = (3, 16, 16)


def small_net() -> Classifier:
    spec = NetSpec(name="small_vgg", width=2, size=16, num_classes=4)
    net = build(spec, torch.Generator().manual_seed(0))
    freeze(net)
    return net


def images(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def victims(**options: Any) -> tuple[LabelVictim, ScoreVictim, WhiteBoxVictim]:
    net = small_net()

    def released(x: Tensor) -> Tensor:
        probabilities: Tensor = net(x).softmax(1)
        return probabilities

    about: dict[str, Any] = {"shape": SHAPE, "num_classes": 4}
    return (
        LabelVictim(released, **about, **options),
        ScoreVictim(released, **about, **options),
        WhiteBoxVictim(released, net, **options),
    )


HIGHER = [
    (0, "scores"),
    (0, "logits"),
    (0, "net"),
    (0, "released"),
    (0, "_released"),
    (1, "logits"),
    (1, "net"),
    (1, "view"),
]


@pytest.mark.parametrize(("level", "name"), HIGHER)
def test_what_a_higher_level_gives_is_not_there(level: int, name: str) -> None:
    victim = victims()[level]
    assert not hasattr(victim, name)
    with pytest.raises(AccessError, match=f"{victim.level}-level victim has no '{name}'. Declare a higher"):
        getattr(victim, name)


def test_each_level_gives_what_the_lower_ones_give_and_more() -> None:
    label, score, white = victims()
    x = images(5)
    assert torch.equal(label.labels(x), white.labels(x))
    assert torch.equal(score.scores(x), white.scores(x))
    torch.testing.assert_close(white.logits(x).softmax(1), score.scores(x))
    assert torch.equal(label.labels(x), score.scores(x).argmax(1))
    assert label.labels(x).dtype == torch.int64
    torch.testing.assert_close(score.scores(x).sum(1), torch.ones(5))
    assert [victim.shape for victim in victims()] == [SHAPE] * 3
    assert [victim.num_classes for victim in victims()] == [4] * 3


@pytest.mark.parametrize("level", [0, 1])
def test_below_white_box_a_gradient_is_refused_and_costs_nothing(level: int) -> None:
    victim = victims()[level]
    with pytest.raises(AccessError, match=r"gives no gradients\. Pass x\.detach\(\)"):
        victim.labels(images(2).requires_grad_())
    assert victim.queries == QueryCount()


def test_scores_carry_no_graph_even_where_the_weights_could() -> None:
    net = small_net().requires_grad_(True)
    victim = ScoreVictim(lambda x: net(x).softmax(1), shape=SHAPE, num_classes=4)
    assert not victim.scores(images(2)).requires_grad


def test_white_box_scores_refuse_gradients_too_and_logits_give_them() -> None:
    white = victims()[2]
    x = images(3).requires_grad_()
    with pytest.raises(AccessError, match="white-box-level victim gives no gradients"):
        white.scores(x)
    (slope,) = torch.autograd.grad(white.logits(x).sum(), x)
    assert slope.shape == x.shape
    assert slope.abs().sum() > 0


def test_every_image_is_counted_once() -> None:
    label, score, white = victims()
    label.labels(images(3))
    label.labels(images(2))
    assert label.queries == QueryCount(forward=5)
    score.scores(images(4))
    score.labels(images(1))
    assert score.queries == QueryCount(forward=5)
    white.scores(images(1))
    white.logits(images(2))
    white.logits(images(3).requires_grad_())
    with torch.no_grad():
        white.logits(images(4).requires_grad_())
    assert white.queries == QueryCount(forward=10, gradient=3)


def test_the_budget_may_be_spent_to_the_last_image_and_no_further() -> None:
    score = victims(max_queries=5)[1]
    score.scores(images(3))
    with pytest.raises(QueryBudgetError, match=r"budget of 5 images is spent \(3 used, 3 more asked for\)"):
        score.scores(images(3))
    assert score.queries.forward == 3  # a refused request is not counted
    score.scores(images(2))
    with pytest.raises(QueryBudgetError):
        score.labels(images(1))


def test_the_budget_covers_logits() -> None:
    white = victims(max_queries=2)[2]
    with pytest.raises(QueryBudgetError):
        white.logits(images(3))
    assert white.queries == QueryCount()


def test_requests_are_answered_in_chunks_and_in_order() -> None:
    sizes = []

    def released(x: Tensor) -> Tensor:
        sizes.append(len(x))
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, 1 - mean], 1)

    victim = ScoreVictim(released, shape=SHAPE, num_classes=2, max_batch=4)
    x = images(10)
    got = victim.scores(x)
    assert sizes == [4, 4, 2]
    torch.testing.assert_close(got[:, 0], x.mean((1, 2, 3)))
    assert victim.queries.forward == 10


def test_a_view_changes_the_logits_and_not_the_release() -> None:
    net = small_net()

    def flat(x: Tensor) -> Tensor:
        return torch.full((len(x), 4), 0.25)

    stripped = WhiteBoxVictim(flat, net)
    deployed = WhiteBoxVictim(flat, net, view=lambda x: flat(x).log())
    x = images(2)
    assert torch.equal(stripped.logits(x), net(x))
    torch.testing.assert_close(deployed.logits(x), flat(x).log())
    assert torch.equal(stripped.scores(x), deployed.scores(x))


def counter(allowance: int | None) -> LabelVictim:
    """A victim that is there for its allowance alone."""
    return LabelVictim(lambda x: x, shape=SHAPE, num_classes=4, allowance=allowance)


def test_without_an_allowance_every_step_is_paid() -> None:
    assert [victim.allowance for victim in victims()] == [None] * 3
    assert counter(None).steps_within(10**9, per_step=10**6, reserve=10**6) == 10**9


@pytest.mark.parametrize(
    ("allowance", "wanted", "per_step", "reserve", "steps"),
    [
        (100, 20, 5, 0, 20),
        (100, 21, 5, 0, 20),
        (99, 20, 5, 0, 19),
        (100, 20, 5, 5, 19),
        (100, 20, 5, 96, 0),
        (100, 20, 5, 100, 0),
        (100, 20, 0, 100, 20),
        (0, 20, 1, 0, 0),
    ],
)
def test_the_allowance_pays_for_whole_steps_after_the_reserve(
    allowance: int, wanted: int, per_step: int, reserve: int, steps: int
) -> None:
    assert counter(allowance).steps_within(wanted, per_step=per_step, reserve=reserve) == steps


@settings(deadline=None)
@given(
    allowance=st.integers(0, 10**6),
    wanted=st.integers(0, 10**4),
    per_step=st.integers(0, 500),
    reserve=st.integers(0, 10**6),
    shared_by=st.integers(1, 40),
)
def test_planned_steps_are_paid_for_and_no_further_one_would_be(
    allowance: int, wanted: int, per_step: int, reserve: int, shared_by: int
) -> None:
    victim, paid = counter(allowance), allowance * shared_by
    options = {"per_step": per_step, "reserve": reserve, "shared_by": shared_by}
    if reserve > paid:
        with pytest.raises(QueryBudgetError, match="needed before a first step"):
            victim.steps_within(wanted, **options)
        return
    steps = victim.steps_within(wanted, **options)
    assert 0 <= steps <= wanted
    assert reserve + steps * per_step <= paid
    assert steps == wanted or reserve + (steps + 1) * per_step > paid


@pytest.mark.parametrize(("reserve", "shared_by", "needed"), [(7, 1, 7), (29, 4, 8), (28, 4, 7)])
def test_an_allowance_below_the_reserve_names_both(reserve: int, shared_by: int, needed: int) -> None:
    wanted = (
        rf"a budget of 6 queries for each reconstruction is too small: {needed} are needed before a first "
        r"step\. Raise max_queries, or lower the attack's restarts\."
    )
    with pytest.raises(QueryBudgetError, match=wanted):
        counter(6).steps_within(3, per_step=1, reserve=reserve, shared_by=shared_by)


def test_another_look_changes_the_logits_and_shares_count_budget_and_release() -> None:
    white = victims(max_queries=9, allowance=5)[2]
    x = images(2)
    plain, released = white.logits(x), white.scores(x)
    doubled = white.seen_through(lambda view: lambda seen: 2 * view(seen))
    assert torch.equal(doubled.logits(x), 2 * plain)
    assert torch.equal(white.logits(x), plain)  # the victim that it was made from sees as before
    assert (doubled.net, doubled.allowance, doubled.max_queries) == (white.net, 5, 9)
    assert doubled.queries is white.queries
    assert white.queries.forward == 8
    with pytest.raises(QueryBudgetError, match="8 used, 2 more"):
        doubled.scores(x)
    torch.testing.assert_close(doubled.scores(x[:1]), released[:1])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_another_answer_shares_the_count_and_leaves_the_victim_as_it_was(level: int) -> None:
    victim = victims(max_queries=4)[level]
    x = images(2)
    plain = victim.labels(x)
    turned = victim.asked_through(lambda released: lambda seen: released(seen).roll(1, dims=1))
    assert type(turned) is type(victim)
    assert torch.equal(turned.labels(x), (plain + 1) % 4)
    assert turned.queries is victim.queries
    with pytest.raises(QueryBudgetError, match="4 used, 2 more"):
        victim.labels(x)


def test_a_look_that_asks_several_times_costs_several_times_and_plans_with_that() -> None:
    white = victims(max_queries=40, allowance=30)[2]
    x = images(2).requires_grad_()
    thrice = white.seen_through(lambda view: view, per_image=3)
    thrice.logits(x)
    assert white.queries == QueryCount(forward=6, gradient=6)
    twice = thrice.asked_through(lambda released: released, per_image=2)
    twice.scores(x.detach())
    assert white.queries == QueryCount(forward=18, gradient=6)
    plan = {"per_step": 2, "reserve": 3}
    # 27 queries are left for steps of 2, 21 for steps of 6, 12 for steps of 12
    assert [one.steps_within(99, **plan) for one in (white, thrice, twice)] == [13, 3, 1]
    with pytest.raises(QueryBudgetError, match="18 used, 24 more"):
        twice.logits(images(4))


def test_looks_stack_and_each_call_is_one_query_whatever_they_hold() -> None:
    white = victims()[2]
    x = images(3).requires_grad_()
    thrice = white.seen_through(lambda view: lambda seen: view(seen) + view(seen.flip(3)) + view(seen))
    shifted = thrice.seen_through(lambda view: lambda seen: view(seen) - 1)
    got = shifted.logits(x)
    assert white.queries == QueryCount(forward=3, gradient=3)
    torch.testing.assert_close(got, thrice.logits(x) - 1)
    (slope,) = torch.autograd.grad(got.sum(), x)
    assert slope.abs().sum() > 0


def test_a_frozen_net_is_in_eval_mode_and_asks_for_no_gradient() -> None:
    net = build(NetSpec(name="small_vgg", width=2, size=16), torch.Generator())
    net.train()
    assert freeze(net) is net
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters())


def test_the_fingerprint_is_that_of_the_content() -> None:
    net = small_net()
    before = fingerprint(net)
    net(images(3).requires_grad_()).sum().backward()
    assert fingerprint(net) == before == fingerprint(small_net())


def nudge_weight(net: Classifier) -> None:
    weight = next(net.parameters())
    with torch.no_grad():
        weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], torch.tensor(9.0))


def nudge_buffer(net: Classifier) -> None:
    buffer = next(b for name, b in net.named_buffers() if name.endswith("running_var"))
    buffer.mul_(1.5)


def count_a_batch(net: Classifier) -> None:
    buffer = next(b for name, b in net.named_buffers() if name.endswith("num_batches_tracked"))
    buffer.add_(1)


def set_train_mode(net: Classifier) -> None:
    list(net.modules())[-1].train()


def ask_for_gradient(net: Classifier) -> None:
    next(net.parameters()).requires_grad_(True)


def leave_gradient(net: Classifier) -> None:
    weight = next(net.parameters())
    weight.grad = torch.zeros_like(weight)


@pytest.mark.parametrize(
    "touch",
    [nudge_weight, nudge_buffer, count_a_batch, set_train_mode, ask_for_gradient, leave_gradient],
)
def test_the_fingerprint_changes_when_anything_is_touched(touch: Any) -> None:
    net = small_net()
    before = fingerprint(net)
    touch(net)
    assert fingerprint(net) != before
