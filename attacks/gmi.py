"""GMI: search the latents of a public-face GAN for realistic images that the victim takes for the label.

A Wasserstein GAN learns faces without the victim; one GAN serves every victim and every defense. The search
weighs the critic's realism against the victim's identity loss, from several random starts.

Source: Zhang et al., CVPR 2020 (arXiv:1911.07135), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior
from mibench.inversion import Problem, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim


@dataclass(frozen=True, kw_only=True)
class Gmi(Attack[WhiteBoxVictim]):
    """Generative model inversion.

    Args:
        prior: the Wasserstein GAN and its training.
        search: the authors take 1,500 Nesterov steps at 0.02 on the mean over a batch of 100; losses are
            summed here, so their rate is 0.02 / 100.
        identity_weight: weight of the identity loss against the critic's score, >= 0; the authors take 100.
        critic_weight: weight of minus the critic's score, >= 0; the authors take 1.
        loss: identity loss; the authors take cross-entropy.
        restarts: random starts of each reconstruction, >= 1, of which the largest target logit is kept; the
            authors take 5.
    """

    name = "gmi"
    access = WhiteBoxVictim
    card = Card(
        title="The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural Networks",
        paper="Zhang et al., CVPR 2020, arXiv:1911.07135",
        year=2020,
        code="https://github.com/AI-secure/GMI-Attack",
        deviations=(
            "losses are summed over a batch and not averaged, with the rate divided by the authors' batch",
            "the start is moved into the box [-1, 1] too; the authors' code does so after the first step",
            "the best iterate of each search is kept by its loss; the authors keep the last one",
            "restarts run at once, and one whose logits are all negative may win",
            "the variant with a blurred or masked private image is left out: it needs private pixels",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8},
        "search": {"steps": 10, "lr": 0.1},
        "restarts": 2,
    }

    prior: WganPrior = field(default_factory=WganPrior)
    search: Search = field(default_factory=lambda: Search(steps=1_500, lr=2e-4, optimizer="nesterov"))
    identity_weight: float = 100.0
    critic_weight: float = 1.0
    loss: IdentityLoss = "ce"
    restarts: int = 5

    def __post_init__(self) -> None:
        if self.restarts < 1:
            raise ValueError(f"gmi: restarts must be >= 1, got {self.restarts}.")
        for name in ("identity_weight", "critic_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"gmi: {name} must be >= 0, got {getattr(self, name)}.")

    def prior_spec(self) -> WganPrior:
        """The Wasserstein GAN."""
        return self.prior

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        space = self.prior.load(prior, victim.shape, ctx)

        def loss(images: Tensor, problem: Problem, _step: int) -> Tensor:
            identity = identity_loss(victim.logits(images), problem.labels, self.loss)
            return self.identity_weight * identity + self.critic_weight * space.realism(images)

        return invert_latents(
            victim, space, targets, ctx, search=self.search, loss=loss, restarts=self.restarts
        )
