"""DMI = KED-MI: a GAN whose discriminator knows the victim, and one latent distribution for each label.

The discriminator is a (K+1)-class classifier that must repeat the victim's soft labels on public images,
so the generator is drawn towards what the victim looks at. Then a Gaussian over latents is learned for
each label by reparametrization, and reconstructions are drawn from it.

Source: Chen et al., ICCV 2021 (arXiv:2010.04092), and the authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior, move_average, pack, reestimate_batch_norm, unpack
from mibench.inversion import Problem, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.nets.inversion_gan import InversionDiscriminator
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import Prior, Shape
from mibench.spaces import ZSpace
from mibench.training import check_finite
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
        g, _ = self.prior.nets(victim.shape, torch.Generator())
        unpack(prior, g=g)
        g.to(ctx.device).train().requires_grad_(True)
        d = self._discriminator(victim.shape, victim.num_classes, ctx.generator("discriminator"))
        d.to(ctx.device)
        soft, images = soft_labels(victim, public, ctx), public.to(ctx.device)
        rng = ctx.generator("adaptation")
        labeled, real, match = (_rows(len(public), self.batch, rng) for _ in range(3))
        opt_g = torch.optim.Adam(g.parameters(), lr=self.adapt_lr, betas=(0.5, 0.999))
        opt_d = torch.optim.Adam(d.parameters(), lr=self.adapt_lr, betas=(0.5, 0.999))
        average, watch = copy.deepcopy(g), Stopwatch()
        total = self.critic_lead + self.adapt_steps * self.n_critic
        for step in range(total):
            z = torch.randn(self.batch, self.prior.latent_dim, generator=rng).to(ctx.device)
            with torch.no_grad():
                fake = g(z)
            rows = next(labeled).to(ctx.device)
            loss_d = discriminator_loss(d, images[rows], soft[rows], images[next(real).to(ctx.device)], fake)
            _descend(opt_d, loss_d)
            turns, rest = divmod(step + 1 - self.critic_lead, self.n_critic)
            if turns > 0 and rest == 0:
                _descend(
                    opt_g, generator_loss(d, g(z), images[next(match).to(ctx.device)], self.entropy_weight)
                )
                move_average(average, g, min(self.ema, turns / (turns + 9)))
            if watch.is_due() or step == total - 1:
                check_finite(float(loss_d.detach()), step, "inversion-specific GAN")
                ctx.report(step + 1, total, critic=float(loss_d.detach()))
        if self.ema > 0:
            g = average
            reestimate_batch_norm(g, self.prior.latent_dim, rng, ctx.device)
        return pack(g=g, d=d)

    def _discriminator(
        self, shape: Shape, num_classes: int, generator: torch.Generator
    ) -> InversionDiscriminator:
        channels, size, _ = shape
        with seeded(generator):
            return InversionDiscriminator(
                num_classes=num_classes,
                width=self.critic_width,
                size=size,
                channels=channels,
                minibatch=self.minibatch,
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
        g, _ = self.prior.nets(victim.shape, torch.Generator())
        d = self._discriminator(victim.shape, victim.num_classes, torch.Generator())
        unpack(prior, g=g, d=d)
        return InversionSpace(
            g.to(ctx.device), d.to(ctx.device), dim=self.prior.latent_dim, clamp=self.prior.clamp
        )


class InversionSpace(ZSpace):
    """The latents z of an inversion-specific GAN; its discriminator judges each image alone."""

    d: InversionDiscriminator

    def realism(self, images: Tensor) -> Tensor:
        """-log D(x) of images (B,)."""
        return realism_loss(judge_alone(self.d, images))


def realism_loss(d: Tensor) -> Tensor:
    """-log D(x) = softplus(lse) - lse for class logits d (B, K), lse = logsumexp(d): (B,).

    The fake class has logit 0, so D(x) = Z / (Z + 1) with Z = sum exp d.
    """
    lse = d.logsumexp(1)
    loss: Tensor = F.softplus(lse) - lse
    return loss


def discriminator_loss(d: nn.Module, labeled: Tensor, soft: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Soft cross-entropy with the victim's labels plus the real-or-fake loss, scalar.

    Args:
        d: images -> class logits (B, K).
        labeled: images (B, C, H, W) with the victim's soft labels.
        soft: (B, K), rows sum to 1.
        real: public images (B, C, H, W).
        fake: generated images (B, C, H, W).
    """
    supervised = -(soft * d(labeled).log_softmax(1)).sum(1).mean()
    fake_lse = d(fake).logsumexp(1)
    unsupervised = 0.5 * (realism_loss(d(real)).mean() + F.softplus(fake_lse).mean())
    total: Tensor = supervised + unsupervised
    return total


def generator_loss(d: InversionDiscriminator, fake: Tensor, real: Tensor, entropy_weight: float) -> Tensor:
    """Distance of the mean features of fakes and public images (L1 mean) plus the fakes' entropy, scalar.

    The entropy is summed over the batch, as in the authors' code, so its weight grows with the batch.
    """
    f = d.features(fake)
    distance = (f.mean(0) - d.features(real).mean(0)).abs().mean()
    return distance + entropy_weight * summed_entropy(d.logits(f))


def summed_entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) (B, K) in nats, summed over the batch, scalar."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum()


def judge_alone(d: InversionDiscriminator, x: Tensor) -> Tensor:
    """Class logits (B, K) of images as if each were a batch of one, where minibatch features are 0."""
    f = d.features(x)
    extra = d.head.in_features - f.shape[1]
    logits: Tensor = d.head(F.pad(f, (0, extra)))
    return logits


def soft_labels(victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Tensor:
    """The victim's softmax on public images, (M, K), float32, on ctx.device; asked for once."""
    with torch.no_grad():
        parts = [victim.logits(part.to(ctx.device)).softmax(1) for part in public.split(ctx.max_batch)]
    return torch.cat(parts)


def _rows(count: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Endless row numbers of shuffled batches; each stream keeps its own order."""
    while True:
        yield from torch.randperm(count, generator=rng).split(batch)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer on a scalar loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
