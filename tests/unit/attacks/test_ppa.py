"""Known answers of PPA: truncated and mirrored presamples, random crops, the robust choice, the allowance."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.augment import Views
from mibench.errors import AccessError, QueryBudgetError
from mibench.inversion import Problem
from mibench.nets import NetSpec, build
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim, freeze

robust: Any = importlib.import_module("mibench.attacks._robust")
presamples: Any = importlib.import_module("mibench.attacks._presamples")

SHAPE = (3, 8, 8)
CLASSES = 5
PRIOR = {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 100}
TINY: dict[str, Any] = {
    "prior": PRIOR,
    "search": {"steps": 5, "lr": 0.02, "betas": [0.1, 0.1], "keep": "last"},
    "presamples": 20,
    "keep": 6,
    "candidates": 2,
    "rounds": 3,
}
STILL = {"scale": [1.0, 1.0]}


def attack_of(**options: Any) -> Any:
    """PPA with these fields; Any, because its own methods are called."""
    return get_attack("ppa").from_params({**TINY, **options})


def victim_of(
    *, allowance: int | None = None, seen: list[Tensor] | None = None, max_queries: int | None = None
) -> WhiteBoxVictim:
    """A small net; the images that its logits are asked about end in `seen`."""
    spec = NetSpec(name="mlp", width=8, size=8, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(0))
    freeze(net)

    def view(x: Tensor) -> Tensor:
        if seen is not None:
            seen.append(x.detach().clone())
        logits: Tensor = net(x)
        return logits

    return WhiteBoxVictim(
        lambda x: net(x).softmax(1), net, view=view, allowance=allowance, max_queries=max_queries
    )


def prior_of(**options: Any) -> Prior:
    """A generator whose mean w is not zero, with the presamples of each label."""
    attack, ctx = attack_of(**options), Context(seed=1)
    raw = attack.learn_prior(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)), ctx)
    raw["g.w_avg"] = torch.linspace(-0.5, 0.5, 5).half()
    prior: Prior = attack.adapt_prior(raw, victim_of(), torch.zeros(0, *SHAPE), ctx)
    return prior


def run(
    targets: Sequence[int] = (1, 3, 1), victim: Any = None, max_batch: int = 256, **options: Any
) -> Reconstructions:
    got: Reconstructions = attack_of(**options).invert(
        victim or victim_of(), prior_of(), torch.tensor(targets), Context(seed=5, max_batch=max_batch)
    )
    return got


def pool_of(prior: Prior) -> tuple[Any, Tensor]:
    """The space, and the w from which the presamples are taken."""
    space = attack_of().prior_spec().load(prior, SHAPE, Context())
    return space, space.start(Noise.of_targets(1, torch.full((20,), -1)))


# presamples


@pytest.mark.parametrize("psi", [0.0, 0.5, 1.0])
def test_presamples_are_truncated_towards_the_mean_w(psi: float) -> None:
    prior = prior_of(psi=psi)
    _, pool = pool_of(prior)
    mean = prior["g.w_avg"].float()
    expected = mean + psi * (pool - mean)
    gaps = (prior["starts"].flatten(0, 1)[:, None] - expected).abs().amax(2)
    assert prior["starts"].shape == (CLASSES, 6, 5)
    assert float(gaps.amin(1).max()) < 1e-5


def test_presamples_are_ranked_by_the_mean_over_image_and_mirror_image() -> None:
    victim = victim_of()
    for flip in (True, False):
        prior = prior_of(flip=flip, psi=0.7)
        space, pool = pool_of(prior)
        mean = prior["g.w_avg"].float()
        w = mean + 0.7 * (pool - mean)
        with torch.no_grad():
            x = space.decode(w)
        table = victim.scores(x)
        if flip:
            table = (table + victim.scores(x.flip(3))) / 2
        order = table.topk(6, dim=0).indices.T
        torch.testing.assert_close(prior["starts"], w[order], atol=1e-5, rtol=0)


def test_without_truncation_and_mirror_presamples_are_those_of_mirror() -> None:
    prior = prior_of(psi=1.0, flip=False)
    space, _ = pool_of(prior)
    plain, _ = presamples.rank_presamples(space, victim_of(), Context(seed=1), count=20, keep=6)
    torch.testing.assert_close(prior["starts"], plain, atol=1e-5, rtol=0)


def test_each_search_of_a_label_starts_at_the_next_rank() -> None:
    seen: list[Tensor] = []
    run([1, 3, 1], victim_of(seen=seen), search={"steps": 0, "keep": "last"}, views=STILL)
    prior = prior_of()
    space, _ = pool_of(prior)
    starts = prior["starts"]
    with torch.no_grad():
        expected = space.decode(torch.cat([starts[1, :2], starts[3, :2], starts[1, 2:4]]))
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=0)


# the search


def test_every_step_crops_each_row_on_its_own() -> None:
    seen: list[Tensor] = []
    # without a step's movement only the crop changes what the victim sees
    run(
        [1, 3],
        victim_of(seen=seen),
        search={"steps": 20, "lr": 1e-12, "betas": [0.1, 0.1], "keep": "last"},
    )
    table = torch.stack(seen[:21]).flatten(2)
    for row in range(4):
        assert len(table[:, row].unique(dim=0)) == 21
    # crops of 0.9 to 1 stay near the image that they are crops of
    spread = (table - table.mean(0)).abs().mean((0, 2))
    apart = (table[0, 0] - table[0, 2]).abs().mean()
    assert bool((spread < apart).all())
    still: list[Tensor] = []
    run([1, 3], victim_of(seen=still), search={"steps": 3, "lr": 1e-12, "keep": "last"}, views=STILL)
    torch.testing.assert_close(still[3], still[0], atol=1e-6, rtol=0)


def test_the_search_descends_the_poincare_distance() -> None:
    options: dict[str, Any] = {
        "views": STILL,
        "search": {"steps": 40, "lr": 0.02, "betas": [0.1, 0.1], "keep": "last"},
    }
    effort = run(range(CLASSES), **options).effort
    assert effort is not None
    assert bool((effort.loss[-1] < effort.loss[0]).all())
    assert 5 < float(effort.loss.min()) <= float(effort.loss.max()) < 12  # no other loss lies there


def test_the_critic_has_a_say_where_it_is_given_a_weight() -> None:
    plain, weighed = run([1, 2]), run([1, 2], critic_weight=5.0)
    assert not torch.equal(plain.images, weighed.images)
    assert plain.effort is not None
    assert weighed.effort is not None
    assert bool((weighed.effort.loss[0] > plain.effort.loss[0]).all())  # softplus is positive


@pytest.mark.parametrize("single_w", [True, False])
def test_w_is_held_in_the_box_only_where_that_is_asked_for(single_w: bool) -> None:
    attack, prior = attack_of(single_w=single_w), prior_of()
    space = attack.styles(prior, victim_of(), Context())
    count = 1 if single_w else space.g.num_ws
    far = 50 * torch.randn(4, 5 * count, generator=torch.Generator().manual_seed(0))
    inside = space.project(far).view(4, count, 5)
    assert bool((inside >= space.space.low).all())
    assert bool((inside <= space.space.high).all())
    assert torch.equal(inside[:, 0], space.space.project(far.view(4, count, 5)[:, 0]))
    fast: dict[str, Any] = {"single_w": single_w, "search": {"steps": 6, "lr": 3.0, "keep": "last"}}
    free, bound = run([1, 2], **fast), run([1, 2], **fast, is_bounded=True)
    assert not torch.equal(free.images, bound.images)


def test_one_w_for_each_layer_begins_at_the_same_images_and_goes_further() -> None:
    still = {"steps": 0, "keep": "last"}
    torch.testing.assert_close(
        run(search=still).images, run(search=still, single_w=False).images, atol=1e-5, rtol=0
    )
    space = attack_of(single_w=False).styles(prior_of(), victim_of(), Context())
    w = space.space.start(Noise.of_targets(0, torch.arange(3)))
    rows = space.of_w(w)
    assert rows.shape == (3, space.dim) == (3, 5 * space.g.num_ws)
    torch.testing.assert_close(space.decode(rows), space.space.decode(w), atol=1e-6, rtol=0)
    apart = rows.clone()
    apart[:, -5:] += 1  # the last layer alone
    with torch.no_grad():
        assert not torch.equal(space.decode(apart), space.decode(rows))
    assert not torch.equal(run().images, run(single_w=False).images)


# the choice


class Halves:
    """Two labels: the probability of the first is the mean of the left half of the image."""

    def __call__(self, x: Tensor) -> Tensor:
        p = x[..., : x.shape[-1] // 2].mean((1, 2, 3)).clamp(0.01, 0.99)
        return torch.stack([p, 1 - p], dim=1).log()


def scripted() -> tuple[WhiteBoxVictim, Tensor, Problem]:
    """Two problems of two candidates: one half white (sure until mirrored), one gray (steady)."""
    victim = victim_of().seen_through(lambda _: Halves())
    sided = torch.zeros(3, 8, 8)
    sided[:, :, :4] = 1
    steady = torch.full((3, 8, 8), 0.7)
    images = torch.stack([sided, steady, steady, sided])
    problem = Problem(
        labels=torch.zeros(4, dtype=torch.int64),
        noise=Noise.of_targets(0, torch.zeros(4, dtype=torch.int64)),
        ranks=torch.arange(4),
        restarts=2,
    )
    return victim, images, problem


def test_the_most_robust_candidate_of_each_problem_is_chosen() -> None:
    victim, images, problem = scripted()
    rows, score = robust.most_robust(victim, Views(flip=0.5), 200)(images, problem)
    assert rows.tolist() == [1, 2]
    assert score.tolist() == pytest.approx([0.5, 0.7, 0.7, 0.5], abs=0.1)
    assert victim.queries.forward == 4 * 200
    rows, score = robust.most_robust(victim, Views(), 1)(images, problem)
    assert rows.tolist() == [0, 3]
    assert score.tolist() == pytest.approx([0.99, 0.7, 0.7, 0.99])


def test_the_score_is_the_mean_probability_over_the_views() -> None:
    seen: list[Tensor] = []
    victim = victim_of(seen=seen)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    _, _, problem = scripted()
    views = Views(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)
    with torch.no_grad():
        _, score = robust.most_robust(victim, views, 6)(x, problem)
        mean = torch.stack([victim.net(one).softmax(1)[:, 0] for one in seen]).mean(0)
    assert len(seen) == 6
    torch.testing.assert_close(score, mean, atol=1e-6, rtol=0)


def test_a_single_candidate_needs_no_choice() -> None:
    victim = victim_of()
    run([1, 2], victim, candidates=1)
    assert victim.queries.forward == 2 * (6 + 1)


# queries


def test_queries_of_presamples_search_and_choice() -> None:
    victim, attack = victim_of(), attack_of()
    prior = attack.adapt_prior(prior_of(), victim, torch.zeros(0, *SHAPE), Context())
    assert (victim.queries.forward, victim.queries.gradient) == (2 * 20, 0)
    attack.adapt_prior(prior, victim, torch.zeros(0, *SHAPE), Context())
    one_side = attack_of(flip=False)
    one_side.adapt_prior(prior, victim, torch.zeros(0, *SHAPE), Context())
    assert victim.queries.forward == 2 * 40 + 20
    victim = victim_of()
    attack.invert(victim, prior, torch.tensor([1, 2, 1]), Context())
    assert victim.queries.gradient == 3 * 2 * 6
    assert victim.queries.forward == 3 * 2 * (6 + 3)


@pytest.mark.parametrize("allowance", [4, 5, 9, 17, 18, 40])
def test_a_small_allowance_shortens_search_and_choice_alike(allowance: int) -> None:
    victim = victim_of(allowance=allowance)
    got = run([1, 3, 1], victim)
    full = 2 * (6 + 3)
    rounds = max(1, min(3 * min(allowance, full) // full, (allowance - 2) // 2))
    steps = min(5, (allowance - 2 - 2 * rounds) // 2)
    assert victim.queries.forward == 3 * 2 * (steps + 1 + rounds) <= 3 * allowance
    assert got.effort is not None
    assert got.effort.queries.tolist()[-2:] == [2 * (steps + 1), 2 * (steps + 1 + rounds)]
    assert torch.equal(got.images, run([1, 3, 1]).images) == (allowance >= full)


def test_an_allowance_below_start_and_choice_is_refused() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 3 queries"):
        run([1], victim_of(allowance=3))


def test_a_spent_budget_is_let_through() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 9 images"):
        run([1, 2], victim_of(max_queries=9))


def test_scores_alone_are_not_enough() -> None:
    lower = ScoreVictim(lambda x: x.flatten(1)[:, :5].softmax(1), shape=SHAPE, num_classes=CLASSES)
    with pytest.raises(AccessError, match="a score-level victim has no"):
        run([0], lower)


# rows


def test_labels_do_not_meet_and_chunks_change_nothing() -> None:
    together = run([1, 3, 1]).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(targets).images, together[rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(run([1, 3, 1], max_batch=2).images, together, atol=1e-5, rtol=0)
    assert torch.equal(run([1, 3, 1]).images, together)


# fields


def test_the_defaults_are_those_of_the_authors() -> None:
    ppa: Any = get_attack("ppa")()
    assert (ppa.search.steps, ppa.search.lr, ppa.search.betas, ppa.search.keep) == (
        70,
        0.005,
        (0.1, 0.1),
        "last",
    )
    assert (ppa.presamples, ppa.keep, ppa.psi, ppa.rounds) == (5_000, 200, 0.5, 100)
    assert (ppa.views, ppa.robust) == (
        Views(scale=(0.9, 1.0)),
        Views(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5),
    )
    assert (ppa.loss, ppa.critic_weight, ppa.is_bounded, ppa.single_w) == ("poincare", 0.0, False, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 0}, "ppa: 1 <= candidates <= keep <= presamples must hold, got 0, 6, 20"),
        ({"keep": 1}, "got 2, 1, 20"),
        ({"presamples": 5}, "got 2, 6, 5"),
        ({"psi": 1.5}, r"psi must lie in \[0, 1\].*got 1.5"),
        ({"critic_weight": -1.0}, "critic_weight be >= 0.*-1.0"),
        ({"rounds": 0}, "rounds >= 1, got 0.5, 0.0 and 0"),
        ({"views": {"scale": [0.0, 1.0]}}, "views: scale must be"),
    ],
)
def test_impossible_fields_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_of(**options)


def test_each_call_makes_its_own_choice() -> None:
    choose: Callable[..., tuple[Tensor, Tensor]] = robust.most_robust(victim_of(), Views(flip=0.5), 2)
    _, images, problem = scripted()
    with torch.no_grad():
        one, two = choose(images, problem), choose(images, problem)
    assert torch.equal(one[1], two[1])


@pytest.mark.parametrize("allowance", range(40, 56))
def test_no_allowance_is_refused_that_is_larger_than_one_that_passes(allowance: int) -> None:
    """Rounding the views of the choice once left nothing for the start at 43, 47 and 51."""
    victim = victim_of(allowance=allowance)
    run(
        [1],
        victim=victim,
        candidates=4,
        rounds=100,
        search={"steps": 5, "lr": 0.02, "betas": [0.1, 0.1], "keep": "last"},
    )
    assert 0 < victim.queries.forward <= allowance
