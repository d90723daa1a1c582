"""Known answers of what Mirror is made of: ranked presamples, P space, dropout, the choice."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.gan import StylePrior
from mibench.inversion import Problem
from mibench.nets import NetSpec, build
from mibench.nets.styled import from_p, to_p
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.spaces import WSpace
from mibench.victim import ScoreVictim, WhiteBoxVictim, fingerprint, freeze

mirror: Any = importlib.import_module(get_attack("mirror").__module__)
presamples: Any = importlib.import_module("mibench.attacks._presamples")
dropout: Any = importlib.import_module("mibench.attacks._dropout")
penalties: Any = importlib.import_module("mibench.attacks._penalty")

SHAPE = (3, 8, 8)
DIM = 6
PRIOR = {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 100}


def public() -> Tensor:
    return uniform(4, *SHAPE)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# presamples


def test_the_presamples_that_the_victim_likes_most_are_kept_best_first(cube_prior: StylePrior) -> None:
    weights = torch.randn(3, DIM, generator=torch.Generator().manual_seed(0)) / 3

    def released(x: Tensor) -> Tensor:
        return (x.flatten(1) @ weights.T).softmax(1)

    ctx = Context(seed=4)
    space = cube_prior.load({}, (DIM, 1, 1), ctx)
    victim = ScoreVictim(released, shape=(DIM, 1, 1), num_classes=3)
    got, scores = presamples.rank_presamples(space, victim, ctx, count=30, keep=4)
    pool = space.start(Noise.of_targets(4, torch.full((30,), -1)))
    table = released(pool[:, :, None, None])
    for label in range(3):
        order = table[:, label].argsort(descending=True)[:4]
        torch.testing.assert_close(got[label], pool[order])
        torch.testing.assert_close(scores[label], table[order, label])
    assert victim.queries.forward == 30


def test_each_repeat_takes_the_next_ranks_and_begins_anew_after_the_last() -> None:
    ranked = torch.arange(2 * 5).view(2, 5, 1).float()
    targets = torch.tensor([1, 0, 1, 1])
    problem = Problem(
        labels=targets.repeat_interleave(2),
        noise=Noise.of_targets(0, targets).repeat(2),
        ranks=torch.tensor([0, 1, 0, 1, 2, 3, 4, 5]),
        restarts=2,
    )
    assert presamples.starts_of(ranked, problem).flatten().tolist() == [5, 6, 0, 1, 7, 8, 9, 5]


# the space


def test_the_box_of_p_space_clamps_w_as_computed_by_hand() -> None:
    mean, std = torch.zeros(4), torch.full((4,), 0.5)
    space = WSpace(
        *StylePrior(**PRIOR).nets(SHAPE, torch.Generator()), from_p(mean - std), from_p(mean + std)
    )
    w = torch.tensor([[10.0, -10.0, 0.1, -0.05]])
    inside = space.project(w)
    torch.testing.assert_close(inside, torch.tensor([[0.5, -0.1, 0.1, -0.05]]))
    torch.testing.assert_close(space.project(inside), inside)
    torch.testing.assert_close(from_p(to_p(w)), w)


def test_the_published_schedule_rises_for_a_twentieth_and_falls_over_the_last_quarter() -> None:
    search = get_attack("mirror")().search  # type: ignore[attr-defined]  # a field of this plugin alone
    rates = [search.rate(round(share * search.steps)) for share in (0, 0.025, 0.05, 0.5, 0.75, 0.875, 1)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 1, 0.5, 0], abs=1e-9)


def test_the_energy_of_a_draw_is_its_dimension_on_average() -> None:
    prior = StylePrior(**{**PRIOR, "mapping_layers": 1})
    space: Any = prior.load(prior.fit(public(), Context()), SHAPE, Context())
    energy = penalties.Penalty(energy=1.0).of(space, Context())
    w = space.start(Noise.of_targets(77, torch.arange(3000)))
    assert float(energy(w, w).mean()) == pytest.approx(5, rel=0.1)
    center = from_p(to_p(w).mean(0, keepdim=True))
    assert float(energy(center, center)) < 0.05


# dropout


def test_rates_of_blocks_hang_on_how_many_are_dropped() -> None:
    noise = Noise.of_targets(0, torch.arange(4000))
    rates = dropout.block_rates(noise, 5, step=2)
    count = (rates > 0).sum(1)
    assert count.unique().tolist() == [0, 1, 2, 3, 4, 5]
    for row in range(200):
        expected = dropout.BLOCK_RATES[int(count[row])]
        assert rates[row][rates[row] > 0].tolist() == pytest.approx([expected] * int(count[row]))
    # one to five draws among five blocks and "none": a block is missed by each draw with probability 5/6
    missed = sum((5 / 6) ** draws for draws in range(1, 6)) / 5
    assert float((rates > 0).float().mean()) == pytest.approx(1 - missed, abs=0.02)
    torch.testing.assert_close(dropout.block_rates(noise[slice(7, 9)], 5, step=2), rates[7:9])
    assert not torch.equal(dropout.block_rates(noise, 5, step=3), rates)


def test_whole_channels_are_dropped_and_the_rest_is_scaled_up() -> None:
    noise = Noise.of_targets(0, torch.arange(50))
    rate = torch.linspace(0, 0.6, 50)
    got = dropout._drop(torch.ones(50, 400, 2, 2), rate, noise, "x", 0)
    assert bool((got == got[:, :, :1, :1]).all())
    assert float(got[0].min()) == 1
    torch.testing.assert_close((got == 0).float().mean((1, 2, 3)), rate, atol=0.1, rtol=0)
    kept = got[-1][got[-1] > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / 0.4))


def test_dropout_is_gone_when_the_logits_are_there() -> None:
    net = build(NetSpec(name="small_vgg", width=8, size=16, num_classes=5), torch.Generator().manual_seed(0))
    freeze(net)
    victim = WhiteBoxVictim(lambda x: net(x).softmax(1), net)
    x, noise, before = uniform(6, 3, 16, 16), Noise.of_targets(0, torch.arange(6)), fingerprint(net)
    plain = victim.logits(x)
    seen = [victim.seen_through(dropout.with_dropout(net, noise, step=step)).logits(x) for step in (0, 0, 1)]
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[0], seen[2])
    assert not torch.allclose(seen[0], plain)
    torch.testing.assert_close(victim.logits(x), plain)
    assert fingerprint(net) == before
    assert victim.queries.forward == 5 * 6

    def broken(_x: Tensor) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        dropout.with_dropout(net, noise, step=0)(broken)(x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# the choice


def test_a_group_that_agrees_on_two_labels_beats_a_surer_single() -> None:
    runners = torch.tensor([[1, 2, 3, 4, 5], [10, 11, 12, 13, 14], [1, 2, 6, 7, 8], [2, 1, 20, 21, 22]])
    assert mirror.most_consistent(runners, torch.tensor([1.0, 9.0, 3.0, 2.0])) == 2


def test_one_shared_label_counts_where_no_two_candidates_share_two() -> None:
    runners = torch.tensor([[1, 2], [3, 4], [5, 1], [6, 7]])
    assert mirror.most_consistent(runners, torch.tensor([1.0, 9.0, 2.0, 8.0])) == 2


def test_a_candidate_that_shares_other_labels_with_each_makes_no_group() -> None:
    # the first shares two labels with each of the others, yet only the last three agree on one pair
    runners = torch.tensor([[1, 2, 3, 4, 9], [1, 2, 5, 6, 7], [3, 4, 5, 6, 8], [5, 6, 9, 4, 11]])
    assert mirror.most_consistent(runners, torch.tensor([9.0, 1.0, 2.0, 3.0])) == 3


def test_candidates_without_agreement_are_ranked_by_the_target() -> None:
    runners = torch.arange(20).view(4, 5)
    assert mirror.most_consistent(runners, torch.tensor([-5.0, -2.0, -9.0, -3.0])) == 1


@settings(deadline=None, max_examples=60)
@given(
    table=st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5, unique=True), min_size=1, max_size=6),
    seed=st.integers(0, 999),
)
def test_the_choice_knows_neither_order_nor_names(table: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    runners, own = torch.tensor(table), torch.randn(len(table), generator=generator)
    chosen = mirror.most_consistent(runners, own)
    assert 0 <= chosen < len(table)
    order, names = torch.randperm(len(table), generator=generator), torch.randperm(10, generator=generator)
    assert int(order[mirror.most_consistent(names[runners][order], own[order])]) == chosen
    # a copy with a larger logit joins every group of its original, so it wins where that one won
    twin = torch.cat([runners, runners[[chosen]]]), torch.cat([own, own.amax()[None] + 1])
    assert mirror.most_consistent(*twin) == len(table)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 9), rows=st.integers(1, 4))
def test_runner_ups_are_the_best_other_labels(seed: int, classes: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    got = mirror.runner_ups(logits, labels)
    assert got.shape == (rows, min(5, classes - 1))
    for row, label in enumerate(labels.tolist()):
        order = [k for k in logits[row].argsort(descending=True).tolist() if k != label]
        assert got[row].tolist() == order[:5]
