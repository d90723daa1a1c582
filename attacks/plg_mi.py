"""PLG-MI: a conditional GAN whose classes are the victim's, taught by its favorite public images.

For each of its labels the victim picks the public images that it takes for that label most. A conditional
GAN is trained on these pseudo-labels while the victim, through random views, pulls each class towards its
label. A reconstruction then needs a search among the latents of one class alone.

Source: Yuan et al., AAAI 2023 (arXiv:2302.09814), and the authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.augment import Views
from mibench.data.split import dequantize
from mibench.gan import WganPrior, pack, unpack
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.nets.conditional import ProjectionDiscriminator
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._conditional import AUTHORS_VIEWS, ConditionalGan, ConditionalSpace, invert_classes, shuffled_rows
from ._nearest import rank_public


@dataclass(frozen=True, kw_only=True)
class PlgMi(Attack[WhiteBoxVictim]):
    """Pseudo label-guided model inversion.

    Args:
        gan: the conditional GAN and its training; the authors take 30,000 steps.
        top_n: public images for each label, those with the largest score, >= 1; the authors take 30. One
            image may stand for several labels.
        alpha: weight of the victim's loss on fakes in the generator's, >= 0; the authors take 0.2. With 0
            it is a plain conditional GAN.
        loss: identity loss of training and search; the authors take max_margin.
        views: what the victim sees of an image, in training and search.
        num_views: views of each image in a step of the search, >= 1; the authors take 2.
        search: the authors take 600 Adam steps at 0.1 and keep the last iterate.
        restarts: random starts of each reconstruction, >= 1, of which the largest target logit is kept; the
            authors choose none of their five.
    """

    name = "plg_mi"
    access = WhiteBoxVictim
    card = Card(
        title="Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial Network",
        paper="Yuan et al., AAAI 2023, arXiv:2302.09814",
        year=2023,
        code="https://github.com/LetheSec/PLG-MI-Attack",
        deviations=(
            "images lie in [0, 1] for all nets, without dequantization noise; the authors' generator gives "
            "[-1, 1] and their public images [0, 1]",
            "the generator may start from a GAN that was trained on the public images (gan.start)",
            "views are drawn for each image by itself, so that rows are independent",
            "brightness and contrast of a view change together, with one probability and in one order",
        ),
    )

    toy: ClassVar[Settings] = {
        "gan": {
            "start": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8},
            "critic_width": 4,
            "steps": 10,
            "n_critic": 1,
            "batch": 16,
        },
        "top_n": 8,
        "search": {"steps": 12, "lr": 0.1, "keep": "last"},
    }

    gan: ConditionalGan = field(default_factory=ConditionalGan)
    top_n: int = 30
    alpha: float = 0.2
    loss: IdentityLoss = "max_margin"
    views: Views = AUTHORS_VIEWS
    num_views: int = 2
    search: Search = field(default_factory=lambda: Search(steps=600, lr=0.1, keep="last"))
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("top_n", "num_views", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"plg_mi: {name} must be >= 1, got {getattr(self, name)}.")
        if not self.alpha >= 0:
            raise ValueError(f"plg_mi: alpha must be >= 0, got {self.alpha}.")

    def prior_spec(self) -> WganPrior | None:
        """The GAN that the conditional one starts from, if any."""
        return self.gan.start

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """Generator `g` and discriminator `d` that know the victim's classes.

        Asks about each public image once, and with alpha > 0 for a gradient on each fake of the generator.
        """
        g = self.gan.generator(victim.shape, victim.num_classes, ctx.generator("generator"), prior=prior)
        d = self._discriminator(victim, ctx.generator("discriminator"))
        pairs = self._labeled(victim, public, ctx)
        noise = ctx.noise(torch.arange(self.gan.batch))

        def critic_loss(fake: Tensor, y: Tensor, _step: int) -> Tensor:
            real, labels = next(pairs)
            scores = d(torch.cat([real, fake]), torch.cat([labels, y]))
            return F.relu(1 - scores[: len(real)]).mean() + F.relu(1 + scores[len(real) :]).mean()

        def generator_loss(fake: Tensor, y: Tensor, step: int) -> Tensor:
            loss: Tensor = -d(fake, y).mean()
            if self.alpha > 0:
                seen = self.views.of(fake, noise, purpose="train", step=step)
                loss = loss + self.alpha * identity_loss(victim.logits(seen), y, self.loss).mean()
            return loss

        self.gan.train(g, d, victim.num_classes, ctx, critic_loss=critic_loss, generator_loss=generator_loss)
        return pack(g=g, d=d)

    def _discriminator(self, victim: WhiteBoxVictim, generator: torch.Generator) -> ProjectionDiscriminator:
        channels, size, _ = victim.shape
        with seeded(generator):
            return ProjectionDiscriminator(
                num_classes=victim.num_classes, width=self.gan.critic_width, size=size, channels=channels
            )

    def _labeled(
        self, victim: WhiteBoxVictim, public: Tensor, ctx: Context
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless shuffled batches of pseudo-labeled public images (B, C, H, W) with labels (B,)."""
        ranked = rank_public(victim, public, keep=self.top_n)
        images, table = dequantize(ranked["images"]).to(ctx.device), ranked["rows"].to(ctx.device)
        labels = torch.arange(victim.num_classes, device=ctx.device).expand_as(table).flatten()
        for rows in shuffled_rows(table.numel(), self.gan.batch, ctx):
            yield images[table.flatten()[rows]], labels[rows]

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        g = self.gan.generator(victim.shape, victim.num_classes, torch.Generator())
        d = self._discriminator(victim, torch.Generator())
        unpack(prior, g=g, d=d)
        return invert_classes(
            victim,
            ConditionalSpace(g.to(ctx.device), d.to(ctx.device), victim.num_classes),
            targets,
            ctx,
            search=self.search,
            loss=self.loss,
            views=self.views,
            num_views=self.num_views,
            restarts=self.restarts,
        )
