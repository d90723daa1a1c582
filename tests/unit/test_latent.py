"""The latent search: GMI's update, the box, the schedule, the best iterate, losses and restarts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mibench.building import build_dataclass
from mibench.latent import (
    NUM_CHECKPOINTS,
    IdentityLoss,
    Objective,
    Search,
    checkpoints,
    identity_loss,
    pick_best,
    poincare_distance,
    search_latents,
)
from mibench.plugin import Context

SLOPES = torch.tensor([0.5, 1.0, 2.0])
GOAL = torch.tensor([1.0, -2.0, 0.5])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bowl(latents: Tensor) -> tuple[Tensor, Tensor]:
    loss = (SLOPES * (latents - GOAL).square()).sum(1)
    return loss, loss.detach()


def run(objective: Objective, start: Tensor, project: Any = None, **options: Any) -> tuple[Tensor, Tensor]:
    return search_latents(start, objective, Search(**options), Context(), project=project)


def box(latents: Tensor) -> Tensor:
    return latents.clamp(-1, 1)


def recorded(objective: Objective) -> tuple[Objective, list[Tensor]]:
    """The objective, and every batch of latents that it is asked about."""
    seen: list[Tensor] = []

    def watched(latents: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(latents.detach().clone())
        return objective(latents)

    return watched, seen


@pytest.mark.parametrize("project", [None, box])
def test_nesterov_is_the_update_of_gmi(project: Any) -> None:
    start, velocity, lr, momentum = draw(4, 3), torch.zeros(4, 3), 0.02, 0.9
    z = start if project is None else project(start)
    for _ in range(50):
        faster = momentum * velocity - lr * 2 * SLOPES * (z - GOAL)
        z = z - momentum * velocity + (1 + momentum) * faster
        velocity = faster  # a clamp does not reset it
        z = z if project is None else project(z)
    got, _ = run(bowl, start, project, steps=50, lr=lr, optimizer="nesterov", keep="last")
    torch.testing.assert_close(got, z, atol=1e-5, rtol=1e-5)


def test_nesterov_is_sgd_of_torch_to_the_bit() -> None:
    got, _ = run(bowl, draw(4, 3), steps=50, lr=0.02, optimizer="nesterov", keep="last")
    z = draw(4, 3).requires_grad_(True)
    sgd = torch.optim.SGD([z], lr=0.02, momentum=0.9, nesterov=True)
    for _ in range(50):
        sgd.zero_grad()
        bowl(z)[0].sum().backward()
        sgd.step()
    assert torch.equal(got, z.detach())


@pytest.mark.parametrize(("optimizer", "lr"), [("adam", 0.1), ("nesterov", 2.0)])
@pytest.mark.parametrize("loss", ["ce", "max_margin"])
def test_a_linear_victim_in_a_box_ends_at_the_vertex_of_the_weights(
    optimizer: str, lr: float, loss: IdentityLoss
) -> None:
    weights = draw(2, 5, seed=3)
    labels = torch.tensor([0, 1, 0])

    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        value = identity_loss(z @ weights.T, labels, loss)
        return value, value.detach()

    got, _ = run(objective, draw(3, 5), box, steps=300, lr=lr, optimizer=optimizer)
    vertex = (weights[0] - weights[1]).sign()
    assert torch.equal(got, torch.stack([vertex, -vertex, vertex]))


@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
def test_a_bowl_ends_at_its_lowest_point_in_the_box(optimizer: str) -> None:
    got, score = run(bowl, draw(6, 3), box, steps=600, lr=0.02, optimizer=optimizer)
    torch.testing.assert_close(got, box(GOAL).expand(6, 3), atol=1e-3, rtol=0)
    torch.testing.assert_close(score, torch.ones(6), atol=1e-3, rtol=0)  # (-1 - -2)^2 at slope 1


def test_every_latent_that_is_asked_about_lies_in_the_box_and_the_start_is_left_alone() -> None:
    objective, seen = recorded(bowl)
    start = 3 * draw(5, 3)
    kept = start.clone()
    run(objective, start, box, steps=20, lr=0.5)
    assert torch.equal(start, kept)
    assert torch.equal(seen[0], box(start))
    assert not torch.equal(box(start), start)
    assert len(seen) == 21
    assert all(z.abs().max() <= 1 for z in seen)


def test_the_best_iterate_of_each_row_is_kept_with_its_own_score() -> None:
    # a rate far too high: rows jump over the goal, and the best iterate comes at another step in each
    objective, seen = recorded(bowl)
    got, score = run(objective, draw(8, 3, seed=1), steps=40, lr=0.9)
    table = torch.stack([bowl(z)[0] for z in seen])
    best = table.argmin(0)
    assert len(best.unique()) > 1
    assert torch.equal(score, table.amin(0))
    assert torch.equal(got, torch.stack(seen)[best, range(8)])


def test_the_score_and_not_the_loss_decides_what_is_kept() -> None:
    def objective(z: Tensor) -> tuple[Tensor, Tensor]:
        return z.square().sum(1), -z.detach().square().sum(1)

    start = torch.ones(2, 3)
    got, score = run(objective, start, steps=10, lr=0.05)
    assert torch.equal(got, start)
    assert score.tolist() == [-3, -3]


def test_the_last_iterate_is_kept_where_that_is_asked_for() -> None:
    objective, seen = recorded(bowl)
    got, score = run(objective, draw(8, 3), steps=40, lr=0.9, optimizer="nesterov", keep="last")
    assert torch.equal(got, seen[-1])
    assert torch.equal(score, bowl(seen[-1])[0])
    assert bool((score > torch.stack([bowl(z)[0] for z in seen]).amin(0)).any())


@pytest.mark.parametrize("project", [None, box])
def test_no_step_gives_the_start_and_its_score(project: Any) -> None:
    start = draw(4, 3).clamp(-1, 1)
    got, score = run(bowl, start, project, steps=0)
    assert torch.equal(got, start)
    assert torch.equal(score, bowl(start)[0])
    assert not got.requires_grad


@settings(deadline=None, max_examples=15)
@given(
    rows=st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True),
    optimizer=st.sampled_from(["adam", "nesterov"]),
)
def test_rows_do_not_meet(rows: list[int], optimizer: Any) -> None:
    start = draw(8, 3)
    options: dict[str, Any] = {"steps": 25, "lr": 0.05, "optimizer": optimizer, "warmup": 0.2}
    together, scores = run(bowl, start, box, **options)
    alone, own = run(bowl, start[rows], box, **options)
    torch.testing.assert_close(alone, together[rows], atol=1e-6, rtol=0)
    torch.testing.assert_close(own, scores[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0), (25, 0.5), (50, 1), (400, 1), (750, 1), (875, 0.5), (1000, 0)],
)
def test_the_rate_rises_over_five_percent_and_falls_over_a_quarter(step: int, expected: float) -> None:
    search = Search(steps=1000, lr=0.25, warmup=0.05, cooldown=0.25)
    assert search.rate(step) == pytest.approx(expected, abs=1e-12)


def test_the_rate_is_what_the_optimizer_moves_by() -> None:
    # Adam's step is its rate wherever the gradient keeps its sign and size
    objective, seen = recorded(lambda z: (z.sum(1), z.detach().sum(1)))
    search = Search(steps=20, lr=0.1, warmup=0.25, cooldown=0.5)
    search_latents(torch.zeros(1, 1), objective, search, Context())
    moves = [float(before - after) for before, after in itertools.pairwise(seen)]
    assert moves == pytest.approx([0.1 * search.rate(step) for step in range(20)], abs=1e-6)
    assert moves[0] == 0


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.1, 0.1), (0.0, 0.99)])
def test_adam_takes_its_betas(betas: tuple[float, float]) -> None:
    got, _ = run(bowl, draw(4, 3), steps=30, lr=0.05, betas=betas, keep="last")
    z = draw(4, 3).requires_grad_(True)
    adam = torch.optim.Adam([z], lr=0.05, betas=betas)
    for _ in range(30):
        adam.zero_grad()
        bowl(z)[0].sum().backward()
        adam.step()
    assert torch.equal(got, z.detach())


def test_betas_are_adams_own_and_come_back_from_json() -> None:
    assert Search().betas == (0.9, 0.999)
    assert build_dataclass(Search, {"betas": [0, 0.5]}, where="search") == Search(betas=(0.0, 0.5))


Taken = list[tuple[int, Tensor, Tensor]]


def watched(start: Tensor, **options: Any) -> tuple[Taken, Tensor, Tensor]:
    """What the watcher of a search was told, and what the search returned."""
    taken: Taken = []

    def watch(step: int, latents: Tensor, score: Tensor) -> None:
        assert not latents.requires_grad
        taken.append((step, latents.clone(), score.clone()))

    latents, score = search_latents(start, bowl, Search(**options), Context(), project=box, watcher=watch)
    return taken, latents, score


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("steps", [0, 1, 5, 60])
def test_the_watcher_is_told_what_a_search_that_ends_there_returns(steps: int, keep: str) -> None:
    start = draw(4, 3)
    options = {"lr": 0.6, "keep": keep}
    taken, latents, score = watched(start, steps=steps, **options)
    assert [step for step, _, _ in taken] == checkpoints(steps)
    for step, early, reached in taken:
        wanted, least = run(bowl, start, box, steps=step, **options)
        assert torch.equal(early, wanted)
        assert torch.equal(reached, least)
    assert torch.equal(taken[-1][1], latents)
    assert torch.equal(taken[-1][2], score)


def test_a_watcher_changes_nothing_and_asks_nothing() -> None:
    objective, seen = recorded(bowl)
    start, search = draw(4, 3), Search(steps=25, lr=0.05)
    alone = search_latents(start, objective, search, Context())
    calls = len(seen)
    beside = search_latents(start, objective, search, Context(), watcher=lambda *_: None)
    assert len(seen) == 2 * calls == 2 * 26
    assert all(torch.equal(a, b) for a, b in zip(alone, beside))


@settings(deadline=None)
@given(steps=st.integers(0, 10**6))
def test_checkpoints_begin_with_the_start_end_with_the_last_and_rise(steps: int) -> None:
    got = checkpoints(steps)
    assert got[0] == 0
    assert got[-1] == steps
    assert all(a < b for a, b in itertools.pairwise(got))
    assert len(got) <= NUM_CHECKPOINTS + 1


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(0, [0]), (1, [0, 1]), (3, [0, 1, 2, 3]), (128, [0, 1, 2, 4, 8, 16, 32, 64, 128])],
)
def test_checkpoints_lie_evenly_in_the_logarithm(steps: int, expected: list[int]) -> None:
    assert checkpoints(steps) == expected


@settings(deadline=None)
@given(
    steps=st.integers(0, 300),
    warmup=st.floats(0, 0.99),
    cooldown=st.floats(0, 0.99),
    part=st.floats(0, 1),
)
def test_the_rate_lies_between_zero_and_one(steps: int, warmup: float, cooldown: float, part: float) -> None:
    search = Search(steps=steps, warmup=warmup, cooldown=cooldown)
    assert 0 <= search.rate(round(part * steps)) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be >= 0 and lr > 0, got -1"),
        ({"lr": 0.0}, "lr > 0, got 300 and 0.0"),
        ({"lr": float("nan")}, "lr > 0, got 300 and nan"),
        ({"warmup": 1.0}, r"must lie in \[0, 1\), got 1.0 and 0.0"),
        ({"cooldown": -0.5}, r"must lie in \[0, 1\), got 0.0 and -0.5"),
        ({"betas": (0.9, 1.0)}, r"betas must lie in \[0, 1\), got \[0.9, 1.0\]"),
        ({"betas": (-0.1, 0.5)}, r"betas must lie in \[0, 1\), got \[-0.1, 0.5\]"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**options)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"no field 'step'\. Did you mean 'steps'"):
        build_dataclass(Search, {"step": 3}, where="search")


def test_identity_losses_are_their_formulas() -> None:
    logits, labels = draw(6, 4), torch.tensor([0, 1, 2, 3, 0, 2])
    own = logits[range(6), labels]
    torch.testing.assert_close(
        identity_loss(logits, labels, "ce"), F.cross_entropy(logits, labels, reduction="none")
    )
    assert torch.equal(identity_loss(logits, labels, "logit"), -own)
    margin = identity_loss(logits, labels, "max_margin")
    for row, label in enumerate(labels.tolist()):
        others = [float(logits[row, k]) for k in range(4) if k != label]
        assert float(margin[row]) == pytest.approx(max(others) - float(own[row]), abs=1e-6)
    assert torch.equal(margin < 0, logits.argmax(1) == labels)


@pytest.mark.parametrize("classes", [10, 50, 1000])
def test_uniform_logits_are_equally_far_from_every_corner(classes: int) -> None:
    labels = torch.tensor([0, classes - 1])
    for level in (1.0, 30.0):
        got = identity_loss(torch.full((2, classes), level), labels, "poincare")
        # arccosh(1 + 1 / 1e-4) = 9.9034 in the reals; the margin of the corner rounds in float32
        assert got.tolist() == pytest.approx([math.acosh(1 + 1e4)] * 2, abs=1e-3)


def test_the_poincare_distance_of_a_sure_answer_and_its_formula() -> None:
    logits = torch.full((1, 10), -1.0)
    logits[0, 0] = 9
    assert float(poincare_distance(logits, torch.tensor([0]))) == pytest.approx(8.9477, abs=1e-3)
    rows, labels = draw(6, 7, seed=2), [0, 1, 2, 3, 0, 6]
    for row, label, got in zip(rows.double(), labels, poincare_distance(rows, torch.tensor(labels))):
        u = row / row.abs().sum()
        v = torch.zeros(7, dtype=torch.float64)
        v[label] = 1 - 1e-4
        ratio = float((u - v).square().sum() / ((1 - u.square().sum()) * (1 - v.square().sum())))
        assert float(got) == pytest.approx(math.acosh(1 + 2 * ratio), abs=1e-3)


def test_the_poincare_distance_is_finite_on_the_rim_and_without_any_answer() -> None:
    labels = torch.tensor([0, 1, 0])
    logits = torch.tensor([[5.0, 0, 0], [5.0, 0, 0], [0.0, 0, 0]], requires_grad=True)
    distance = identity_loss(logits, labels, "poincare")
    (slope,) = torch.autograd.grad(distance.sum(), logits)
    assert bool(torch.isfinite(distance).all())
    assert bool(torch.isfinite(slope).all())
    near, far, _ = distance.tolist()
    assert near < far  # both on the rim, the second at another corner


def test_the_poincare_distance_keeps_its_gradient_where_the_softmax_is_saturated() -> None:
    labels = torch.tensor([0])
    slopes = {}
    for kind in ("ce", "poincare"):
        logits = torch.tensor([[120.0, -3.0, 2.0]], requires_grad=True)
        (slopes[kind],) = torch.autograd.grad(identity_loss(logits, labels, kind).sum(), logits)
    assert not slopes["ce"].any()
    assert slopes["poincare"].all()
    assert slopes["poincare"][0, 0] < 0


def test_the_margin_keeps_its_gradient_where_the_softmax_is_saturated() -> None:
    labels = torch.tensor([0])
    slopes = {}
    for kind in ("ce", "max_margin"):
        logits = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
        (slopes[kind],) = torch.autograd.grad(identity_loss(logits, labels, kind).sum(), logits)
    assert slopes["ce"][0, 0] == 0
    assert slopes["ce"][0, 1:].tolist() == pytest.approx([9.4e-14] * 2, rel=0.01)
    assert slopes["max_margin"][0, 0] == -1


@pytest.mark.parametrize(
    ("logits", "best"),
    [
        ([[1.0, 3.0, 2.0], [5.0, -1.0, 0.0]], [1, 3]),
        ([[-9.0, -7.0, -8.0], [-3.0, -4.0, -2.0]], [1, 5]),
        ([[0.0, 0.0, 0.0], [-1.0, -1.0, 0.0]], [0, 5]),
    ],
)
def test_the_restart_with_the_largest_target_logit_is_picked(
    logits: list[list[float]], best: list[int]
) -> None:
    assert pick_best(-torch.tensor(logits).flatten(), 3).tolist() == best


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), problems=st.integers(1, 5), restarts=st.integers(1, 5))
def test_each_problem_picks_among_its_own_restarts(seed: int, problems: int, restarts: int) -> None:
    scores = draw(problems * restarts, seed=seed) - 10
    picked = pick_best(scores, restarts)
    assert (picked // restarts).tolist() == list(range(problems))
    assert torch.equal(scores[picked], scores.view(problems, restarts).amin(1))
