"""Known answers of VMI: divergences, the optimum of a quadratic, layers, queries, independence."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import StylePrior
from mibench.latent import Search, search_latents
from mibench.nets import CouplingFlow, NetSpec, build
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

distributions: Any = importlib.import_module("mibench.attacks._distributions")

SHAPE = (3, 8, 8)
PRIOR = {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 100}
TINY: dict[str, Any] = {
    "prior": PRIOR,
    "flow_steps": 2,
    "flow_levels": 2,
    "flow_hidden": 4,
    "search": {"steps": 6, "lr": 0.02, "keep": "last"},
    "samples": 3,
}
FAMILIES = pytest.mark.parametrize("family", ["flow", "gaussian"])


def attack_of(**options: Any) -> Any:
    """The attack with these fields; Any, because its own methods are called."""
    return get_attack("vmi").from_params({**TINY, **options})


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def victim_of(*, max_queries: int | None = None, allowance: int | None = None) -> WhiteBoxVictim:
    net = build(NetSpec(name="mlp", width=8, size=8, num_classes=5), torch.Generator().manual_seed(0))
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, max_queries=max_queries, allowance=allowance)


def learned() -> Prior:
    return StylePrior(**PRIOR).fit(draw(4, *SHAPE).sigmoid(), Context(seed=1))


def run(
    targets: Sequence[int],
    *,
    ctx: Context | None = None,
    victim: WhiteBoxVictim | None = None,
    **options: Any,
) -> Reconstructions:
    victim = victim_of() if victim is None else victim
    got: Reconstructions = attack_of(**options).invert(
        victim, learned(), torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


def flow_family(dim: int, **sizes: int) -> Any:
    options: dict[str, Any] = {"steps": 1, "levels": 1, "hidden": 3, **sizes}
    return distributions.Flow(CouplingFlow(dim, generator=torch.Generator().manual_seed(0), **options))


# divergences


def test_the_divergence_of_a_gaussian_has_its_closed_form() -> None:
    got = distributions.gaussian_divergence(torch.tensor([0.3, -0.2]), torch.tensor([0.0, 1.0]))
    assert float(got) == pytest.approx(0.4241, abs=1e-4)
    mu, log_var = draw(7, 4), draw(7, 4, seed=1)
    own = torch.distributions.Normal(mu, torch.exp(0.5 * log_var))
    exact = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(distributions.gaussian_divergence(mu, log_var), exact)
    family = distributions.Gaussian(4, log_var=0.0)
    _, terms = family.draw(torch.cat([mu, log_var], 1), draw(7, 3, 4))
    torch.testing.assert_close(terms, exact[:, None].expand(7, 3))


def test_the_divergence_of_a_flow_is_that_of_the_gaussian_that_it_makes() -> None:
    # without its couplings a step scales, shifts and reorders, so that what it draws is Gaussian
    family = flow_family(2)
    params = family.start(1)
    params[0, :2], params[0, 2:4] = torch.tensor([0.0, 0.5]), torch.tensor([0.3, -0.2])
    _, terms = family.draw(params, draw(1, 200_000, 2))
    assert float(terms.mean()) == pytest.approx(0.4241, abs=0.01)


def test_the_divergence_of_a_flow_is_the_difference_of_its_log_densities() -> None:
    family = flow_family(4, steps=2, levels=2)
    params, noise = 0.3 * draw(1, family.size), draw(1, 5, 4, seed=1)
    latents, terms = family.draw(params, noise)
    normal = torch.distributions.Normal(0.0, 1.0)
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: family.draw(params, x[None, None])[0].flatten(), noise[0, i]
        )
        own = normal.log_prob(noise[0, i]).sum() - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(terms[0, i], own - normal.log_prob(latents[0, i]).sum())


@FAMILIES
def test_at_the_start_every_distribution_is_the_prior(family: str) -> None:
    own = attack_of(family=family)._family(Context())
    _, terms = own.draw(own.start(2), draw(2, 4, 6))
    torch.testing.assert_close(terms, torch.zeros(2, 4), atol=1e-5, rtol=0)


@FAMILIES
def test_layers_are_distributions_of_their_own_with_the_mean_divergence(family: str) -> None:
    own = attack_of(family=family)._family(Context())
    layered = distributions.Layered(own, 3)
    assert (layered.dim, layered.size) == (3 * own.dim, 3 * own.size)
    assert layered.start(2).shape == (2, layered.size)
    params, noise = 0.3 * draw(2, layered.size), draw(2, 4, layered.dim, seed=1)
    latents, terms = layered.draw(params, noise)
    parts = [
        own.draw(params[:, i * own.size : (i + 1) * own.size], noise[..., i * 6 : (i + 1) * 6])
        for i in range(3)
    ]
    torch.testing.assert_close(latents, torch.cat([part[0] for part in parts], 2), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(terms, torch.stack([part[1] for part in parts]).mean(0), atol=1e-5, rtol=1e-5)


# learning


@pytest.mark.parametrize("kind", ["gaussian", "flow"])
def test_the_optimum_of_a_quadratic_is_the_gaussian_posterior(kind: str) -> None:
    # likelihood |z - a|^2 / (2 s^2) and weight 1: mu = a / (1 + s^2) and sigma^2 = s^2 / (1 + s^2)
    point, variance = torch.tensor([1.0, -2.0, 0.5, 1.5]), 0.5
    family = distributions.Gaussian(4, log_var=0.0) if kind == "gaussian" else flow_family(4)
    recovery = distributions.Recovery(
        victim=victim_of(),
        family=family,
        decode=nn.Identity(),
        loss=lambda x, _labels, kl: (x - point).square().sum(1) / (2 * variance) + kl,
        search=Search(lr=0.05, cooldown=0.5, keep="last"),
        samples=32,
        best_of=1,
    )
    params = recovery.learn(torch.tensor([3]), 400, Context(seed=2))
    latents, _ = family.draw(params, draw(1, 20_000, 4))
    torch.testing.assert_close(latents[0].mean(0), point / (1 + variance), atol=0.06, rtol=0)
    wanted = torch.full((4,), variance / (1 + variance))
    torch.testing.assert_close(latents[0].var(0), wanted, atol=0.06, rtol=0)


def test_plain_momentum_carries_the_last_step_on() -> None:
    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        loss = 0.5 * x.square().sum(1)
        return loss, loss.detach()

    search = Search(steps=2, lr=0.1, optimizer="momentum", keep="last")
    got, _ = search_latents(torch.ones(1, 1), objective, search, Context())
    # 1 - 0.1 = 0.9; then 0.9 - 0.1 * (0.9 + 0.9 * 1)
    assert float(got) == pytest.approx(0.72)


@FAMILIES
@pytest.mark.parametrize("layerwise", [True, False])
def test_learning_raises_the_victims_confidence(family: str, layerwise: bool) -> None:
    confidence = [
        run(
            [0, 1, 2, 3, 4],
            family=family,
            layerwise=layerwise,
            search={"steps": steps, "lr": 0.05, "keep": "last"},
        ).confidence.mean()
        for steps in (0, 60)
    ]
    assert float(confidence[1]) > float(confidence[0]) + 0.002


def test_a_large_weight_holds_the_distribution_at_the_prior() -> None:
    free, held = (
        run([1, 2], family="gaussian", kl_weight=weight, search={"steps": 80, "lr": 0.02, "keep": "last"})
        for weight in (0.0, 1e4)
    )
    start = run([1, 2], family="gaussian", search={"steps": 0, "keep": "last"})
    moved = [float((got.images - start.images).abs().mean()) for got in (free, held)]
    assert moved[1] < 0.3 * moved[0]


def test_draws_of_a_single_latent_pass_the_mapping_into_every_layer() -> None:
    got = run([1, 3], layerwise=False, family="gaussian", search={"steps": 0, "keep": "last"})
    space = StylePrior(**PRIOR).load(learned(), SHAPE, Context())
    noise = Context(seed=5).noise(torch.tensor([1, 3])).repeat(1).normal("keep", 6)
    torch.testing.assert_close(got.images, space.g(noise), atol=1e-5, rtol=0)


def test_draws_of_each_layer_pass_the_mapping_by_themselves() -> None:
    got = run([1, 3], family="gaussian", search={"steps": 0, "keep": "last"})
    space = StylePrior(**PRIOR).load(learned(), SHAPE, Context())
    noise = Context(seed=5).noise(torch.tensor([1, 3])).repeat(1).normal("keep", 6 * space.num_ws)
    w = torch.stack([space.g.mapping(part) for part in noise.chunk(space.num_ws, dim=1)], 1)
    torch.testing.assert_close(got.images, space.g.synthesis(w), atol=1e-5, rtol=0)


# queries and independence


def test_bounded_draws_decode_like_styles_in_the_box() -> None:
    narrow: dict[str, Any] = {**PRIOR, "kappa": 0.1}
    space = StylePrior(**narrow).load(learned(), SHAPE, Context())
    z = draw(3, PRIOR["latent_dim"])
    with torch.no_grad():
        w = space.g.mapping(z)
        assert not torch.equal(space.project(w), w)
        assert torch.equal(space.decode_z(z, is_bounded=True), space.decode(space.project(w)))
        assert torch.equal(space.decode_z(z), space.decode(w))
    assert not torch.equal(run([1], is_bounded=True).images, run([1]).images)


def test_a_step_costs_its_draws_and_repeats_share_it() -> None:
    victim = victim_of()
    got = run([1, 3, 1], victim=victim, best_of=2)
    # two labels, three draws, the start and six steps; then two draws for each of three reconstructions
    assert victim.queries.gradient == 2 * 3 * 7
    assert victim.queries.forward == 2 * 3 * 7 + 3 * 2
    assert got.effort is not None
    assert int(got.effort.queries[-1]) == 2 * 7 + 2


@FAMILIES
def test_it_ends_well_within_its_allowance(family: str) -> None:
    victim = victim_of(allowance=9, max_queries=27)
    got = run([1, 3, 1], victim=victim, family=family)
    # label 1 has 18: 2 for its draws, 3 for the start, four steps of 3; label 3 has 9: 1 + 3 + one step
    assert victim.queries.forward == (2 + 3 + 12) + (1 + 3 + 3)
    assert got.images.isfinite().all()
    with pytest.raises(QueryBudgetError, match="a budget of 3 queries"):
        run([1], victim=victim_of(allowance=3), family=family)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"family": "gaussian", "layerwise": False, "best_of": 2},
        {"coupling": "affine", "layerwise": False, "loss": "max_margin"},
    ],
)
def test_labels_do_not_meet_and_chunks_change_nothing(options: dict[str, Any]) -> None:
    together = run([1, 3, 1], **options).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(targets, **options).images, together[rows], atol=1e-5, rtol=0)
    for size in (1, 4):
        chunked = run([1, 3, 1], ctx=Context(seed=5, max_batch=size), **options)
        torch.testing.assert_close(chunked.images, together, atol=1e-5, rtol=0)


def test_the_seed_decides_and_nothing_else() -> None:
    before = torch.get_rng_state()
    one, two = run([0, 2]), run([0, 2])
    assert torch.equal(one.images, two.images)
    assert not torch.equal(run([0, 2], ctx=Context(seed=6)).images, one.images)
    assert torch.equal(torch.get_rng_state(), before)


def test_repeats_of_a_label_differ_and_the_victim_is_left_as_it_was() -> None:
    victim = victim_of()
    before = fingerprint(victim.net)
    got = run([2, 0, 2, 2], victim=victim)
    assert got.targets.tolist() == [2, 0, 2, 2]
    assert len(got.images.flatten(1).unique(dim=0)) == 4
    seen = victim.scores(got.images)[range(4), got.targets]
    torch.testing.assert_close(got.confidence, seen, atol=1e-5, rtol=0)
    assert fingerprint(victim.net) == before


def test_the_victims_favorite_of_several_draws_is_kept() -> None:
    least, most = (run([0, 1, 2, 3], best_of=count).confidence for count in (1, 30))
    assert bool((most >= least).all())
    assert float((most - least).mean()) > 0


def test_scores_are_not_enough() -> None:
    victim = ScoreVictim(lambda x: torch.ones(len(x), 5) / 5, shape=SHAPE, num_classes=5)
    with pytest.raises(AccessError, match="a score-level victim has no 'logits'"):
        attack_of().invert(victim, learned(), torch.tensor([0]), Context())


@pytest.mark.parametrize("field", ["flow_steps", "flow_levels", "flow_hidden", "samples", "best_of"])
def test_counts_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"vmi: {field} must be >= 1, got 0"):
        attack_of(**{field: 0})


def test_a_negative_weight_and_too_many_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vmi: kl_weight must be >= 0, got -1.0"):
        attack_of(kl_weight=-1.0)
    with pytest.raises(ValueError, match="vmi: 3 levels of a flow leave fewer than two of 6 coordinates"):
        attack_of(flow_levels=3)
