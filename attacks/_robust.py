"""What attacks on a style generator share: truncated starts, searches through views, a robust choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.augment import Views
from mibench.gan import StylePrior
from mibench.inversion import Choice, Problem, Stage, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss, pick_best
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.spaces import WSpace
from mibench.stylegan import StyleChoice, check_critic
from mibench.victim import WhiteBoxVictim

from ._presamples import rank_presamples, starts_of

TOY = {
    "prior": {
        "latent_dim": 8,
        "w_dim": 8,
        "width": 4,
        "critic_width": 4,
        "steps": 8,
        "batch": 8,
        "p_samples": 64,
    },
    "search": {"steps": 8, "lr": 0.03, "betas": [0.1, 0.1], "keep": "last"},
    "presamples": 32,
    "keep": 8,
    "rounds": 3,
}


@dataclass(frozen=True, kw_only=True)
class StyleSearch(Attack[WhiteBoxVictim]):
    """A search in w that begins at truncated presamples and looks through random views.

    Args:
        prior: the style generator and its training, or a ready one (docs/weights.md).
        search: steps and optimizer of the search in w; the authors take 70 steps of Adam at 0.005 with betas
            0.1 and 0.1 (CelebA) and keep the last iterate.
        presamples: images of the prior scored once for all labels, each with its mirror image; the authors
            take 5,000 (CelebA).
        keep: presamples kept for each label, >= candidates.
        psi: truncation of the presamples, in [0, 1]: 1 keeps them, 0 gives the mean w; the authors take 0.5.
        flip: score each presample as the mean over the image and its mirror image.
        candidates: searches of each reconstruction, >= 1, of which the most robust is reported.
        single_w: search one w for all layers of the generator, and not one for each.
        loss: identity loss; the authors take the Poincare distance.
        critic_weight: weight of the prior's realism loss, >= 0; the authors take 0.
        views: random views of the images in each step; the authors crop 0.9 to 1 of the area.
        robust: random views in the choice; the authors crop 0.5 to 0.9 of the area, stretch by 0.8 to 1.2
            and mirror half of the images.
        rounds: views of each image in the choice, >= 1; the authors take 100.
        is_bounded: hold w in the P-space box of the prior (Mirror's); the authors do not.
    """

    prior: StyleChoice = field(default_factory=StylePrior)
    search: Search = field(default_factory=lambda: Search(steps=70, lr=0.005, betas=(0.1, 0.1), keep="last"))
    presamples: int = 5_000
    keep: int = 200
    psi: float = 0.5
    flip: bool = True
    candidates: int = 4
    single_w: bool = True
    loss: IdentityLoss = "poincare"
    critic_weight: float = 0.0
    views: Views = field(default_factory=lambda: Views(scale=(0.9, 1.0)))
    robust: Views = field(default_factory=lambda: Views(scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5))
    rounds: int = 100
    is_bounded: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= self.keep <= self.presamples:
            raise ValueError(
                f"{self.name}: 1 <= candidates <= keep <= presamples must hold, got "
                f"{self.candidates}, {self.keep}, {self.presamples}."
            )
        if not 0 <= self.psi <= 1 or not self.critic_weight >= 0 or self.rounds < 1:
            raise ValueError(
                f"{self.name}: psi must lie in [0, 1], critic_weight be >= 0 and rounds >= 1, got "
                f"{self.psi}, {self.critic_weight} and {self.rounds}."
            )
        check_critic(self.name, self.prior, critic_weight=self.critic_weight)

    def prior_spec(self) -> StyleChoice:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the best truncated presamples of each label, (K, keep, dim), added as `starts`."""
        space = self.prior.load(prior, victim.shape, ctx)

        def score(images: Tensor) -> Tensor:
            plain = victim.scores(images)
            return (plain + victim.scores(images.flip(3))) / 2 if self.flip else plain

        def draw(noise: Noise) -> Tensor:
            return space.truncate(space.start(noise), self.psi)

        starts, _ = rank_presamples(
            space, victim, ctx, count=self.presamples, keep=self.keep, draw=draw, score=score
        )
        return {**prior, "starts": starts}

    def styles(self, prior: Prior, victim: WhiteBoxVictim, ctx: Context) -> Styles:
        """The space that is searched."""
        return Styles(self.prior.load(prior, victim.shape, ctx), is_single=self.single_w)

    def search_styles(
        self,
        victim: WhiteBoxVictim,
        space: Styles,
        starts: Tensor,
        targets: Tensor,
        ctx: Context,
        *,
        further: Sequence[Stage] = (),
        is_any_end: bool = False,
    ) -> Reconstructions:
        """Reconstructions of targets (B,) from ranked presamples (K, keep, dim); see `invert_latents`."""

        def loss(images: Tensor, problem: Problem, step: int) -> Tensor:
            seen = self.views.of(images, problem.noise, step=step)
            identity = identity_loss(victim.logits(seen), problem.labels, self.loss)
            if self.critic_weight == 0:
                return identity
            return identity + self.critic_weight * space.realism(images)

        ends = 1 + len(further) if is_any_end else 1
        evaluations = 1 + self.search.steps + sum(1 + stage.search.steps for stage in further)
        is_choice = self.candidates * ends > 1
        rounds = self._rounds_within(victim, evaluations, ends) if is_choice else 1
        return invert_latents(
            victim,
            space,
            targets,
            ctx,
            search=self.search,
            loss=loss,
            restarts=self.candidates,
            start=lambda problem: space.of_w(starts_of(starts, problem)),
            choose=most_robust(victim, self.robust, rounds) if is_choice else None,
            is_bounded=self.is_bounded,
            per_choice=rounds,
            further=further,
            is_any_end=is_any_end,
        )

    def _rounds_within(self, victim: WhiteBoxVictim, evaluations: int, ends: int) -> int:
        """Views of each image in the choice: a small allowance shortens search and choice alike."""
        full = self.candidates * (evaluations + ends * self.rounds)
        share = self.rounds * victim.steps_within(full, per_step=1) // full
        # the start has to be paid for too, which rounding may leave nothing for
        most = victim.steps_within(self.rounds, per_step=self.candidates * ends, reserve=self.candidates)
        return max(1, min(share, most))


class Styles:
    """The w of a style generator as rows: one for all layers, or one for each, laid end to end."""

    def __init__(self, space: WSpace, *, is_single: bool) -> None:
        self.space, self.g = space, space.g
        self.count = 1 if is_single else space.g.num_ws
        self.dim = self.count * space.dim

    def of_w(self, w: Tensor) -> Tensor:
        """Rows (B, dim) of w (B, w_dim), the same for each layer."""
        return w.repeat(1, self.count)

    def layers(self, latents: Tensor) -> Tensor:
        """Styles of all layers (B, num_ws, w_dim) of rows (B, dim)."""
        layers: Tensor = latents.unflatten(1, (self.count, -1))
        return layers.expand(-1, self.g.num_ws, -1)

    def start(self, noise: Noise) -> Tensor:
        """Rows of random w."""
        return self.of_w(self.space.start(noise))

    def decode(self, latents: Tensor) -> Tensor:
        """Images of rows."""
        return self.g.synthesis(self.layers(latents))

    def project(self, latents: Tensor) -> Tensor:
        """Rows of which each w lies in the P-space box."""
        return self.space.project(latents.unflatten(1, (self.count, -1))).flatten(1)

    def realism(self, images: Tensor) -> Tensor:
        """See WSpace.realism."""
        return self.space.realism(images)


def most_robust(victim: WhiteBoxVictim, views: Views, rounds: int) -> Choice:
    """The choice of the image with the largest mean target probability over random views.

    Scores are that mean. Source: Struppek et al., ICML 2022 (code): 100 views.
    """

    def choose(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(images), device=images.device)
        for step in range(rounds):
            seen = views.of(images, problem.noise, purpose="choice", step=step)
            total += victim.logits(seen).softmax(1).gather(1, problem.labels[:, None]).squeeze(1)
        return pick_best(-total, problem.restarts), total / rounds

    return choose
