"""Adaptive options: looks are counted, noise is averaged out, a student stands in, basins are avoided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from mibench.adaptive import Adaptive, Weakness, automatic
from mibench.attack import Effort, Reconstructions
from mibench.augment import Views
from mibench.contract.toy import context, toy_world
from mibench.distil import Student
from mibench.errors import SuiteError
from mibench.plan import build_plan
from mibench.registry import get_attack, get_defense
from mibench.stages.adapting import _merged, _push, adapt_with, invert_with, looking
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


@pytest.mark.parametrize("combine", ["mean", "median"])
def test_a_label_victim_is_counted_by_votes_and_never_averaged(combine: Literal["mean", "median"]) -> None:
    """Two of six answers are sure of label 1, so the mean vector is its; three say label 2."""
    two, one, zero = torch.tensor([[0.3, 0.3, 0.4]]), torch.tensor([[0.0, 1.0, 0.0]]), CLEAN
    told = iter([two, one, two, zero, one, two])
    options = Adaptive(repeats=6, combine=combine)
    victim = LabelVictim(lambda _: next(told), shape=SHAPE, num_classes=3)
    other = looking(victim, options, context("votes"))
    assert type(other) is LabelVictim
    assert other.labels(torch.zeros(1, *SHAPE)).tolist() == [2]


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


def test_a_median_joins_logits_too_and_passes_gradients() -> None:
    wild = iter([100.0, 1.0, 2.0])
    world = toy_world()
    victim = WhiteBoxVictim(
        lambda x: x, world.net, view=lambda x: x.mean((1, 2, 3))[:, None] + torch.full((1, 4), next(wild))
    )
    other = looking(victim, Adaptive(repeats=3, combine="median"), context("median"))
    assert isinstance(other, WhiteBoxVictim)
    x = torch.zeros(2, *world.private.shape, requires_grad=True)
    got = other.logits(x)
    assert torch.equal(got, torch.full((2, 4), 2.0))
    (slope,) = torch.autograd.grad(got.sum(), x)
    assert float(slope.abs().sum()) > 0


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


def test_a_students_curve_counts_no_query() -> None:
    """Steps, looks and rounds in the student are the attacker's own business."""
    kind = get_attack("gmi")
    adaptive = {"student": _json(STUDENT), "student_access": "score", "repeats": 2}
    attack = kind.from_params({**kind.toy, "adaptive": {**adaptive, "avoid_rounds": 1}})
    world, ctx = toy_world(), context("curve")
    victim = world.victim(ScoreVictim)
    prior = adapt_with(attack, victim, attack.learn_prior(world.public, ctx), world.public, ctx)
    got = invert_with(attack, victim, prior, torch.tensor([1, 0]), ctx)
    assert victim.queries.forward == 2 * len(world.public)
    assert got.effort is not None
    assert got.effort.queries.tolist() == [0]
    assert got.effort.images.shape == (1, 2, *world.private.shape)
    assert got.effort.loss.shape == (1, 2)


def test_an_effort_curve_counts_every_look() -> None:
    kind, world, ctx = get_attack("gmi"), toy_world(), context("curve")
    curves, asked = [], []
    for looks in (1, 3):
        attack = kind.from_params({**kind.toy, "adaptive": {"views": looks}})
        victim = world.victim(WhiteBoxVictim)
        got = invert_with(attack, victim, attack.learn_prior(world.public, ctx), torch.tensor([1]), ctx)
        assert got.effort is not None
        assert int(got.effort.queries[0]) == looks * kind.toy["restarts"]
        curves.append(got.effort.queries)
        asked.append(victim.queries.forward)
    assert torch.equal(curves[1], 3 * curves[0])
    assert asked[1] == 3 * asked[0]
    assert int(curves[0][-1]) <= asked[0]


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


