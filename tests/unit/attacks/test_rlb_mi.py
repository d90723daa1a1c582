"""Known answers of RLB-MI: rewards, states, the best of all episodes, queries; and rows that never meet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.errors import QueryBudgetError
from mibench.gan import WganPrior
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import ScoreVictim

DIM = 4
TINY: dict[str, Any] = {"episodes": 12, "sac": {"hidden": 8, "batch": 4, "lr": 0.01}}


class Plain:
    """A space whose images are its latents; the box of the prior plays no part beside the first latent."""

    dim = DIM

    def start(self, noise: Noise) -> Tensor:
        return noise.normal("start", DIM)

    def decode(self, latents: Tensor) -> Tensor:
        return (latents / 2 + 0.5)[:, :, None, None]

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1, 1)

    def realism(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainPrior(WganPrior):
    def load(self, prior: Prior, shape: tuple[int, int, int], ctx: Context) -> Any:
        return Plain()


def attack_of(**options: Any) -> Any:
    """The attack in the plain space; Any, because its own methods are called."""
    attack: Any = get_attack("rlb_mi").from_params({**TINY, **options})
    return dataclasses.replace(attack, prior=PlainPrior())


def victim_of(seen: list[Tensor] | None = None, **limits: Any) -> ScoreVictim:
    """Three labels; each has a place where the victim is surest of it."""
    places = torch.tensor([[0.5] * DIM, [-0.5] * DIM, [0.6, -0.6] * (DIM // 2)])

    def released(x: Tensor) -> Tensor:
        z = 2 * x.flatten(1) - 1
        if seen is not None:
            seen.append(z.clone())
        return (-(z[:, None] - places).square().sum(2)).softmax(1)

    return ScoreVictim(released, shape=(DIM, 1, 1), num_classes=3, **limits)


def run(
    targets: Sequence[int], ctx: Context | None = None, victim: ScoreVictim | None = None, **options: Any
) -> Reconstructions:
    got: Reconstructions = attack_of(**options).invert(
        victim or victim_of(), {}, torch.tensor(targets), ctx or Context(seed=5)
    )
    return got


# rewards and states


def test_the_reward_of_a_uniform_answer() -> None:
    uniform = torch.full((1, 10), 0.1)
    got = attack_of().reward(uniform, uniform, torch.tensor([3]))
    assert float(got) == pytest.approx(4 * math.log(0.1) + 8 * math.log(1e-7), abs=1e-3)
    assert float(got) == pytest.approx(-138.155, abs=1e-3)


def test_the_reward_weighs_state_action_and_margin() -> None:
    state = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    action = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    got = attack_of().reward(state, action, torch.tensor([0, 1]))
    wanted = [
        2 * math.log(a) + 2 * math.log(b) + 8 * math.log(c) for a, b, c in ((0.6, 0.5, 0.3), (0.5, 0.8, 0.2))
    ]
    assert got.tolist() == pytest.approx(wanted, rel=1e-5)
    weights = {"state_weight": 1.0, "action_weight": 0.5, "margin_weight": 0.0, "reward_scale": 0.1}
    other = attack_of(**weights).reward(state, action, torch.tensor([0, 1]))
    wanted = [0.1 * (math.log(a) + 0.5 * math.log(b)) for a, b in ((0.6, 0.5), (0.5, 0.8))]
    assert other.tolist() == pytest.approx(wanted, rel=1e-5)


def test_a_released_zero_has_a_finite_reward() -> None:
    hard = torch.tensor([[1.0, 0.0]])
    assert math.isfinite(float(attack_of().reward(hard, hard, torch.tensor([1]))))


def test_the_next_state_mixes_state_and_action() -> None:
    seen: list[Tensor] = []
    run([1, 2], victim=victim_of(seen), alpha=0.25, tests=0, episodes=3, steps=2)
    assert len(seen) == 3 * 2 * 2
    noise = Context(seed=5).noise(torch.tensor([1, 2]))
    for episode in range(3):
        state = noise.normal("state", DIM, step=episode)
        for step in range(2):
            following, action = seen[(episode * 2 + step) * 2 :][:2]
            torch.testing.assert_close(following, 0.25 * state + 0.75 * action, atol=1e-5, rtol=0)
            assert float(action.abs().max()) < 1
            state = following


# the search


def test_agents_end_surer_than_the_best_of_as_many_untrained_episodes() -> None:
    targets = [0, 1, 2] * 3
    # a batch that is never filled: the policy stays as it was drawn
    sac = {"hidden": 16, "batch": 16, "lr": 0.01, "exploration": "independent"}
    learned = run(targets, episodes=100, sac=sac)
    blind = run(targets, episodes=100, sac={**sac, "batch": 1000})
    assert bool((learned.confidence > blind.confidence).all())


@pytest.mark.parametrize("tests", [0, 1, 3])
def test_the_best_candidate_of_all_episodes_is_kept(tests: int) -> None:
    seen: list[Tensor] = []
    victim = victim_of(seen)
    got = run([1], victim=victim, tests=tests)
    asked = torch.stack(seen).view(12, 1 + tests, DIM)
    candidates = (asked if tests == 0 else asked[:, 1:]).reshape(-1, DIM)
    scores = victim_of().scores((candidates / 2 + 0.5)[:, :, None, None])[:, 1]
    assert float(got.confidence) == pytest.approx(float(scores.max()))
    torch.testing.assert_close(
        2 * got.images[0].flatten() - 1, candidates[scores.argmax()], atol=1e-5, rtol=0
    )


def test_without_an_old_state_one_image_stands_for_state_and_action() -> None:
    for alpha, each in ((0.0, 2), (0.5, 3)):
        victim = victim_of()
        got = run([0, 1, 0], victim=victim, alpha=alpha)
        assert victim.queries.forward == 3 * 12 * each
        assert victim.queries.gradient == 0
        assert got.effort is not None
        assert int(got.effort.queries[-1]) == 12 * each


# contract of batches and budgets


@pytest.mark.parametrize(("alpha", "steps"), [(0.0, 1), (0.3, 2)])
def test_rows_do_not_meet_and_chunks_change_nothing(alpha: float, steps: int) -> None:
    targets = [1, 2, 1, 0]
    options: dict[str, Any] = {"alpha": alpha, "steps": steps, "episodes": 8}
    whole = run(targets, **options)
    for chunk in (1, 16):
        part = run(targets, Context(seed=5, max_batch=chunk), **options)
        torch.testing.assert_close(part.images, whole.images, atol=1e-5, rtol=0)
    alone = run([1, 1], **options)
    torch.testing.assert_close(alone.images, whole.images[[0, 2]], atol=1e-5, rtol=0)
    assert float((whole.images[0] - whole.images[2]).abs().max()) > 1e-3


@pytest.mark.parametrize("allowance", [2, 3, 9, 100])
def test_an_allowance_is_planned_with(allowance: int) -> None:
    victim = victim_of(allowance=allowance, max_queries=2 * allowance)
    got = run([1, 2], victim=victim)
    episodes = min(12, allowance // 2)
    assert victim.queries.forward == 2 * 2 * episodes
    torch.testing.assert_close(got.images, run([1, 2], episodes=episodes).images)


def test_an_allowance_below_one_episode_is_refused() -> None:
    with pytest.raises(QueryBudgetError, match="1 queries for each reconstruction is too small: 2"):
        run([1], victim=victim_of(allowance=1))


def test_the_curve_is_the_best_so_far() -> None:
    got = run([1, 2, 0], episodes=40)
    assert got.effort is not None
    assert bool(got.effort.loss[0].isnan().all())
    asked = got.effort.loss[got.effort.queries >= 2]
    assert bool((asked[1:] <= asked[:-1]).all())
    torch.testing.assert_close(asked[-1], -got.confidence.log())
    assert torch.equal(got.effort.images[-1], (got.images * 255).round().to(torch.uint8))
    for queries, images in zip(got.effort.queries.tolist(), got.effort.images):
        if queries >= 2:
            shorter = run([1, 2, 0], episodes=queries // 2)
            assert torch.equal(images, (shorter.images * 255).round().to(torch.uint8))


def test_it_shares_the_generator_of_gmi() -> None:
    gmi = get_attack("gmi")().prior_spec()
    assert isinstance(gmi, WganPrior)
    for name in ("rlb_mi", "brep_mi"):
        spec = get_attack(name)().prior_spec()
        assert spec is not None
        assert (type(spec), spec.training_params()) == (type(gmi), gmi.training_params())


def test_the_defaults_are_the_authors() -> None:
    attack: Any = get_attack("rlb_mi")()
    assert (attack.episodes, attack.steps, attack.alpha, attack.tests) == (40_000, 1, 0.0, 1)
    assert (attack.state_weight, attack.action_weight, attack.margin_weight) == (2.0, 2.0, 8.0)
    assert (attack.sac.hidden, attack.sac.batch, attack.sac.lr) == (256, 256, 5e-4)
    assert (attack.sac.gamma, attack.sac.tau, attack.sac.memory) == (0.99, 0.01, 1_000_000)
    assert attack.sac.exploration == "shared"


@pytest.mark.parametrize(
    "wrong", [{"episodes": 0}, {"steps": 0}, {"tests": -1}, {"alpha": 1.0}, {"reward_scale": 0.0}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"rlb_mi: .*{next(iter(wrong))}"):
        get_attack("rlb_mi").from_params(wrong)
