"""Soft actor-critic for many small agents at once: every weight has one matrix for each agent.

A policy gives a mean and a deviation for each coordinate of a squashed Gaussian action; a critic learns what
an action is worth in a state; the temperature that weighs entropy is learned too. Agents never meet: losses
are means over an agent's own mini-batch, summed over agents, and Adam is element-wise.

Source: Haarnoja et al., 2018 (arXiv:1812.05905), with the choices of Han et al., CVPR 2023 (their code):
log-probabilities are means over coordinates, the target entropy is minus the number of coordinates, the
policy climbs the first critic alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.noise import Noise

_LOG_STD = (-20.0, 2.0)  # bounds of the policy's log deviation, the authors' code
_LAST_CRITIC = 3e-3  # bound of the critic's last weights, the authors' code
_ROOM = 1e-6  # keeps the logarithm of 1 - a^2 finite, the authors' code


@dataclass(frozen=True, kw_only=True)
class Sac:
    """Options of soft actor-critic; the defaults are those of Han et al., CVPR 2023.

    Args:
        hidden: units of each of two hidden layers, >= 1.
        batch: transitions in an update, >= 1; learning begins when more than that are stored.
        memory: transitions stored at most, >= 1; the oldest are replaced.
        lr: Adam's learning rate for policy, critics and temperature, > 0.
        gamma: discount, in [0, 1].
        tau: share of the critics that their targets take on with each update, in (0, 1].
        update_every: stored transitions for each update, >= 1.
        exploration: "shared" draws one number for all coordinates of an action, and one for a whole
            mini-batch, as the authors' code does; "independent" draws one for each coordinate.
    """

    hidden: int = 256
    batch: int = 256
    memory: int = 1_000_000
    lr: float = 5e-4
    gamma: float = 0.99
    tau: float = 0.01
    update_every: int = 1
    exploration: Literal["shared", "independent"] = "shared"
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("hidden", "batch", "memory", "update_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"sac: {name} must be >= 1, got {getattr(self, name)}.")
        if not (self.lr > 0 and 0 <= self.gamma <= 1 and 0 < self.tau <= 1):
            raise ValueError(
                "sac: lr > 0, gamma in [0, 1] and tau in (0, 1] must hold, got "
                f"{self.lr}, {self.gamma}, {self.tau}."
            )


class Layers:
    """One multilayer perceptron for each agent, with ReLU between its layers.

    Args:
        weights: one (B, in, out) for each layer.
        biases: one (B, 1, out) for each layer.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        self.weights, self.biases = weights, biases

    @classmethod
    def drawn(
        cls, noise: Noise, purpose: str, sizes: list[int], device: torch.device, *, is_critic: bool
    ) -> Layers:
        """Layers with uniform weights; bounds as in the authors' code.

        The policy has torch's bounds, 1 / sqrt(in); a critic 1 / sqrt(out) and last 0.003; biases torch's.
        """
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for i, (wide, out) in enumerate(pairwise(sizes)):
            bound = 1 / math.sqrt(wide)
            limit = bound if not is_critic else _LAST_CRITIC if i == len(sizes) - 2 else 1 / math.sqrt(out)
            for store, shape, most in ((weights, (wide, out), limit), (biases, (1, out), bound)):
                u = noise.uniform(f"{purpose} {i} {len(store)} {shape}", *shape)
                store.append(((2 * u - 1) * most).to(device).requires_grad_(True))
        return cls(weights, biases)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (B, M, out) of inputs (B, M, in)."""
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            x = torch.baddbmm(bias, x, weight)
            x = x if i == last else x.relu()
        return x

    def parameters(self) -> list[Tensor]:
        """All weights and biases."""
        return [*self.weights, *self.biases]

    def copy(self) -> Layers:
        """The same layers, detached."""
        weights, biases = ([p.detach().clone() for p in part] for part in (self.weights, self.biases))
        return Layers(weights, biases)

    def follow(self, other: Layers, share: float) -> None:
        """Move towards another net's parameters by a share of the way."""
        for mine, its in zip(self.parameters(), other.parameters()):
            mine.lerp_(its.detach(), share)


