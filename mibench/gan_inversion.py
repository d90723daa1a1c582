"""The inversion-specific GAN: a generator goes on training against a discriminator that knows the victim.

The discriminator is a (K+1)-class classifier that must repeat the victim's soft labels on public images, so
the generator is drawn towards what the victim looks at. DMI attacks with it; who defends against DMI may
build the same from public images of his own.

Source: Chen et al., ICCV 2021 (KED-MI, arXiv:2010.04092), and the authors' code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.adversarial import move_average, normal, reestimate_batch_norm, shape_of
from mibench.gan import WganPrior, pack, unpack
from mibench.memory import must_fit
from mibench.nets.inversion_gan import InversionDiscriminator
from mibench.nets.seeding import seeded
from mibench.plugin import Context, Stopwatch
from mibench.precision import fused, sent
from mibench.prior import Prior, Shape
from mibench.spaces import ZSpace
from mibench.training import check_finite


@dataclass(frozen=True, kw_only=True)
class InversionGan:
    """Nets of an inversion-specific GAN, and the training that fits a generator to a victim.

    Args:
        prior: the generator, and the box of its latents in a search.
        steps: generator steps; the authors' 120 epochs of 30,000 images are 11,000.
        n_critic: discriminator steps for each generator step; the authors take 5.
        critic_lead: discriminator steps before the generator's first one; the authors take none.
        lr: Adam's rate for both nets, with betas 0.5 and 0.999; the authors take 2e-4.
        batch: images in each of the three streams; the authors take 64.
        ema: decay of the moving average of the generator's weights; 0 keeps the last weights, as the authors
            do.
        critic_width: channels of the discriminator's first map; the authors take 64.
        minibatch: minibatch discrimination; a search sees each image alone.
        entropy_weight: weight of the batch-summed entropy of the fakes; the authors take 1e-4.
    """

    prior: WganPrior
    steps: int = 11_000
    n_critic: int = 5
    critic_lead: int = 0
    lr: float = 2e-4
    batch: int = 64
    ema: float = 0.0
    critic_width: int = 64
    minibatch: bool = True
    entropy_weight: float = 1e-4

    @must_fit("training of an inversion-specific GAN", "Lower its batch or its critic_width.")
    def adapt(self, prior: Prior, soft: Tensor, public: Tensor, ctx: Context) -> Prior:
        """Generator `g` and discriminator `d` that know the victim.

        Args:
            prior: weights of the generator.
            soft: the victim's probabilities (M, K) of the public images, on ctx.device.
            public: public images (M, C, H, W), float32 in [0, 1].
            ctx: gives randomness, device and reporter.

        Raises:
            TrainingError: the discriminator's loss became NaN or infinite.
        """
        shape = shape_of(public)
        g, _ = self.prior.nets(shape, torch.Generator())
        unpack(prior, g=g)
        g.to(ctx.device).train().requires_grad_(True)
        d = self.discriminator(shape, soft.shape[1], ctx.generator("discriminator"))
        d.to(ctx.device)
        images, rng = public.to(ctx.device), ctx.generator("adaptation")
        labeled, real, match = (_rows(len(public), self.batch, rng) for _ in range(3))
        one_kernel = fused(ctx.device)
        opt_g = torch.optim.Adam(g.parameters(), lr=self.lr, betas=(0.5, 0.999), fused=one_kernel)
        opt_d = torch.optim.Adam(d.parameters(), lr=self.lr, betas=(0.5, 0.999), fused=one_kernel)
        average, watch = copy.deepcopy(g), Stopwatch()
        total = self.critic_lead + self.steps * self.n_critic
        for step in range(total):
            z = normal(self.batch, self.prior.latent_dim, rng, ctx.device)
            with torch.no_grad():
                fake = g(z)
            rows, others = sent(next(labeled), ctx.device), sent(next(real), ctx.device)
            loss_d = discriminator_loss(d, images[rows], soft[rows], images[others], fake)
            _descend(opt_d, loss_d)
            turns, rest = divmod(step + 1 - self.critic_lead, self.n_critic)
            if turns > 0 and rest == 0:
                matched = images[sent(next(match), ctx.device)]
                _descend(opt_g, generator_loss(d, g(z), matched, self.entropy_weight))
                move_average(average, g, min(self.ema, turns / (turns + 9)))
            if watch.is_due() or step == total - 1:
                check_finite(float(loss_d.detach()), step, "inversion-specific GAN")
                ctx.report(step + 1, total, critic=float(loss_d.detach()))
        if self.ema > 0:
            g = average
            reestimate_batch_norm(g, self.prior.latent_dim, rng, ctx.device)
        return pack(g=g, d=d)

    def discriminator(
        self, shape: Shape, num_classes: int, generator: torch.Generator
    ) -> InversionDiscriminator:
        """Untrained discriminator for images of `shape` and a victim of `num_classes` labels."""
        channels, size, _ = shape
        with seeded(generator):
            return InversionDiscriminator(
                num_classes=num_classes,
                width=self.critic_width,
                size=size,
                channels=channels,
                minibatch=self.minibatch,
            )

    def space(self, prior: Prior, shape: Shape, num_classes: int, ctx: Context) -> InversionSpace:
        """What `adapt` gave as a space to search in, frozen, on ctx.device."""
        g, _ = self.prior.nets(shape, torch.Generator())
        d = self.discriminator(shape, num_classes, torch.Generator())
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


def _rows(count: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Endless row numbers of shuffled batches; each stream keeps its own order."""
    while True:
        yield from torch.randperm(count, generator=rng).split(batch)


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimizer on a scalar loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
