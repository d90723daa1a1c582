"""The untrained generator: random weights, a search that climbs the victim, independence, queries."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.errors import AccessError, QueryBudgetError
from mibench.gan import WganPrior
from mibench.nets import NetSpec, build
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

SHAPE = (3, 8, 8)
TARGETS = torch.tensor([1, 3, 1])


def attack_of(**options: Any) -> Any:
    tiny = {"latent_dim": 6, "width": 4, "search": {"steps": 8, "lr": 0.05}}
    return get_attack("untrained_prior").from_params({**tiny, **options})


def victim_of(max_queries: int | None = None) -> WhiteBoxVictim:
    net = build(NetSpec(name="mlp", width=8, size=8, num_classes=4), torch.Generator().manual_seed(0))
    freeze(net)
    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, max_queries=max_queries)


def public(level: float = 0.5) -> Tensor:
    return torch.full((5, *SHAPE), level)


def prior_of(seed: int = 1) -> Prior:
    prior: Prior = attack_of().learn_prior(public(), Context(seed=seed))
    return prior


def test_it_is_a_control_that_no_defender_can_learn_a_prior_from() -> None:
    assert get_attack("untrained_prior").control
    assert attack_of().prior_spec() is None


def test_its_weights_are_those_a_generator_starts_from_whatever_the_public_images() -> None:
    prior = prior_of()
    start, _ = WganPrior(latent_dim=6, width=4, critic_width=1).nets(SHAPE, Context(seed=1).generator("init"))
    for name, parameter in start.named_parameters():
        assert torch.equal(prior[f"g.{name}"], parameter.detach().half()), name
    other = attack_of().learn_prior(public(0.9), Context(seed=1))
    assert all(torch.equal(prior[key], other[key]) for key in prior)
    assert not torch.equal(prior_of(seed=2)["g.project.0.weight"], prior["g.project.0.weight"])


def test_the_search_climbs_the_victim() -> None:
    before, after = (
        attack_of(loss="ce", search={"steps": steps, "lr": 0.1}).invert(
            victim_of(), prior_of(), torch.arange(4), Context(seed=5)
        )
        for steps in (0, 60)
    )
    assert bool((after.confidence > before.confidence).all())
    seen = victim_of().scores(after.images)[range(4), range(4)]
    torch.testing.assert_close(after.confidence, seen, atol=1e-5, rtol=0)


def test_labels_do_not_meet_and_chunks_change_nothing() -> None:
    together = attack_of().invert(victim_of(), prior_of(), TARGETS, Context(seed=5)).images
    for rows in ([1], [0, 2]):
        alone = attack_of().invert(victim_of(), prior_of(), TARGETS[rows], Context(seed=5)).images
        torch.testing.assert_close(alone, together[rows], atol=1e-5, rtol=0)
    chunked = attack_of().invert(victim_of(), prior_of(), TARGETS, Context(seed=5, max_batch=2)).images
    torch.testing.assert_close(chunked, together, atol=1e-5, rtol=0)


def test_the_seed_decides_repeats_differ_and_the_victim_is_left_alone() -> None:
    victim, state = victim_of(), torch.get_rng_state()
    mark = fingerprint(victim.net)
    one, two, other = (
        attack_of().invert(victim, prior_of(), TARGETS, Context(seed=seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, other.images)
    assert torch.equal(one.targets, TARGETS)
    assert not torch.equal(one.images[0], one.images[2])
    assert 0 <= one.images.min() <= one.images.max() <= 1
    assert fingerprint(victim.net) == mark
    assert torch.equal(torch.get_rng_state(), state)


def test_a_row_costs_one_query_a_step_and_two_more() -> None:
    victim = victim_of()
    attack_of().invert(victim, prior_of(), TARGETS, Context())
    assert victim.queries.forward == 3 * (8 + 2)
    assert victim.queries.gradient == 3 * (8 + 1)
    with pytest.raises(QueryBudgetError, match="budget of 7 images"):
        attack_of().invert(victim_of(max_queries=7), prior_of(), TARGETS, Context())


def test_scores_are_not_enough() -> None:
    victim = ScoreVictim(lambda x: torch.ones(len(x), 4) / 4, shape=SHAPE, num_classes=4)
    with pytest.raises(AccessError, match="a score-level victim has no 'logits'"):
        attack_of().invert(victim, prior_of(), TARGETS, Context())


@pytest.mark.parametrize("field", ["latent_dim", "width"])
def test_sizes_below_one_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"untrained_prior: {field} must be >= 1, got 0"):
        attack_of(**{field: 0})
