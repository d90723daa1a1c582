"""Known answers of DMI: the distribution that is learned, the teacher, queries, independence."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.errors import AccessError, QueryBudgetError
from mibench.latent import Search
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

dmi: Any = importlib.import_module(get_attack("dmi").__module__)
distributions: Any = importlib.import_module("mibench.attacks._distributions")

SHAPE = (3, 16, 16)
TINY: dict[str, Any] = {
    "prior": {"latent_dim": 5, "width": 4, "critic_width": 4, "steps": 0},
    "adapt_steps": 2,
    "n_critic": 2,
    "batch": 4,
    "critic_width": 4,
    "search": {"steps": 6, "lr": 0.05, "keep": "last"},
}


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("dmi").from_params({**TINY, **options})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def public(count: int = 10) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def victim_of(
    *, seed: int = 0, classes: int = 4, max_queries: int | None = None, allowance: int | None = None
) -> WhiteBoxVictim:
    """A small VGG, because its batch norm drifts where a victim is left in training mode."""
    spec = NetSpec(name="small_vgg", width=2, size=16, num_classes=classes)
    net = build(spec, torch.Generator().manual_seed(seed))
    net.train()(public())
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, max_queries=max_queries, allowance=allowance)


def adapted(attack: Any, victim: WhiteBoxVictim, ctx: Context) -> Prior:
    prior: Prior = attack.adapt_prior(attack.learn_prior(public(), ctx), victim, public(), ctx)
    return prior


def run(
    targets: Sequence[int],
    *,
    ctx: Context | None = None,
    victim: WhiteBoxVictim | None = None,
    **options: Any,
) -> Reconstructions:
    attack, learning = attack_of(**options), Context(seed=1)
    victim = victim_of() if victim is None else victim
    prior = adapted(attack, victim, learning)
    got: Reconstructions = attack.invert(victim, prior, torch.tensor(targets), ctx or Context(seed=5))
    return got


def test_a_gaussian_draws_with_the_mean_and_the_deviation_of_its_parameters() -> None:
    family = distributions.Gaussian(2, log_var=-1.5)
    assert family.start(3).tolist() == [[0.0, 0.0, -1.5, -1.5]] * 3
    params = torch.tensor([[1.0, -2.0, 0.0, math.log(4.0)]])
    assert torch.equal(family.draw(params, torch.zeros(1, 1, 2))[0], params[None, :, :2])
    got, _ = family.draw(params, torch.ones(1, 1, 2))
    torch.testing.assert_close(got, torch.tensor([[[2.0, 0.0]]]))
    drawn, _ = family.draw(params, draw(1, 20_000, 2))
    torch.testing.assert_close(drawn[0].mean(0), torch.tensor([1.0, -2.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(drawn[0].std(0), torch.tensor([1.0, 2.0]), atol=0.05, rtol=0)


def test_the_distribution_closes_on_the_point_that_the_loss_asks_for() -> None:
    # identity generator and the squared distance: E = |mu - a|^2 + sum sigma^2
    point = torch.tensor([0.5, -1.0, 2.0])
    recovery = distributions.Recovery(
        victim=victim_of(),
        family=distributions.Gaussian(3, log_var=0.0),
        decode=nn.Identity(),
        loss=lambda x, _labels, _divergence: (x - point).square().sum(1),
        search=Search(lr=0.05, keep="last"),
        samples=8,
        best_of=1,
    )
    mu, log_var = recovery.learn(torch.tensor([0]), 800, Context(seed=2)).chunk(2, dim=1)
    torch.testing.assert_close(mu[0], point, atol=0.05, rtol=0)
    assert bool((torch.exp(0.5 * log_var) < 0.1).all())


def test_without_an_identity_weight_the_victim_decides_nothing() -> None:
    prior = adapted(attack_of(), victim_of(), Context(seed=1))
    images = {
        weight: [
            attack_of(identity_weight=weight)
            .invert(victim_of(seed=seed), prior, torch.tensor([2]), Context(seed=5))
            .images
            for seed in (0, 7)
        ]
        for weight in (0.0, 100.0)
    }
    assert torch.equal(*images[0.0])
    assert not torch.equal(*images[100.0])


def test_the_teacher_is_left_as_it_was() -> None:
    victim = victim_of()
    before = fingerprint(victim.net)
    run([0, 3], victim=victim)
    assert fingerprint(victim.net) == before


def test_soft_labels_are_asked_for_once_and_recovery_costs_one_query_a_step_and_draw() -> None:
    attack, victim, ctx = attack_of(samples=2, best_of=3), victim_of(), Context()
    prior = adapted(attack, victim, ctx)
    assert (victim.queries.forward, victim.queries.gradient) == (10, 0)
    attack.invert(victim, prior, torch.tensor([1, 3, 1]), ctx)
    # two labels, two draws a step, the start and six steps; then three latents for each of three rows
    assert victim.queries.gradient == 2 * 2 * 7
    assert victim.queries.forward == 10 + 2 * 2 * 7 + 3 * 3


def test_a_spent_budget_is_let_through() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 12 images"):
        run([0, 1], victim=victim_of(max_queries=12))


def test_scores_are_not_enough() -> None:
    attack, ctx = attack_of(), Context()
    victim = ScoreVictim(lambda x: torch.ones(len(x), 4) / 4, shape=SHAPE, num_classes=4)
    with pytest.raises(AccessError, match="a score-level victim has no 'logits'"):
        attack.adapt_prior(attack.learn_prior(public(), ctx), victim, public(), ctx)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"minibatch": False, "samples": 2, "best_of": 2, "loss": "max_margin", "clamp": True},
        {"recovery": "point", "best_of": 2, "search": {"steps": 6, "lr": 0.05}},
    ],
)
def test_labels_do_not_meet_and_chunks_change_nothing(options: dict[str, Any]) -> None:
    together = run([1, 3, 1], **options).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(targets, **options).images, together[rows], atol=1e-5, rtol=0)
    chunked = run([1, 3, 1], ctx=Context(seed=5, max_batch=2), **options)
    torch.testing.assert_close(chunked.images, together, atol=1e-5, rtol=0)


def test_the_seed_decides_and_nothing_else() -> None:
    before = torch.get_rng_state()
    one, two = run([0, 2]), run([0, 2])
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.confidence, two.confidence)
    assert not torch.equal(run([0, 2], ctx=Context(seed=6)).images, one.images)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_adapted_prior_depends_on_the_seed_and_on_the_victim() -> None:
    attack = attack_of()
    one, two = (adapted(attack, victim_of(), Context(seed=1)) for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    for other in (
        adapted(attack, victim_of(seed=7), Context(seed=1)),
        adapted(attack, victim_of(), Context(seed=2)),
    ):
        assert any(not torch.equal(one[key], other[key]) for key in one)


def test_repeats_of_a_label_are_kept_and_differ() -> None:
    victim = victim_of()
    got = run([2, 0, 2, 2], victim=victim)
    assert got.targets.tolist() == [2, 0, 2, 2]
    assert got.images.shape == (4, *SHAPE)
    assert got.images.dtype == torch.float32
    assert 0 <= got.images.min() <= got.images.max() <= 1
    assert len(got.images.flatten(1).unique(dim=0)) == 4
    seen = victim.scores(got.images)[range(4), got.targets]
    torch.testing.assert_close(got.confidence, seen, atol=1e-5, rtol=0)


def test_the_curve_counts_shared_queries_and_ends_at_what_is_returned() -> None:
    victim, attack = victim_of(), attack_of(samples=3, best_of=2)
    prior = adapted(attack, victim, Context(seed=1))
    asked = victim.queries.forward
    got = attack.invert(victim, prior, torch.tensor([2, 0, 2, 2]), Context(seed=5))
    assert got.effort is not None
    # two labels, three draws a step, four reconstructions: 3/2 of a query for each and step, rounded up
    assert got.effort.queries.tolist() == [2, 3, 5, 6, 8, 9, 13]
    assert victim.queries.forward - asked == 2 * 3 * 7 + 4 * 2
    assert torch.equal(got.effort.images[-1], quantize(got.images))
    assert got.effort.loss.shape == (7, 4)
    assert torch.equal(got.effort.loss[:, 0], got.effort.loss[:, 2])
    assert not torch.equal(got.effort.images[0], got.effort.images[-1])


def test_the_curve_does_not_depend_on_chunks() -> None:
    whole, parts = (run([2, 0, 2], ctx=Context(seed=5, max_batch=size), best_of=5).effort for size in (64, 1))
    assert whole is not None
    assert parts is not None
    assert torch.equal(whole.queries, parts.queries)
    torch.testing.assert_close(whole.loss, parts.loss, atol=1e-3, rtol=1e-5)
    assert int((whole.images.int() - parts.images.int()).abs().max()) <= 1
    assert whole.single is not None
    assert not torch.equal(whole.single, whole.images[-1])


def test_the_repeats_of_a_label_pay_for_its_steps_together() -> None:
    attack, targets = attack_of(best_of=2), torch.tensor([1, 3, 1, 1])
    prior = adapted(attack, victim_of(), Context(seed=1))
    victim = victim_of(allowance=5, max_queries=20)
    got = attack.invert(victim, prior, targets, Context(seed=5))
    # label 1 has 15 queries: 6 for its draws, 1 for the start, so all 6 steps; label 3 has 5: 2 + 1 + 2
    assert victim.queries.forward == (6 + 1 + 6) + (2 + 1 + 2)
    alone = attack.invert(victim_of(allowance=5), prior, torch.tensor([3]), Context(seed=5))
    torch.testing.assert_close(alone.images[0], got.images[1], atol=1e-5, rtol=0)
    free = attack.invert(victim_of(), prior, targets, Context(seed=5)).images
    torch.testing.assert_close(free[[0, 2, 3]], got.images[[0, 2, 3]], atol=1e-5, rtol=0)
    assert not torch.allclose(free[1], got.images[1], atol=1e-5)
    assert got.effort is not None
    assert got.effort.queries[-1] == 5


def test_an_allowance_below_the_first_step_and_the_draws_is_refused() -> None:
    attack, prior = attack_of(best_of=2), adapted(attack_of(), victim_of(), Context(seed=1))
    least = attack.invert(victim_of(allowance=3), prior, torch.tensor([1]), Context(seed=5))
    assert least.images.isfinite().all()
    with pytest.raises(QueryBudgetError, match=r"a budget of 2 queries for each .* 3 are needed"):
        attack.invert(victim_of(allowance=2), prior, torch.tensor([1]), Context(seed=5))


def test_a_clamped_draw_is_that_of_the_latent_in_the_box() -> None:
    options: dict[str, Any] = {"search": {"steps": 0, "keep": "last"}, "log_var": 4.0}
    prior = adapted(attack_of(), victim_of(), Context(seed=1))
    free, boxed = (
        attack_of(clamp=clamp, **options).invert(victim_of(), prior, torch.tensor([1, 2]), Context(seed=5))
        for clamp in (False, True)
    )
    space = attack_of()._space(victim_of(), prior, Context())
    noise = Context(seed=5).noise(torch.tensor([1, 2])).repeat(1).normal("keep", 5)
    latents = math.exp(2.0) * noise
    assert float(latents.abs().max()) > 1
    torch.testing.assert_close(free.images, space.decode(latents), atol=1e-5, rtol=0)
    torch.testing.assert_close(boxed.images, space.decode(latents.clamp(-1, 1)), atol=1e-5, rtol=0)
    assert not torch.allclose(free.images, boxed.images, atol=1e-3)


def test_points_are_searched_from_starts_of_their_own_inside_the_box() -> None:
    attack = attack_of(recovery="point", best_of=3, search={"steps": 0})
    victim = victim_of()
    prior = adapted(attack, victim, Context(seed=1))
    asked = victim.queries.forward
    got = attack.invert(victim, prior, torch.tensor([1, 1]), Context(seed=5))
    assert victim.queries.forward - asked == 2 * 3 * 2
    space = attack._space(victim, prior, Context())
    starts = space.start(Context(seed=5).noise(torch.tensor([1, 1])).repeat(3)).clamp(-1, 1)
    candidates = space.decode(starts)
    best = victim.logits(candidates)[:, 1].view(2, 3).argmax(1) + torch.tensor([0, 3])
    torch.testing.assert_close(got.images, candidates[best], atol=1e-5, rtol=0)


def test_the_generator_waits_until_the_discriminator_has_led() -> None:
    untouched, ctx = attack_of().learn_prior(public(), Context(seed=1)), Context(seed=1)
    led = attack_of(critic_lead=7, adapt_steps=1, adapt_lr=1e-3)
    slow, fast = (
        attack.adapt_prior(untouched, victim_of(), public(), ctx)
        for attack in (led, attack_of(adapt_steps=8, adapt_lr=1e-3))
    )
    weights = [name for name in untouched if name.startswith("g.") and name.endswith("weight")]
    moved = [
        max(float((prior[name] - untouched[name]).abs().max()) for name in weights) for prior in (slow, fast)
    ]
    # a first step of Adam moves each weight by its rate; half precision blurs it
    assert moved[0] == pytest.approx(1e-3, rel=0.6)
    assert moved[1] > 3 * moved[0]


def test_the_average_of_the_weights_moves_less_and_is_off_by_default() -> None:
    ctx, untouched = Context(seed=1), attack_of().learn_prior(public(), Context(seed=1))
    assert get_attack("dmi").from_params({}).params()["ema"] == 0
    last, average = (
        attack_of(adapt_steps=12, adapt_lr=1e-3, ema=ema).adapt_prior(untouched, victim_of(), public(), ctx)
        for ema in (0.0, 0.999)
    )
    weights = [name for name in untouched if name.startswith("g.") and name.endswith("weight")]
    way = [
        sum(float((prior[name].float() - untouched[name].float()).square().sum()) for name in weights)
        for prior in (last, average)
    ]
    assert 0 < way[1] < way[0]


def test_the_victims_favorite_of_several_draws_is_kept() -> None:
    prior = adapted(attack_of(), victim_of(), Context(seed=1))
    targets = torch.tensor([0, 1, 2, 3])
    least = attack_of(best_of=1).invert(victim_of(), prior, targets, Context(seed=5)).confidence
    most = attack_of(best_of=40).invert(victim_of(), prior, targets, Context(seed=5)).confidence
    assert float((most - least).mean()) > 0


@pytest.mark.parametrize("field", ["adapt_steps", "n_critic", "batch", "critic_width", "samples", "best_of"])
def test_counts_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"dmi: {field} must be >= 1, got 0"):
        attack_of(**{field: 0})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("critic_lead", -1, "critic_lead must be >= 0, got -1"),
        ("identity_weight", -1.0, "identity_weight must be >= 0, got -1.0"),
        ("entropy_weight", -1.0, "entropy_weight must be >= 0, got -1.0"),
        ("adapt_lr", 0.0, "adapt_lr must be > 0, got 0.0"),
        ("ema", 1.0, r"ema must lie in \[0, 1\), got 1.0"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"dmi: {message}"):
        attack_of(**{field: value})


def test_the_published_name_leads_to_it() -> None:
    assert "ked_mi" in get_attack("dmi").aliases