def test_a_label_ends_the_same_alone_and_in_company_when_it_is_pushed() -> None:
    kind, world, ctx = get_attack("gmi"), toy_world(), context("alone")
    attack = kind.from_params({**kind.toy, "adaptive": {"avoid_rounds": 2}})
    prior = attack.learn_prior(world.public, ctx)

    def run(*labels: int) -> Reconstructions:
        return invert_with(attack, world.victim(WhiteBoxVictim), prior, torch.tensor(labels), ctx)

    company, alone = run(3, 1, 0, 1, 2), run(1, 1)
    assert company.targets.tolist() == [3, 1, 0, 1, 2]
    assert torch.allclose(company.images[[1, 3]], alone.images, atol=1e-5)
    assert torch.allclose(company.confidence[[1, 3]], alone.confidence, atol=1e-5)
    assert torch.allclose(company.images[[0]], run(3).images, atol=1e-5)
    assert company.effort is not None
    assert alone.effort is not None
    assert torch.equal(company.effort.queries, alone.effort.queries)
    assert torch.allclose(company.effort.loss[:, [1, 3]], alone.effort.loss, atol=1e-4)
    assert company.effort.images.shape[1] == 5
    # the labels are pushed from different places, or the rows above would agree whatever they hold
    assert not torch.allclose(company.images[1], company.images[0], atol=1e-2)


def test_labels_whose_curves_differ_are_counted_by_their_mean() -> None:
    def curve(labels: list[int], queries: list[int]) -> Reconstructions:
        rows = torch.tensor(labels)
        images = torch.zeros(len(queries), len(rows), *SHAPE, dtype=torch.uint8) + rows[:, None, None, None]
        effort = Effort(torch.tensor(queries), images.byte(), torch.zeros(len(queries), len(rows)))
        return Reconstructions.collect(torch.zeros(len(rows), *SHAPE), rows, effort=effort)

    rows = [torch.tensor([1]), torch.tensor([0, 2])]
    got = _merged([curve([5], [1, 4]), curve([7, 7], [1, 5])], rows)
    assert got.targets.tolist() == [7, 5, 7]
    assert got.effort is not None
    assert got.effort.queries.tolist() == [1, 5]  # 14 / 3, rounded up
    assert got.effort.images[:, :, 0, 0, 0].tolist() == [[7, 5, 7]] * 2
    assert _merged([curve([5], [1, 4]), curve([7, 7], [5])], rows).effort is None


def test_a_push_leaves_the_other_logits() -> None:
    victim = toy_world().victim(WhiteBoxVictim)
    assert isinstance(victim, WhiteBoxVictim)
    x = toy_world().private.images[:3]
    with torch.no_grad():
        direction = torch.nn.functional.normalize(victim.net.features(x[:1]), dim=1)
        change = victim.seen_through(_push(victim, 2, direction, 20.0)).logits(x) - victim.logits(x)
    assert float(change[0, 2]) == pytest.approx(-20.0, abs=1e-3)
    assert torch.equal(change[:, [0, 1, 3]], torch.zeros(3, 3))


ALL_WEAK: frozenset[Weakness] = frozenset({"fresh_noise", "keyed_noise", "rounding"})


@pytest.mark.parametrize(
    ("weak_to", "access", "acts", "view", "wanted"),
    [
        (frozenset(), WhiteBoxVictim, "output", "deployed", None),
        (frozenset({"decoys"}), WhiteBoxVictim, "fine-tuning", "stripped", Adaptive(avoid_rounds=1)),
        (frozenset({"decoys"}), ScoreVictim, "fine-tuning", "black-box", None),
        (frozenset({"keyed_noise"}), ScoreVictim, "output", "black-box", Adaptive(views=8)),
        (frozenset({"fresh_noise"}), LabelVictim, "output", "black-box", Adaptive(repeats=8)),
        (frozenset({"rounding"}), ScoreVictim, "output", "black-box", Adaptive(views=8, fill_zeros=True)),
        # noise inside the net is met in both views
        (frozenset({"keyed_noise"}), WhiteBoxVictim, "training", "stripped", Adaptive(views=8)),
        (frozenset({"fresh_noise"}), WhiteBoxVictim, "training", "stripped", Adaptive(repeats=8)),
        (frozenset({"keyed_noise"}), WhiteBoxVictim, "training", "deployed", Adaptive(views=8)),
        # an output step is met where it is held
        (ALL_WEAK, WhiteBoxVictim, "output", "stripped", None),
        (frozenset({"fresh_noise"}), WhiteBoxVictim, "output", "deployed", Adaptive(repeats=8)),
        (frozenset({"keyed_noise"}), WhiteBoxVictim, "output", "deployed", Adaptive(views=8)),
        (frozenset({"rounding"}), WhiteBoxVictim, "output", "deployed", Adaptive(views=8)),
    ],
)
def test_auto_takes_what_applies(
    weak_to: frozenset[Weakness],
    access: type[LabelVictim],
    acts: str,
    view: str,
    wanted: Adaptive | None,
) -> None:
    assert automatic(weak_to, access, acts=acts, view=view) == wanted


