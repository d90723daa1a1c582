"""Known answers of soft actor-critic: a bandit's optimum, densities, updates, and agents that never meet."""

from __future__ import annotations

import importlib
import math
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from mibench.noise import Noise

sac: Any = importlib.import_module("mibench.attacks._sac")

DIM = 3
SMALL: dict[str, Any] = {"hidden": 16, "batch": 8, "lr": 0.01}


def agents_of(
    labels: tuple[int, ...],
    *,
    transitions: int = 100,
    is_one_step: bool = True,
    dim: int = DIM,
    **options: Any,
) -> Any:
    noise = Noise.of_targets(0, torch.tensor(labels))
    return sac.Agents(
        noise,
        dim,
        sac.Sac(**{**SMALL, **options}),
        torch.device("cpu"),
        transitions=transitions,
        is_one_step=is_one_step,
    )


def play(agents: Any, optimum: Tensor, episodes: int) -> list[Tensor]:
    """Rewards of a bandit: minus the squared distance of the action to the optimum; all (B,)."""
    rewards = []
    for episode in range(episodes):
        states = agents.noise.normal("state", agents.dim, step=episode)
        actions = agents.act(states, "action", episode)
        reward = -(actions - optimum).square().sum(1)
        agents.store(states, actions, reward, actions, is_last=True)
        rewards.append(reward)
    return rewards


@pytest.mark.parametrize("exploration", ["shared", "independent"])
def test_agents_find_the_known_optimum_of_a_bandit(exploration: str) -> None:
    optimum = torch.tensor([[0.5, -0.5], [-0.3, 0.6]])
    agents = agents_of((4, 7), dim=2, batch=16, transitions=300, exploration=exploration)
    rewards = torch.stack(play(agents, optimum, 300))
    assert bool((rewards[:30].mean(0) < -0.3).all())
    assert bool((rewards[-50:].mean(0) > -0.15).all())
    states = agents.noise.normal("fresh states", 50, 2)
    with torch.no_grad():
        mean = agents.policy(states)[..., :2].tanh().mean(1)
    assert float((mean - optimum).abs().max()) < 0.3
    assert torch.equal(mean.sign(), optimum.sign())


def test_an_agent_learns_the_same_alone_and_in_company() -> None:
    optimum = torch.tensor([0.2, -0.4, 0.1])
    together = torch.stack(play(agents_of((4, 7, 9)), optimum, 30))
    alone = torch.stack(play(agents_of((7,)), optimum, 30))
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-6, rtol=0)
    assert bool((together[:, 0] - together[:, 1]).abs().max() > 0.01)


def test_log_probabilities_are_those_of_a_squashed_gaussian() -> None:
    agents = agents_of((4, 7), exploration="independent")
    states = agents.noise.normal("some states", 5, DIM)
    with torch.no_grad():
        actions, log_p = agents.sampled(states, "x", 0)
        mean, log_std = agents.policy(states).chunk(2, dim=2)
    gauss = Normal(mean, log_std.exp()).log_prob(actions.atanh())
    slope = torch.log(1 - actions.square() + 1e-6)
    torch.testing.assert_close(log_p, (gauss - slope).mean(2, keepdim=True), atol=1e-4, rtol=0)


def test_exploration_is_one_number_for_all_or_one_for_each() -> None:
    for exploration, is_shared in (("shared", True), ("independent", False)):
        agents = agents_of((4, 7), exploration=exploration)
        states = agents.noise.normal("some states", 5, DIM)
        with torch.no_grad():
            actions, _ = agents.sampled(states, "x", 0)
            mean, log_std = agents.policy(states).chunk(2, dim=2)
        drawn = (actions.atanh() - mean) / log_std.exp()
        spread = drawn.flatten(1).amax(1) - drawn.flatten(1).amin(1)
        assert bool((spread < 1e-3).all()) is is_shared


def test_agents_draw_for_themselves() -> None:
    agents = agents_of((4, 7))
    states = torch.ones(2, DIM)
    gaps = [float((torch.sub(*agents.act(states, "x", step))).abs().max()) for step in range(8)]
    assert len(set(gaps)) == 8
    assert max(gaps) > 0.3


@pytest.mark.parametrize("is_critic", [True, False])
def test_first_weights_fill_their_bounds(*, is_critic: bool) -> None:
    noise = Noise.of_targets(0, torch.tensor([4, 7]))
    layers = sac.Layers.drawn(noise, "net", [9, 64, 64, 25], torch.device("cpu"), is_critic=is_critic)
    bounds = [1 / 8, 1 / 8, 3e-3] if is_critic else [1 / 3, 1 / 8, 1 / 8]
    for weight, bound in zip(layers.weights, bounds):
        assert 0.98 * bound < float(weight.detach().abs().max()) <= bound
    assert [tuple(bias.shape) for bias in layers.biases] == [(2, 1, 64), (2, 1, 64), (2, 1, 25)]
    for bias, wide in zip(layers.biases, (9, 64, 64)):
        assert 0.9 / wide**0.5 < float(bias.detach().abs().max()) <= 1 / wide**0.5


