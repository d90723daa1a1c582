"""Adaptive options: looks are counted, noise is averaged out, a student stands in, basins are avoided."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mibench.adaptive import Adaptive, automatic
from mibench.augment import Views
from mibench.contract.toy import context, toy_world
from mibench.distil import Student
from mibench.plan import build_plan
from mibench.registry import get_attack, get_defense
from mibench.stages.adapting import adapt_with, invert_with, looking
from mibench.suite import Suite
from mibench.training import Recipe
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

CLEAN = torch.tensor([[0.7, 0.2, 0.1]])
SHAPE = (1, 4, 4)


def noisy(seed: int = 0, scale: float = 0.3) -> ScoreVictim:
    """A victim that answers CLEAN with noise drawn anew for each question."""
    generator = torch.Generator().manual_seed(seed)

    def released(x: Tensor) -> Tensor:
        noise = torch.rand(len(x), 3, generator=generator) * scale
        answer = CLEAN + noise
        return answer / answer.sum(1, keepdim=True)

    return ScoreVictim(released, shape=SHAPE, num_classes=3)


def error(victim: LabelVictim) -> float:
    assert isinstance(victim, ScoreVictim)
    scores = victim.scores(torch.zeros(64, *SHAPE))
    return float(scores.std(0).mean())


def test_averaging_repeats_shrinks_fresh_noise_by_the_root_of_their_number() -> None:
    ctx = context("repeats")
    alone = error(noisy())
    averaged = error(looking(noisy(), Adaptive(repeats=16), ctx))
    assert averaged == pytest.approx(alone / 4, rel=0.3)


def test_every_look_is_counted_and_planned_for() -> None:
    victim = noisy()
    victim.allowance = 60
    other = looking(victim, Adaptive(repeats=3, views=2), context("count"))
    assert isinstance(other, ScoreVictim)
    other.scores(torch.zeros(5, *SHAPE))
    assert victim.queries.forward == 5 * 6
    assert other.steps_within(100, per_step=1, reserve=1) == 9  # (60 - 6) / 6


def test_options_that_change_nothing_leave_the_victim_itself() -> None:
    victim = noisy()
    assert looking(victim, Adaptive(), context("nothing")) is victim


def test_views_bring_back_what_rounding_took() -> None:
    """The score follows the image's mean; rounded to 0.1 one look cannot tell 0.62 from 0.58, jitter can."""

    def released(x: Tensor) -> Tensor:
        share = (x.mean((1, 2, 3)) * 10).round() / 10
        return torch.stack([share, 1 - share], dim=1)

    victim = ScoreVictim(released, shape=SHAPE, num_classes=2)
    options = Adaptive(views=64, view=Views(jitter=0.2))
    other = looking(victim, options, context("rounding"))
    assert isinstance(other, ScoreVictim)
    levels = torch.tensor([0.56, 0.6, 0.64])[:, None, None, None].expand(3, *SHAPE)
    plain, seen = victim.scores(levels)[:, 0], other.scores(levels)[:, 0]
    assert plain.unique().numel() == 1
    assert bool((seen.diff() > 0.01).all())


def test_labels_only_never_passes_a_score_on() -> None:
    other = looking(noisy(scale=2.0), Adaptive(labels_only=True, repeats=5), context("votes"))
    assert isinstance(other, ScoreVictim)
    votes = other.scores(torch.zeros(8, *SHAPE)) * 5
    assert torch.equal(votes, votes.round())
    assert torch.allclose(votes.sum(1), torch.full((8,), 5.0))


def test_a_median_withstands_a_wild_answer() -> None:
    wild = iter([torch.tensor([[0.0, 0.0, 1.0]]), *[CLEAN] * 4])
    victim = ScoreVictim(lambda _: next(wild), shape=SHAPE, num_classes=3)
    other = looking(victim, Adaptive(repeats=5, combine="median"), context("median"))
    assert isinstance(other, ScoreVictim)
    assert torch.allclose(other.scores(torch.zeros(1, *SHAPE)), CLEAN)


def test_filled_zeros_are_half_of_the_least_score() -> None:
    victim = ScoreVictim(lambda x: torch.tensor([[0.8, 0.2, 0.0]]), shape=SHAPE, num_classes=3)
    other = looking(victim, Adaptive(fill_zeros=True), context("zeros"))
    assert isinstance(other, ScoreVictim)
    assert torch.allclose(other.scores(torch.zeros(1, *SHAPE)), torch.tensor([[0.8, 0.2, 0.1]]) / 1.1)


def test_looks_pass_gradients_and_are_the_mean_of_logits() -> None:
    victim = toy_world().victim(WhiteBoxVictim)
    assert isinstance(victim, WhiteBoxVictim)
    other = looking(victim, Adaptive(views=3, view=Views(flip=1.0)), context("views"))
    assert isinstance(other, WhiteBoxVictim)
    x = toy_world().public[:2].clone().requires_grad_(True)
    got = other.logits(x)
    (slope,) = torch.autograd.grad(got.sum(), x)
    assert float(slope.abs().sum()) > 0
    with torch.no_grad():
        plain, mirrored = victim.logits(x.detach()), victim.logits(x.detach().flip(3))
    assert torch.allclose(got, (plain + 2 * mirrored) / 3, atol=1e-5)


STUDENT = Student(net="small_vgg", width=8, recipe=Recipe(epochs=6, batch=16))