class Agents:
    """One agent for each row of `noise`, on states and actions of the same length.

    Args:
        noise: one stream for each agent.
        dim: coordinates of a state and of an action.
        options: see Sac.
        device: where weights and memory lie.
        transitions: how many will be stored.
        is_one_step: every transition ends its episode. Its target is then the reward alone, so neither the
            second critic nor the target critics can change anything, and they are left out.
    """

    def __init__(
        self,
        noise: Noise,
        dim: int,
        options: Sac,
        device: torch.device,
        *,
        transitions: int,
        is_one_step: bool,
    ) -> None:
        self.noise, self.dim, self.options, self.device = noise, dim, options, device
        hidden = [options.hidden, options.hidden]
        self.policy = Layers.drawn(noise, "policy", [dim, *hidden, 2 * dim], device, is_critic=False)
        self.critics = [
            Layers.drawn(noise, f"critic {i}", [2 * dim, *hidden, 1], device, is_critic=True)
            for i in range(1 if is_one_step else 2)
        ]
        self.targets = [] if is_one_step else [critic.copy() for critic in self.critics]
        self.log_temperature = torch.zeros(len(noise), 1, 1, device=device, requires_grad=True)
        self._policy_adam = self._adam(self.policy.parameters())
        self._critic_adam = self._adam([p for critic in self.critics for p in critic.parameters()])
        self._temperature_adam = self._adam([self.log_temperature])
        width = 2 * dim + 1 if is_one_step else 3 * dim + 2
        self._memory = torch.zeros(len(noise), min(options.memory, transitions), width, device=device)
        self._stored = 0
        self._rows = torch.arange(len(noise), device=device)[:, None]

    def _adam(self, parameters: list[Tensor]) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=self.options.lr)

    def act(self, states: Tensor, purpose: str, step: int) -> Tensor:
        """Actions (B, dim) in (-1, 1) of states (B, dim), with the noise of (purpose, step)."""
        with torch.no_grad():
            return self.sampled(states[:, None], purpose, step)[0][:, 0]

    def sampled(self, states: Tensor, purpose: str, step: int) -> tuple[Tensor, Tensor]:
        """Actions (B, M, dim) of states (B, M, dim), differentiable, and their log-probabilities (B, M, 1).

        a = tanh(mean + deviation * e); log p is the mean over coordinates of the Gaussian's log-density
        minus log(1 - a^2 + 1e-6).
        """
        mean, log_std = self.policy(states).chunk(2, dim=2)
        log_std = log_std.clamp(*_LOG_STD)
        shape = (1, 1) if self.options.exploration == "shared" else tuple(states.shape[1:])
        e = self.noise.normal(purpose, *shape, step=step).to(self.device)
        actions = torch.tanh(mean + e * log_std.exp())
        log_p = -0.5 * e.square() - log_std - 0.5 * math.log(2 * math.pi)
        log_p = (log_p - torch.log(1 - actions.square() + _ROOM)).mean(2, keepdim=True)
        return actions, log_p

    def store(
        self, states: Tensor, actions: Tensor, rewards: Tensor, following: Tensor, *, is_last: bool
    ) -> None:
        """Remember one transition of each agent, and learn when one more update is due.

        Args:
            states: (B, dim).
            actions: (B, dim).
            rewards: (B,).
            following: (B, dim), the states that followed.
            is_last: the episode ends here.
        """
        parts = [states, actions, rewards[:, None]]
        if self.targets:
            parts += [following, torch.full_like(rewards[:, None], float(is_last))]
        self._memory[:, self._stored % self._memory.shape[1]] = torch.cat(parts, dim=1)
        self._stored += 1
        if self._stored > self.options.batch and self._stored % self.options.update_every == 0:
            self._learn()

    def _learn(self) -> None:
        """One update of critics, temperature, policy and targets, each agent from its own memory."""
        step, dim = self._stored, self.dim
        filled = min(step, self._memory.shape[1])
        u = self.noise.uniform("replay", self.options.batch, step=step).to(self.device)
        drawn = self._memory[self._rows, (u * filled).long().clamp(max=filled - 1)]
        states, rewards = drawn[..., :dim], drawn[..., 2 * dim : 2 * dim + 1]
        wanted = rewards + self._worth_after(drawn, step) if self.targets else rewards
        known = drawn[..., : 2 * dim]
        gaps = torch.stack([(critic(known) - wanted).square().mean(1) for critic in self.critics])
        _descend(self._critic_adam, 0.5 * gaps.sum())

        actions, log_p = self.sampled(states, "policy update", step)
        temperature = self.log_temperature.detach().exp()
        surplus = (log_p.detach() - dim).mean(1, keepdim=True)  # the target entropy is -dim
        _descend(self._temperature_adam, -(self.log_temperature * surplus).sum())
        worth = self.critics[0](torch.cat([states, actions], dim=2))
        _descend(self._policy_adam, (temperature * log_p - worth).mean(1).sum())
        for target, critic in zip(self.targets, self.critics):
            target.follow(critic, self.options.tau)

    def _worth_after(self, drawn: Tensor, step: int) -> Tensor:
        """Discounted soft worth (B, M, 1) of the states that followed; 0 where the episode had ended."""
        following, is_last = drawn[..., 2 * self.dim + 1 : -1], drawn[..., -1:]
        with torch.no_grad():
            actions, log_p = self.sampled(following, "critic update", step)
            pairs = torch.cat([following, actions], dim=2)
            worth = torch.minimum(*(target(pairs) for target in self.targets))
            return self.options.gamma * (1 - is_last) * (worth - self.log_temperature.exp() * log_p)


def _descend(optimizer: torch.optim.Adam, loss: Tensor) -> None:
    """One step; no other net's gradients are touched."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, grad in zip(parameters, torch.autograd.grad(loss, parameters)):
        parameter.grad = grad
    optimizer.step()