def test_layers_are_a_perceptron_for_each_agent() -> None:
    noise = Noise.of_targets(0, torch.tensor([4, 7]))
    layers = sac.Layers.drawn(noise, "net", [3, 5, 2], torch.device("cpu"), is_critic=False)
    x = noise.normal("x", 6, 3)
    with torch.no_grad():
        got = layers(x)
        for agent in range(2):
            inner = (x[agent] @ layers.weights[0][agent] + layers.biases[0][agent]).relu()
            wanted = inner @ layers.weights[1][agent] + layers.biases[1][agent]
            torch.testing.assert_close(got[agent], wanted, atol=1e-6, rtol=0)


def test_what_is_left_out_of_one_step_episodes_changes_nothing() -> None:
    optimum = torch.tensor([0.2, -0.4, 0.1])
    short = torch.stack(play(agents_of((4, 7), is_one_step=True), optimum, 30))
    full = torch.stack(play(agents_of((4, 7), is_one_step=False), optimum, 30))
    torch.testing.assert_close(short, full, atol=1e-6, rtol=0)


def test_learning_begins_when_more_than_a_batch_is_stored() -> None:
    agents = agents_of((4,), update_every=3)
    before = agents.policy.copy()
    changed = []
    for episode in range(13):
        play_one(agents, episode)
        mine, its = agents.policy.weights[0].detach(), before.weights[0]
        changed.append(not torch.equal(mine, its))
        before = agents.policy.copy()
    # the memory holds more than 8 from the ninth on; every third transition is followed by an update
    assert [i + 1 for i, moved in enumerate(changed) if moved] == [9, 12]


def play_one(agents: Any, episode: int, *, is_last: bool = True, reward: float = 1.0) -> None:
    states = agents.noise.normal("state", DIM, step=episode)
    actions = agents.act(states, "action", episode)
    agents.store(states, actions, torch.full((len(states),), reward), -states, is_last=is_last)


@pytest.mark.parametrize("what", ["ended", "going on"])
def test_the_worth_of_what_follows_is_discounted_and_ends_with_the_episode(
    what: Literal["ended", "going on"],
) -> None:
    agents = agents_of((4, 7), is_one_step=False, gamma=0.5, batch=90)
    for episode in range(5):
        play_one(agents, episode, is_last=what == "ended")
    got = agents._worth_after(agents._memory[:, :5], 1)
    following = torch.stack([-agents.noise.normal("state", DIM, step=i) for i in range(5)], dim=1)
    with torch.no_grad():
        actions, log_p = agents.sampled(following, "critic update", 1)
        pairs = torch.cat([following, actions], dim=2)
        least = torch.stack([target(pairs) for target in agents.targets]).amin(0)
    wanted = torch.zeros_like(least) if what == "ended" else 0.5 * (least - log_p)
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_targets_take_on_a_share_of_their_critics() -> None:
    agents = agents_of((4,), is_one_step=False, tau=0.25)
    before = [target.copy() for target in agents.targets]
    for episode in range(9):
        play_one(agents, episode)
    for old, target, critic in zip(before, agents.targets, agents.critics):
        wanted = 0.75 * old.weights[0] + 0.25 * critic.weights[0].detach()
        torch.testing.assert_close(target.weights[0], wanted, atol=1e-6, rtol=0)
        assert not torch.equal(old.weights[0], critic.weights[0].detach())


def test_the_temperature_falls_while_the_policy_is_wider_than_its_target_entropy() -> None:
    agents = agents_of((4, 7))
    for episode in range(9):
        play_one(agents, episode)
    # the first step of Adam has the length of its rate; entropies start far above minus the dimension
    torch.testing.assert_close(agents.log_temperature.detach().flatten(), torch.tensor([-0.01, -0.01]))


def test_a_full_memory_drops_the_oldest() -> None:
    agents = agents_of((4,), memory=4, batch=50)
    for episode in range(6):
        play_one(agents, episode, reward=float(episode))
    assert agents._memory[0, :, -1].tolist() == [4.0, 5.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "wrong", [{"hidden": 0}, {"batch": 0}, {"lr": 0.0}, {"gamma": 1.5}, {"tau": 0.0}, {"lr": math.nan}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"sac: .*{next(iter(wrong))}"):
        sac.Sac(**wrong)
