"""Negative control: a latent search through a generator that was never trained.

It climbs the victim as the real attacks do, but its generator knows no faces. What it scores is what a judge
accepts from an optimizer alone; a latent attack that does not beat it owes nothing to its prior.
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
class UntrainedPrior(Attack[WhiteBoxVictim]):
    """GMI's search, without its critic, through the random weights that GMI's generator starts from.

    It names no prior spec: a defender who knows an attack's prior would have nothing to learn from it, and
    meets this control with the substitute that every attack without a prior gets.

    Args:
        latent_dim: length of z, >= 1.
        width: channels of the generator's last hidden map, >= 1.
        search: steps, optimizer and rate; each latent stays in the box [-1, 1], as in GMI.
        loss: identity loss; the margin keeps its gradient where the softmax is saturated.
    """

    name = "untrained_prior"
    version = 2
    access = WhiteBoxVictim
    control = True
    card = Card(title="Control: latent search through an untrained generator")

    toy: ClassVar[Settings] = {"latent_dim": 8, "width": 4, "search": {"steps": 5, "lr": 0.05}}

    latent_dim: int = 100
    width: int = 64
    search: Search = field(default_factory=lambda: Search(steps=100, lr=0.05))
    loss: IdentityLoss = "max_margin"

    def __post_init__(self) -> None:
        for name in ("latent_dim", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"untrained_prior: {name} must be >= 1, got {getattr(self, name)}.")

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """The generator's random weights; of public images (M, C, H, W) the shape alone is read."""
        return self._spec().fit(public, ctx)

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. Repeats of a label start elsewhere."""
        space = self._spec().load(prior, victim.shape, ctx)

        def loss(images: Tensor, problem: Problem, _step: int) -> Tensor:
            return identity_loss(victim.logits(images), problem.labels, self.loss)

        return invert_latents(victim, space, targets, ctx, search=self.search, loss=loss)

    def _spec(self) -> WganPrior:
        # no step is taken; the critic stands in the prior and is never asked, so it is as small as can be
        return WganPrior(latent_dim=self.latent_dim, width=self.width, critic_width=1, steps=0)
