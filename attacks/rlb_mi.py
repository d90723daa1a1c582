"""RLB-MI: an agent learns which latents of a face GAN the victim takes for the label, from scores alone.

A state is a random latent, an action a point in the same space. The next state mixes both, and the reward is
how surely the victim takes its image for the label, and by how much more than for any other. One soft
actor-critic agent is trained for each reconstruction; all agents of a chunk train at once.

Source: Han et al., CVPR 2023 (arXiv:2304.04625), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior
from mibench.noise import Noise
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import LatentSpace, Prior
from mibench.victim import ScoreVictim

from ._queries import Trail, answers
from ._sac import Agents, Sac

_LEAST_MARGIN = 1e-7  # floor of the margin before its logarithm, the authors' code
_LEAST = 1e-30  # floor of a released probability before its logarithm
_SHARE = 8  # an agent's memory is large: this many fewer agents than images in a chunk


@dataclass(frozen=True, kw_only=True)
class RlbMi(Attack[ScoreVictim]):
    """Reinforcement-learning-based black-box model inversion.

    Args:
        prior: the Wasserstein GAN and its training.
        sac: the agents and their training.
        episodes: for each reconstruction, >= 1; the authors take 40,000.
        steps: of an episode, >= 1; the authors take 1.
        alpha: weight of the old state in the next one, in [0, 1); the authors take 0.
        tests: after each episode so many fresh episodes are played for their last image alone, >= 0; the
            authors take 1. Without them the images of the training episodes are the candidates.
        state_weight: of the log score of the next state's image; the authors take 2.
        action_weight: of the log score of the action's own image; the authors take 2.
        margin_weight: of the log margin over the best other label; the authors take 8.
        reward_scale: factor on all rewards, > 0; the authors take 1. Less suits a faster `sac.lr`.
    """

    name = "rlb_mi"
    access = ScoreVictim
    card = Card(
        title="Reinforcement Learning-Based Black-Box Model Inversion Attacks",
        paper="Han et al., CVPR 2023, arXiv:2304.04625",
        year=2023,
        code="https://github.com/HanGyojin/RLB-MI",
        deviations=(
            "without a weight of the old state, its image and the action's are one and asked about once",
            "mini-batches are drawn with replacement",
            "of several test episodes the best image counts; the authors would take the mean of the scores",
            "with one step in an episode the second critic and the target critics, which then change "
            "nothing, are left out",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8},
        "sac": {"hidden": 8, "batch": 4, "lr": 0.003},
        "episodes": 16,
    }

    prior: WganPrior = field(default_factory=WganPrior)
    sac: Sac = field(default_factory=Sac)
    episodes: int = 40_000
    steps: int = 1
    alpha: float = 0.0
    tests: int = 1
    state_weight: float = 2.0
    action_weight: float = 2.0
    margin_weight: float = 8.0
    reward_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("episodes", 1), ("steps", 1), ("tests", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"rlb_mi: {name} must be >= {least}, got {getattr(self, name)}.")
        if not (0 <= self.alpha < 1 and self.reward_scale > 0):
            raise ValueError(
                "rlb_mi: alpha in [0, 1) and reward_scale > 0 must hold, got "
                f"{self.alpha} and {self.reward_scale}."
            )

    def prior_spec(self) -> WganPrior:
        """The Wasserstein GAN."""
        return self.prior

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert; of each reconstruction the image with the highest score of all episodes."""
        space = self.prior.load(prior, victim.shape, ctx)
        noise = ctx.noise(targets)
        each = self.steps * (1 if self.alpha == 0 else 2) + self.tests
        episodes = 1 + victim.steps_within(self.episodes - 1, per_step=each, reserve=each)
        best = torch.zeros(len(targets), device=ctx.device)
        trail, watch = Trail(space.project(space.start(noise)), each * episodes), Stopwatch()
        for rows in torch.arange(len(targets)).split(max(1, ctx.max_batch // _SHARE)):
            game = _Game(
                self,
                victim=victim,
                space=space,
                labels=targets[rows],
                noise=noise[rows],
                ctx=ctx,
                episodes=episodes,
            )
            for episode in range(episodes):
                latents, scores = game.play(episode)
                won = scores >= best[rows]  # of equal scores the authors keep the later one, too
                kept = rows.to(ctx.device)[won]
                best[kept] = scores[won]
                spent = torch.full_like(kept, each * (episode + 1))
                trail.hold(kept, latents[won], spent, -scores[won].clamp_min(_LEAST).log())
                if watch.is_due():
                    done = int(rows[0]) * episodes + episode * len(rows)
                    ctx.report(done, len(targets) * episodes, score=float(best[rows].mean()))
        return trail.collect(space, targets, ctx, best)

    def reward(self, state_scores: Tensor, action_scores: Tensor, labels: Tensor) -> Tensor:
        """Rewards (B,) in nats for released scores (B, K) of the next states' and the actions' images.

        2 log p_y(state) + 2 log p_y(action) + 8 log max(1e-7, p_y(state) - max_other p(state)) with the
        authors' weights.
        """
        own = state_scores.gather(1, labels[:, None])
        others = state_scores.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
        margin = (own - others).clamp_min(_LEAST_MARGIN).log()
        likely = own.clamp_min(_LEAST).log()
        acted = action_scores.gather(1, labels[:, None]).clamp_min(_LEAST).log()
        total = self.state_weight * likely + self.action_weight * acted + self.margin_weight * margin
        return self.reward_scale * total[:, 0]


class _Game:
    """The episodes of one chunk of reconstructions, an agent for each.

    Args:
        attack: its options.
        victim: tells scores.
        space: a trained generator.
        labels: (B,), int64.
        noise: one stream for each reconstruction.
        ctx: gives chunk size and device.
        episodes: how many will be played.
    """

    def __init__(
        self,
        attack: RlbMi,
        *,
        victim: ScoreVictim,
        space: LatentSpace,
        labels: Tensor,
        noise: Noise,
        ctx: Context,
        episodes: int,
    ) -> None:
        self.attack, self.victim, self.space, self.ctx = attack, victim, space, ctx
        self.labels, self.noise = labels.to(ctx.device), noise
        self.agents = Agents(
            noise,
            space.dim,
            attack.sac,
            ctx.device,
            transitions=episodes * attack.steps,
            is_one_step=attack.steps == 1,
        )

    def play(self, episode: int) -> tuple[Tensor, Tensor]:
        """Play and learn from one episode, then test; the best candidate latents (B, dim) and scores (B,)."""
        found = self._trained(episode)
        if self.attack.tests > 0:
            found = [self._tested(f"test {i}", episode) for i in range(self.attack.tests)]
        scores = torch.stack([score for _, score in found])
        best = scores.argmax(0)
        latents = torch.stack([latent for latent, _ in found])
        rows = torch.arange(len(best), device=best.device)
        return latents[best, rows], scores[best, rows]

    def _trained(self, episode: int) -> list[tuple[Tensor, Tensor]]:
        """Latents and scores of all steps of an episode, each of which the agents learn from."""
        attack, found = self.attack, []
        state = self._fresh("state", episode)
        for step in range(attack.steps):
            action, following = self._moved(state, "action", episode * attack.steps + step)
            scores = self._scores(following)
            acted = scores if attack.alpha == 0 else self._scores(action)
            reward = attack.reward(scores, acted, self.labels)
            self.agents.store(state, action, reward, following, is_last=step == attack.steps - 1)
            found.append((following, self._own(scores)))
            state = following
        return found

    def _tested(self, purpose: str, episode: int) -> tuple[Tensor, Tensor]:
        """Last latents and their scores of an episode that nothing is learned from."""
        state = self._fresh(f"{purpose} state", episode)
        for step in range(self.attack.steps):
            _, state = self._moved(state, purpose, episode * self.attack.steps + step)
        return state, self._own(self._scores(state))

    def _fresh(self, purpose: str, episode: int) -> Tensor:
        return self.noise.normal(purpose, self.space.dim, step=episode).to(self.ctx.device)

    def _moved(self, state: Tensor, purpose: str, step: int) -> tuple[Tensor, Tensor]:
        """Actions and next states: alpha * state + (1 - alpha) * action."""
        action = self.agents.act(state, purpose, step)
        return action, self.attack.alpha * state + (1 - self.attack.alpha) * action

    def _scores(self, latents: Tensor) -> Tensor:
        return answers(latents, self.space, self.victim.scores, self.ctx)

    def _own(self, scores: Tensor) -> Tensor:
        return scores.gather(1, self.labels[:, None])[:, 0]
