"""DMI = KED-MI: a GAN whose discriminator knows the victim, and one latent distribution for each label.

The discriminator is a (K+1)-class classifier that must repeat the victim's soft labels on public images,
so the generator is drawn towards what the victim looks at. Then a Gaussian over latents is learned for
each label by reparametrization, and reconstructions are drawn from it.

Source: Chen et al., ICCV 2021 (arXiv:2010.04092), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior
from mibench.gan_inversion import InversionGan, InversionSpace
from mibench.inversion import Problem, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._distributions import Gaussian, Recovery


@dataclass(frozen=True, kw_only=True)
class Dmi(Attack[WhiteBoxVictim]):
    """Inversion-specific GAN and distributional recovery.

    Args:
        prior: the generator, and its training on public images before it meets the victim; `steps` = 0
            trains it for the victim from scratch, as the authors do.
        adapt_steps: generator steps of the inversion-specific GAN; the authors' 120 epochs of 30,000
            images are 11,000.
        n_critic: discriminator steps for each generator step; the authors take 5.
        critic_lead: discriminator steps before the generator's first one; the authors take none. A generator
            that comes trained is spoiled by a discriminator that knows nothing yet.
        adapt_lr: Adam's rate for both nets; the authors take 2e-4.
        batch: images in each of the three streams; the authors take 64.
        ema: decay of the moving average of the generator's weights, in [0, 1); 0 keeps the last weights,
            as the authors do.
        critic_width: channels of the discriminator's first map; the authors take 64.
        minibatch: minibatch discrimination; in the recovery each image is judged alone.
        entropy_weight: weight of the batch-summed entropy of the fakes; the authors take 1e-4.
        recovery: "distribution" learns one for each label; "point" searches single latents as GMI does, each
            moved into the prior's box after each step, which the authors compare with.
        search: the recovery over (mu, log sigma^2), or over points; the authors take 2,400 Adam steps at
            0.02, and for points GMI's Nesterov steps.
        identity_weight: weight of the identity loss against the realism loss, >= 0; the authors take 100.
        loss: identity loss; the authors take cross-entropy.
        log_var: start of log sigma^2; the authors' code starts at 1, a re-run of others at 0.
        samples: draws for each label in each step; the authors take 1. Points have none.
        clamp: draws are moved into the prior's box before they are decoded, as LOMMA's code does; the
            authors' own clamp has no effect.
        best_of: latents drawn, or points searched, for each reconstruction, of which the largest target
            logit is kept; the authors take 1 draw, which is no choice at all, or 5 points.
    """

    name = "dmi"
    version = 2
    aliases = ("ked_mi",)
    access = WhiteBoxVictim
    card = Card(
        title="Knowledge-Enriched Distributional Model Inversion Attacks",
        paper="Chen et al., ICCV 2021, arXiv:2010.04092",
        year=2021,
        code="https://github.com/SCccc21/Knowledge-Enriched-DMI",
        deviations=(
            "the victim stays in eval mode while the GAN trains; the authors' code lets its batch norm drift",
            "soft labels are asked for once and kept",
            "the generator may start from a GAN that was trained on the public images (prior.steps > 0)",
            "minibatch discrimination sees one image at a time in the recovery, so rows are independent",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 0},
        "adapt_steps": 10,
        "n_critic": 1,
        "batch": 16,
        "critic_width": 8,
        "search": {"steps": 15, "lr": 0.05, "keep": "last"},
    }

    prior: WganPrior = field(default_factory=lambda: WganPrior(steps=0))
    adapt_steps: int = 11_000
    n_critic: int = 5
    critic_lead: int = 0
    adapt_lr: float = 2e-4
    batch: int = 64
    ema: float = 0.0
    critic_width: int = 64
    minibatch: bool = True
    entropy_weight: float = 1e-4
    recovery: Literal["distribution", "point"] = "distribution"
    search: Search = field(default_factory=lambda: Search(steps=2_400, lr=0.02, keep="last"))
    identity_weight: float = 100.0
    loss: IdentityLoss = "ce"
    log_var: float = 1.0
    samples: int = 1
    clamp: bool = False
    best_of: int = 1

    def __post_init__(self) -> None:
        for name in ("adapt_steps", "n_critic", "batch", "critic_width", "samples", "best_of"):
            if getattr(self, name) < 1:
                raise ValueError(f"dmi: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("critic_lead", "entropy_weight", "identity_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"dmi: {name} must be >= 0, got {getattr(self, name)}.")
        if not self.adapt_lr > 0:
            raise ValueError(f"dmi: adapt_lr must be > 0, got {self.adapt_lr}.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"dmi: ema must lie in [0, 1), got {self.ema}.")

    def prior_spec(self) -> WganPrior:
        """The generator before it meets the victim."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """Generator and discriminator that know the victim; one query for each public image."""
        return self._gan.adapt(prior, soft_labels(victim, public, ctx), public, ctx)

    @property
    def _gan(self) -> InversionGan:
        """The inversion-specific GAN with these options."""
        return InversionGan(
            prior=self.prior,
            steps=self.adapt_steps,
            n_critic=self.n_critic,
            critic_lead=self.critic_lead,
            lr=self.adapt_lr,
            batch=self.batch,
            ema=self.ema,
            critic_width=self.critic_width,
            minibatch=self.minibatch,
            entropy_weight=self.entropy_weight,
        )

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. Repeats of a label are draws from that label's one distribution, or points."""
        space = self._space(victim, prior, ctx)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            identity = identity_loss(victim.logits(images), labels, self.loss)
            return space.realism(images) + self.identity_weight * identity

        def point_loss(images: Tensor, problem: Problem, _step: int) -> Tensor:
            return loss(images, problem.labels)

        if self.recovery == "point":
            return invert_latents(
                victim, space, targets, ctx, search=self.search, loss=point_loss, restarts=self.best_of
            )
        recovery = Recovery(
            victim=victim,
            family=Gaussian(space.dim, log_var=self.log_var),
            decode=(lambda z: space.decode(space.project(z))) if self.clamp else space.decode,
            loss=lambda images, labels, _divergence: loss(images, labels),
            search=self.search,
            samples=self.samples,
            best_of=self.best_of,
        )
        return recovery.invert(targets, ctx)

    def _space(self, victim: WhiteBoxVictim, prior: Prior, ctx: Context) -> InversionSpace:
        """The adapted generator and its discriminator, frozen, on ctx.device."""
        return self._gan.space(prior, victim.shape, victim.num_classes, ctx)


def soft_labels(victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Tensor:
    """The victim's softmax on public images, (M, K), float32, on ctx.device; asked for once."""
    with torch.no_grad():
        parts = [victim.logits(part.to(ctx.device)).softmax(1) for part in public.split(ctx.max_batch)]
    return torch.cat(parts)
