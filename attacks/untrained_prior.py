"""Negative control: a latent search through a generator that was never trained.

It climbs the victim as the real attacks do, but its generator knows no faces. What it scores is what a judge
accepts from an optimizer alone; a latent attack that does not beat it owes nothing to its prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior
from mibench.latent import IdentityLoss, Search, identity_loss, search_latents
from mibench.noise import Noise
from mibench.plugin import Card, Context, Settings
from mibench.prior import LatentSpace, Prior
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
        space, noise = self._spec().load(prior, victim.shape, ctx), ctx.noise(targets)
        parts = [
            self._invert_chunk(victim, space, ctx, targets=targets[rows], noise=noise[rows])
            for rows in torch.arange(len(targets)).split(ctx.max_batch)
        ]
        images, confidence = (torch.cat(column) for column in zip(*parts))
        return Reconstructions.collect(images, targets, confidence)

    def _invert_chunk(
        self, victim: WhiteBoxVictim, space: LatentSpace, ctx: Context, *, targets: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and the victim's probabilities (B,) for targets (B,), on the CPU."""
        labels = targets.to(ctx.device)

        def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
            loss = identity_loss(victim.logits(space.decode(latents)), labels, self.loss)
            return loss, loss.detach()

        best, _ = search_latents(space.start(noise), objective, self.search, ctx, project=space.project)
        with torch.no_grad():
            x = space.decode(best)
            probabilities = victim.logits(x).softmax(1)
        return x.cpu(), probabilities.gather(1, labels[:, None]).squeeze(1).cpu()

    def _spec(self) -> WganPrior:
        # no step is taken; the critic stands in the prior and is never asked, so it is as small as can be
        return WganPrior(latent_dim=self.latent_dim, width=self.width, critic_width=1, steps=0)