def test_auto_looks_where_the_defense_acts_and_at_the_view(make_suite: Callable[..., Suite]) -> None:
    plan = build_plan(
        make_suite(
            attacks={"gmi": {"adaptive": "auto"}},
            defenses={"mid": {}, "random_noise": {}},
            white_box=["stripped", "deployed"],
        )
    )
    met = {(cell.defense.label, cell.view): cell.attack.plugin.adaptive for cell in plan.cells}
    assert met == {
        ("mid", "stripped"): Adaptive(views=8),
        ("mid", "deployed"): Adaptive(views=8),
        ("random_noise", "stripped"): None,
        ("random_noise", "deployed"): Adaptive(views=8),
    }


@pytest.mark.parametrize("adaptive", ["auto", {"views": 2}])
def test_a_plan_refuses_options_for_eavesdropped_predictions(
    make_suite: Callable[..., Suite], adaptive: object
) -> None:
    suite = make_suite(attacks={"ami": {"goal": "instance", "adaptive": adaptive}})
    with pytest.raises(SuiteError, match=r"attacks.ami: .*goal 'instance'.*Leave adaptive out"):
        build_plan(suite)
    build_plan(make_suite(attacks={"ami": {"adaptive": adaptive}}))


@pytest.mark.parametrize("name", ["labels_only", "fill_zeros"])
def test_a_plan_refuses_options_of_scores_for_logits(make_suite: Callable[..., Suite], name: str) -> None:
    with pytest.raises(SuiteError, match=rf"attacks.gmi: .*adaptive.{name} .*student_access = 'score'"):
        build_plan(make_suite(attacks={"gmi": {"adaptive": {name: True}}}))
    build_plan(make_suite(attacks={"ami": {"adaptive": {name: True}}}))
    student = {"student": _json(STUDENT), "student_access": "label"}
    build_plan(make_suite(attacks={"gmi": {"adaptive": {name: True, **student}}}))
    with pytest.raises(SuiteError, match=name):
        build_plan(make_suite(attacks={"gmi": {"adaptive": {name: True, "student": _json(STUDENT)}}}))


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
        ({"veiws": 3}, r"no field 'adaptive\.veiws'\. Did you mean 'adaptive\.views'\?"),
        (
            {"views": 2, "view": {"scal": 1}},
            r"no field 'adaptive\.view\.scal'\. Did you mean 'adaptive\.view\.scale'",
        ),
        ({"student": {"wdth": 8}}, r"no field 'adaptive\.student\.wdth'\. Did you mean"),
        ({"view": 3}, r"'adaptive\.view' must be a table, got 3"),
        ("automatic", "'adaptive' must be a table or \"auto\", got 'automatic'"),
        ({"student_access": "label"}, "student_access does nothing without a student"),
        ({"avoid_weight": 3.0}, "avoid_weight does nothing without avoid_rounds > 0"),
        ({"combine": "median"}, "combine does nothing without repeats or views > 1"),
        ({"view": {"turn": 20.0}}, "view does nothing without views > 1"),
        ({"student": {}, "student_access": "label", "avoid_rounds": 1}, "Leave one out"),
    ],
)
def test_bad_options_are_named(params: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_attack("mean_face").from_params({"adaptive": params})


def _json(student: Student) -> dict[str, object]:
    return {"net": student.net, "width": student.width, "recipe": {"epochs": 6, "batch": 16}}