@pytest.mark.parametrize("access", ["white-box", "score", "label"])
def test_a_student_takes_the_victims_place(access: str) -> None:
    """A white-box attack runs on a victim that tells labels alone, and asks it nothing while inverting."""
    kind = get_attack("untrained_prior")
    attack = kind.from_params({**kind.toy, "adaptive": {"student": _json(STUDENT), "student_access": access}})
    world, ctx = toy_world(), context("student")
    victim = world.victim(attack.needed_access)
    assert type(victim) is {"white-box": WhiteBoxVictim, "score": ScoreVictim, "label": LabelVictim}[access]
    prior = adapt_with(attack, victim, attack.learn_prior(world.public, ctx), world.public, ctx)
    assert victim.queries.forward == len(world.public)
    got = invert_with(attack, victim, prior, torch.tensor([0, 1]), ctx)
    assert victim.queries.forward == len(world.public)
    assert got.images.shape == (2, *world.private.shape)
    assert 0 <= ctx.notes["student_agreement"] <= 1


def test_an_effort_curve_counts_every_look() -> None:
    kind, world, ctx = get_attack("gmi"), toy_world(), context("curve")
    for looks in (1, 3):
        attack = kind.from_params({**kind.toy, "adaptive": {"views": looks}})
        victim = world.victim(WhiteBoxVictim)
        got = invert_with(attack, victim, attack.learn_prior(world.public, ctx), torch.tensor([1]), ctx)
        restarts = kind.toy["restarts"]
        assert got.effort is not None
        assert int(got.effort.queries[0]) == looks * restarts
        # the choice among restarts comes after the last point
        assert victim.queries.forward == int(got.effort.queries[-1]) + looks * restarts


def test_the_last_round_points_away_from_the_first() -> None:
    kind = get_attack("gmi")
    world, ctx = toy_world(), context("basins")
    targets = torch.tensor([0, 1, 2, 3])

    def features(weight: float) -> Tensor:
        attack = kind.from_params({**kind.toy, "adaptive": {"avoid_rounds": 1, "avoid_weight": weight}})
        prior = attack.learn_prior(world.public, ctx)
        got = invert_with(attack, world.victim(WhiteBoxVictim), prior, targets, ctx)
        assert got.effort is not None
        assert bool((got.effort.queries.diff() > 0).all())
        with torch.no_grad():
            return torch.nn.functional.normalize(world.net.features(got.images), dim=1)

    plain = kind.from_params(dict(kind.toy))
    first = plain.invert(world.victim(WhiteBoxVictim), plain.learn_prior(world.public, ctx), targets, ctx)
    with torch.no_grad():
        found = torch.nn.functional.normalize(world.net.features(first.images), dim=1)
    near, far = ((features(weight) * found).sum(1).mean() for weight in (0.0, 50.0))
    assert float(far) < float(near)


def test_two_rounds_share_one_allowance() -> None:
    kind = get_attack("gmi")
    attack = kind.from_params({**kind.toy, "adaptive": {"avoid_rounds": 1}})
    world, ctx = toy_world(), context("allowance")
    victim = world.victim(WhiteBoxVictim, allowance=20, max_queries=20)
    invert_with(attack, victim, attack.learn_prior(world.public, ctx), torch.tensor([1]), ctx)
    assert 0 < victim.queries.forward <= 20


@pytest.mark.parametrize(
    ("weak_to", "access", "wanted"),
    [
        (frozenset(), WhiteBoxVictim, None),
        (frozenset({"decoys"}), WhiteBoxVictim, Adaptive(avoid_rounds=1)),
        (frozenset({"decoys"}), ScoreVictim, None),
        (frozenset({"keyed_noise"}), ScoreVictim, Adaptive(views=8)),
        (frozenset({"keyed_noise"}), WhiteBoxVictim, None),
        (frozenset({"fresh_noise"}), LabelVictim, Adaptive(repeats=8)),
        (frozenset({"rounding"}), ScoreVictim, Adaptive(views=8, fill_zeros=True)),
    ],
)
def test_auto_takes_what_applies(weak_to: frozenset, access: type, wanted: Adaptive | None) -> None:  # type: ignore[type-arg]
    assert automatic(weak_to, access) == wanted


def test_auto_is_resolved_in_each_cell_and_stands_on_its_key(make_suite: Callable[..., Suite]) -> None:
    plan = build_plan(
        make_suite(
            attacks={"toy_scores": {"adaptive": "auto"}},
            defenses={"none": {}, "ad_mi": {"epochs": 1, "width": 4}},
        )
    )
    chosen = {cell.defense.label: cell.attack.plugin.params().get("adaptive") for cell in plan.cells}
    assert chosen["none"] is None
    assert (chosen["ad_mi"] or {})["views"] == 8
    assert get_defense("ad_mi").weak_to == {"keyed_noise"}


def test_attacks_without_options_keep_their_params() -> None:
    assert "adaptive" not in get_attack("mean_face").from_params({}).params()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"repeats": 0}, "repeats must be >= 1"),
        ({"views": -1}, "views must be >= 1"),
        ({"student": {}, "student_access": "label", "avoid_rounds": 1}, "Leave one out"),
    ],
)
def test_bad_options_are_named(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_attack("mean_face").from_params({"adaptive": params})


def _json(student: Student) -> dict[str, object]:
    return {"net": student.net, "width": student.width, "recipe": {"epochs": 6, "batch": 16}}
