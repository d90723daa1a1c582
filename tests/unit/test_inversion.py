"""The driver of latent attacks: chunks, allowance, effort curve, restarts, labels and further searches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mibench.attack import Effort, Reconstructions
from mibench.data.split import quantize
from mibench.errors import QueryBudgetError
from mibench.inversion import Loss, Problem, Stage, invert_latents
from mibench.latent import Search, checkpoints, identity_loss, pick_best
from mibench.nets import NetSpec
from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.victim import WhiteBoxVictim, freeze

DIM, CLASSES = 6, 4
SEARCH = Search(steps=12, lr=0.05)
TARGETS = (1, 3, 1, 0)


class Pixels:
    """Latents that are images of one pixel and six channels; their box is [0, 1]."""

    dim = DIM

    def start(self, noise: Noise) -> Tensor:
        return 0.5 + noise.normal("start", DIM)

    def decode(self, latents: Tensor) -> Tensor:
        return latents[:, :, None, None]

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(0, 1)

    def realism(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images))


class Curved(Classifier):
    """Logits of six pixels that no two labels agree on, all below `ceiling`."""

    def __init__(self, ceiling: float = 0.0) -> None:
        super().__init__(NetSpec(name="curved", channels=DIM, size=1, num_classes=CLASSES))
        self.feature_dim, self.head = DIM, nn.Identity()
        goals = torch.rand(CLASSES, DIM, generator=torch.Generator().manual_seed(0))
        self.goals, self.ceiling = nn.Parameter(goals), ceiling

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1),)

    def forward(self, x: Tensor) -> Tensor:
        apart: Tensor = (x.flatten(1)[:, None] - self.goals).square().sum(2)
        return self.ceiling - 5 * apart


def victim_of(*, allowance: int | None = None, ceiling: float = 0.0) -> WhiteBoxVictim:
    net = Curved(ceiling)
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, allowance=allowance)


def loss_of(victim: WhiteBoxVictim, looks: int = 1) -> Loss:
    """Cross-entropy, with images that the victim is asked about `looks` times."""

    def loss(images: Tensor, problem: Problem, _step: int) -> Tensor:
        values = [identity_loss(victim.logits(images), problem.labels, "ce") for _ in range(looks)]
        return torch.stack(values).mean(0)

    return loss


def recorded(victim: WhiteBoxVictim) -> tuple[Loss, list[int], list[Tensor]]:
    """The loss, and the steps and the pixels (R, D) that it is asked about."""
    steps: list[int] = []
    seen: list[Tensor] = []

    def loss(images: Tensor, problem: Problem, step: int) -> Tensor:
        steps.append(step)
        seen.append(images.detach().flatten(1).clone())
        return loss_of(victim)(images, problem, step)

    return loss, steps, seen


def run(
    victim: WhiteBoxVictim | None = None,
    targets: Sequence[int] = TARGETS,
    *,
    search: Search = SEARCH,
    max_batch: int = 256,
    **options: Any,
) -> Reconstructions:
    victim = victim or victim_of()
    ctx = Context(seed=3, max_batch=max_batch)
    options = {"loss": loss_of(victim), **options}
    return invert_latents(victim, Pixels(), torch.tensor(targets), ctx, search=search, **options)


def effort_of(got: Reconstructions) -> Effort:
    assert got.effort is not None
    return got.effort


def streams(targets: Sequence[int], restarts: int) -> Noise:
    return Noise.of_targets(3, torch.tensor(targets)).repeat(restarts)


# chunks


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("max_batch", [1, 2, 4, 7])
def test_the_size_of_chunks_changes_nothing(max_batch: int, restarts: int) -> None:
    whole, parts = run(restarts=restarts), run(restarts=restarts, max_batch=max_batch)
    torch.testing.assert_close(parts.images, whole.images, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.confidence, whole.confidence, atol=1e-5, rtol=0)
    one, other = effort_of(whole), effort_of(parts)
    torch.testing.assert_close(other.loss, one.loss, atol=1e-5, rtol=1e-5)
    assert int((other.images.int() - one.images.int()).abs().max()) <= 1
    assert (one.single is None) == (other.single is None) == (restarts == 1)


@pytest.mark.parametrize(("max_batch", "sizes"), [(1, {3}), (3, {3}), (7, {6}), (256, {12})])
def test_no_chunk_holds_more_than_it_may_unless_one_label_does(max_batch: int, sizes: set[int]) -> None:
    loss, _, seen = recorded(victim_of())
    run(loss=loss, restarts=3, max_batch=max_batch)
    assert {len(x) for x in seen} == sizes


# the allowance


@settings(deadline=None, max_examples=25)
@given(
    restarts=st.integers(1, 3),
    per_step=st.integers(1, 2),
    is_chosen=st.booleans(),
    spare=st.integers(0, 70),
)
def test_the_allowance_is_spent_as_far_as_whole_steps_go(
    restarts: int, per_step: int, is_chosen: bool, spare: int
) -> None:
    reserve = restarts * (per_step + is_chosen)
    victim = victim_of(allowance=reserve + spare)

    def blind(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        return torch.arange(0, len(images), problem.restarts), torch.zeros(len(images))

    options: dict[str, Any] = {} if is_chosen else {"choose": blind}
    got = run(
        victim,
        loss=loss_of(victim, per_step),
        restarts=restarts,
        per_step=per_step,
        per_choice=int(is_chosen),
        **options,
    )
    steps = min(SEARCH.steps, spare // (restarts * per_step))
    assert victim.queries.forward == len(TARGETS) * (reserve + steps * restarts * per_step)
    assert victim.queries.gradient == len(TARGETS) * restarts * per_step * (steps + 1)
    asked = [restarts * per_step * (at + 1) for at in checkpoints(steps)]
    last = [victim.queries.forward // len(TARGETS)] if is_chosen or restarts > 1 else []
    assert effort_of(got).queries.tolist() == asked + last


@pytest.mark.parametrize(("restarts", "allowance", "steps"), [(1, 2, 0), (1, 9, 7), (2, 11, 3), (2, 400, 12)])
def test_a_shortened_search_is_a_search_of_fewer_steps(restarts: int, allowance: int, steps: int) -> None:
    short = run(victim_of(allowance=allowance), restarts=restarts)
    plain = run(search=dataclasses.replace(SEARCH, steps=steps), restarts=restarts)
    assert torch.equal(short.images, plain.images)
    assert torch.equal(short.confidence, plain.confidence)
    assert torch.equal(effort_of(short).images, effort_of(plain).images)


@pytest.mark.parametrize(("restarts", "allowance"), [(1, 1), (1, 0), (3, 5)])
def test_an_allowance_below_start_and_choice_is_refused_before_a_query(restarts: int, allowance: int) -> None:
    victim = victim_of(allowance=allowance)
    wanted = (
        rf"a budget of {allowance} queries for each reconstruction is too small: {2 * restarts} are needed "
        r"before a first step\. Raise max_queries, or lower the attack's restarts\."
    )
    with pytest.raises(QueryBudgetError, match=wanted):
        run(victim, restarts=restarts)
    assert victim.queries.forward == 0


# the effort curve


@pytest.mark.parametrize("restarts", [1, 3])
@pytest.mark.parametrize("steps", [0, 1, 12, 40])
def test_the_effort_curve_rises_in_queries_and_never_in_loss(restarts: int, steps: int) -> None:
    # the rate is far too high, so that the iterates themselves do get worse
    victim = victim_of()
    got = run(victim, restarts=restarts, search=Search(steps=steps, lr=0.4))
    effort, points = effort_of(got), len(checkpoints(steps)) + 1
    assert effort.images.shape == (points, len(TARGETS), DIM, 1, 1)
    assert (effort.images.dtype, effort.queries.dtype) == (torch.uint8, torch.int64)
    assert effort.loss.shape == (points, len(TARGETS))
    assert bool((effort.queries.diff() > 0).all())
    assert bool((effort.loss[:-1].diff(dim=0) <= 0).all())  # the choice may prefer a larger loss
    assert victim.queries.forward == len(TARGETS) * int(effort.queries[-1])
    assert effort.queries[-2:].diff().tolist() == [restarts]
    for images, loss in zip(effort.images, effort.loss):
        logits = victim_of().logits(images.float() / 255)
        torch.testing.assert_close(identity_loss(logits, got.targets, "ce"), loss, atol=0.05, rtol=0)


def test_among_restarts_the_last_point_is_the_one_with_the_least_loss() -> None:
    victim = victim_of()

    def least(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        loss = identity_loss(victim.logits(images), problem.labels, "ce")
        return pick_best(loss, problem.restarts), -loss

    got = run(victim, restarts=4, choose=least)
    assert torch.equal(effort_of(got).images[-1], quantize(got.images))
    torch.testing.assert_close(effort_of(got).loss[-1], -got.confidence, atol=1e-5, rtol=0)


def test_a_curve_point_is_the_result_of_a_search_that_ends_there() -> None:
    effort = effort_of(run(restarts=2))
    for row, steps in enumerate(checkpoints(SEARCH.steps)):
        shorter = run(restarts=2, search=dataclasses.replace(SEARCH, steps=steps))
        assert torch.equal(effort.images[row], effort_of(shorter).images[-2])
        assert torch.equal(effort.loss[row], effort_of(shorter).loss[-2])


# restarts and their choice


def test_the_single_of_several_restarts_is_a_run_with_one() -> None:
    alone, several = run(restarts=1), run(restarts=3)
    single = effort_of(several).single
    assert single is not None
    assert torch.equal(single, quantize(alone.images))
    assert not torch.equal(single, quantize(several.images))
    assert effort_of(alone).single is None


@settings(deadline=None, max_examples=20)
@given(
    ceiling=st.sampled_from([-1e4, -50.0, 0.0, 50.0]),
    restarts=st.integers(1, 4),
    targets=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=5),
)
def test_the_restart_with_the_largest_target_logit_is_kept_whatever_its_sign(
    ceiling: float, restarts: int, targets: list[int]
) -> None:
    victim = victim_of(ceiling=ceiling)
    got = run(victim, targets, restarts=restarts, search=Search(steps=0))
    starts = Pixels().project(Pixels().start(streams(targets, restarts)))
    logits = victim_of(ceiling=ceiling).logits(Pixels().decode(starts))
    if ceiling < 0:
        assert bool((logits < 0).all())
    table = logits.view(len(targets), restarts, CLASSES)
    for row, label in enumerate(targets):
        best = int(table[row, :, label].argmax())
        assert torch.equal(got.images[row].flatten(), starts[row * restarts + best])
        assert float(got.confidence[row]) == pytest.approx(
            float(table[row, best].softmax(0)[label]), abs=1e-6
        )


def test_another_choice_is_obeyed_and_gives_the_confidence() -> None:
    def last(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        assert not images.requires_grad
        rows = torch.arange(len(images)).view(-1, problem.restarts)[:, -1]
        return rows, torch.arange(len(images)).float()

    victim = victim_of()
    got = run(victim, restarts=3, choose=last, per_choice=0, search=Search(steps=0))
    starts = Pixels().project(Pixels().start(streams(TARGETS, 3)))
    assert torch.equal(got.images.flatten(1), starts[2::3])
    assert got.confidence.tolist() == [2, 5, 8, 11]
    assert victim.queries.forward == len(TARGETS) * 3


# labels, starts and steps


@settings(deadline=None, max_examples=15)
@given(targets=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=6), max_batch=st.integers(1, 9))
def test_labels_come_back_in_order_and_a_row_hangs_on_its_label_and_repeat_alone(
    targets: list[int], max_batch: int
) -> None:
    got = run(targets=targets, max_batch=max_batch, restarts=2, search=Search(steps=3))
    assert got.targets.tolist() == targets
    assert got.images.shape == (len(targets), DIM, 1, 1)
    for row, label in enumerate(targets):
        before = targets[:row].count(label)
        alone = run(targets=[label] * (before + 1), restarts=2, search=Search(steps=3)).images[-1]
        torch.testing.assert_close(got.images[row], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_batch", [1, 4, 256])
def test_a_start_knows_labels_ranks_and_noise_of_its_searches(max_batch: int) -> None:
    problems: list[Problem] = []

    def start(problem: Problem) -> Tensor:
        problems.append(problem)
        return torch.full((len(problem.labels), DIM), 0.5)

    targets = [1, 0, 1, 1]
    run(targets=targets, restarts=2, start=start, max_batch=max_batch)
    assert torch.cat([one.ranks for one in problems]).tolist() == [0, 1, 0, 1, 2, 3, 4, 5]
    assert torch.cat([one.labels for one in problems]).tolist() == [1, 1, 0, 0, 1, 1, 1, 1]
    assert torch.equal(torch.cat([one.noise.keys for one in problems]), streams(targets, 2).keys)
    assert {one.restarts for one in problems} == {2}


def test_each_chunk_counts_its_steps_from_zero() -> None:
    loss, steps, _ = recorded(victim_of())
    run(loss=loss, max_batch=2)
    assert steps == 2 * list(range(SEARCH.steps + 1))


@pytest.mark.parametrize("is_bounded", [True, False])
def test_latents_keep_to_the_region_where_that_is_asked_for(is_bounded: bool) -> None:
    loss, _, seen = recorded(victim_of())
    got = run(loss=loss, is_bounded=is_bounded)
    inside = [bool(((x >= 0) & (x <= 1)).all()) for x in seen]
    assert all(inside) if is_bounded else not inside[0]
    start = Pixels().start(streams(TARGETS, 1))
    assert torch.equal(seen[0], Pixels().project(start) if is_bounded else start)
    assert 0 <= got.images.min() <= got.images.max() <= 1


# searches that follow


def half(search: Search) -> Stage:
    """A search over latents that are twice the pixels, at most 0.1 from its start."""

    def bound(start: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda latents: start + (latents - start).clamp(-0.1, 0.1)

    return Stage(search, lambda latents: 2 * latents, lambda latents: Pixels().decode(latents / 2), bound)


def test_a_further_search_goes_on_where_the_first_one_ended() -> None:
    first = run()
    got = run(further=[half(Search(steps=0))])
    assert torch.equal(got.images, first.images)
    moved = run(further=[half(Search(steps=30, lr=0.02))]).images
    gap = (moved - first.images).abs().amax()
    assert 0 < gap <= 0.05 + 1e-6  # 0.1 in its own latents


def test_steps_queries_and_curve_count_on_through_further_searches() -> None:
    victim = victim_of()
    loss, steps, _ = recorded(victim)
    got = run(victim, loss=loss, further=[half(Search(steps=4)), half(Search(steps=2))])
    assert steps == list(range(13 + 5 + 3))
    assert effort_of(got).queries.tolist() == [*(at + 1 for at in checkpoints(12)), 18, 21, 22]
    assert victim.queries.forward == len(TARGETS) * (21 + 1)
    assert torch.equal(effort_of(got).images[-1], quantize(got.images))


@pytest.mark.parametrize(
    ("allowance", "spent"),
    # 13 evaluations, then 5, then 1 to choose; a second search without a step is not begun
    [(2, 2), (14, 14), (15, 14), (16, 16), (18, 18), (19, 19), (50, 19)],
)
def test_an_allowance_shortens_the_last_search_first(allowance: int, spent: int) -> None:
    victim = victim_of(allowance=allowance)
    run(victim, further=[half(Search(steps=4))])
    assert victim.queries.forward == len(TARGETS) * spent


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_choice_among_all_ends_sees_every_search(restarts: int) -> None:
    victim, groups = victim_of(), list[Tensor]()

    def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        groups.append(images.flatten(1))
        assert len(problem.labels) == len(problem.noise) == len(problem.ranks) == len(images)
        own = victim.logits(images).gather(1, problem.labels[:, None]).squeeze(1)
        return pick_best(-own, problem.restarts), own

    spoiled = Stage(Search(steps=0), lambda z: 1 - z, Pixels().decode, lambda _: lambda z: z)
    got = run(victim, restarts=restarts, further=[spoiled], is_any_end=True, choose=choose)
    plain = run(restarts=restarts)
    assert torch.equal(got.images, plain.images)
    assert torch.equal(groups[0][1::2], 1 - groups[0][0::2])
    assert victim.queries.forward == len(TARGETS) * restarts * (13 + 1 + 2)
