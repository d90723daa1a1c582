"""The generative priors of attacks: Wasserstein GANs and a small style-based GAN, with their training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.adversarial import (
    check_spec,
    decayed,
    duel,
    move_average,
    normal,
    realism_loss,
    reestimate_batch_norm,
    set_lr,
    shape_of,
    stream,
    update,
)
from mibench.memory import must_fit
from mibench.nets.dcgan import Critic, DcganGenerator
from mibench.nets.seeding import seeded
from mibench.nets.style import StyleDiscriminator, StyleGenerator
from mibench.nets.styled import from_p
from mibench.plugin import Context, Stopwatch
from mibench.precision import fused, sent
from mibench.prior import Prior, PriorSpec, Shape
from mibench.spaces import WSpace, ZSpace
from mibench.training import check_finite
from mibench.victim import freeze

# critic, real images, fakes, randomness -> scalar
CriticLoss = Callable[[Critic, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, kw_only=True)
class WganPrior(PriorSpec):
    """Deconvolution generator trained with WGAN-GP; the prior of GMI and the start of KED-MI's.

    Source: Zhang et al., CVPR 2020 (code): Adam 2e-4 (0.5, 0.999), batch 64, 5 critic steps, gradient
    penalty 10, 280 epochs of 30,000 images = 26,000 generator steps. Ours: a moving average of the
    generator's weights, with batch statistics re-estimated for the average.

    Args:
        latent_dim: length of z.
        width: channels of the generator's last hidden map.
        critic_width: channels of the critic's first map.
        steps: generator steps.
        n_critic: critic steps for each generator step.
        batch: images in a step.
        lr: Adam's learning rate for both nets.
        decay: the learning rate falls linearly to zero over this last share of the steps.
        gp_weight: weight of the gradient penalty.
        ema: decay of the weights' moving average; 0 turns it off.
        clamp: bound of every latent coordinate during a search (GMI: 1).
    """

    kind: ClassVar[str] = "wgan_gp"
    search_fields: ClassVar[frozenset[str]] = frozenset({"clamp"})
    latent_dim: int = 100
    width: int = 64
    critic_width: int = 64
    steps: int = 26_000
    n_critic: int = 5
    batch: int = 64
    lr: float = 2e-4
    decay: float = 0.0
    gp_weight: float = 10.0
    ema: float = 0.999
    clamp: float = 1.0

    def __post_init__(self) -> None:
        check_spec(self, "n_critic", positive=("lr", "clamp"), shares=("decay", "ema"))

    def nets(self, shape: Shape, generator: torch.Generator) -> tuple[DcganGenerator, Critic]:
        """Untrained generator and critic for images of `shape`."""
        return _wasserstein_nets(self, shape, generator)

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """See PriorSpec.fit."""
        g, d = self.nets(shape_of(public), ctx.generator("init"))
        optimizers = (
            torch.optim.Adam(g.parameters(), lr=self.lr, betas=(0.5, 0.999), fused=fused(ctx.device)),
            torch.optim.Adam(d.parameters(), lr=self.lr, betas=(0.5, 0.999), fused=fused(ctx.device)),
        )
        return _train_wasserstein(
            self, (g, d), optimizers, public, ctx, critic_loss=self._critic_loss, name="WGAN-GP"
        )

    def _critic_loss(self, d: Critic, real: Tensor, fake: Tensor, rng: torch.Generator) -> Tensor:
        mix = sent(torch.rand(len(real), 1, 1, 1, generator=rng), real.device)
        between = (mix * real + (1 - mix) * fake).requires_grad_(True)
        gap = score_gap(d, real, fake)
        return gap + self.gp_weight * gradient_penalty(d, between)

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> ZSpace:
        """See PriorSpec.load: the space of z, bounded by `clamp`."""
        return _wasserstein_space(self, prior, shape, ctx)


@dataclass(frozen=True, kw_only=True)
class WganClipPrior(PriorSpec):
    """The first Wasserstein GAN, whose critic is held by clipping its weights.

    Source: Arjovsky et al., ICML 2017 (arXiv:1701.07875), algorithm 1: RMSprop 5e-5, weights in
    [-0.01, 0.01], 5 critic steps, batch 64. Nets and number of steps are those of `WganPrior`, so that the
    two differ in the constraint alone. Ours: the moving average, and no longer turns of the critic at the
    start, which are the authors' code's and not the algorithm's.

    Args:
        latent_dim: length of z.
        width: channels of the generator's last hidden map.
        critic_width: channels of the critic's first map.
        steps: generator steps.
        n_critic: critic steps for each generator step.
        batch: images in a step.
        lr: RMSprop's learning rate for both nets.
        clip: bound of every weight of the critic, > 0.
        decay: the learning rate falls linearly to zero over this last share of the steps.
        ema: decay of the weights' moving average; 0 turns it off.
        clamp: bound of every latent coordinate during a search (GMI: 1).
    """

    kind: ClassVar[str] = "wgan_clip"
    search_fields: ClassVar[frozenset[str]] = frozenset({"clamp"})
    latent_dim: int = 100
    width: int = 64
    critic_width: int = 64
    steps: int = 26_000
    n_critic: int = 5
    batch: int = 64
    lr: float = 5e-5
    clip: float = 0.01
    decay: float = 0.0
    ema: float = 0.999
    clamp: float = 1.0

    def __post_init__(self) -> None:
        check_spec(self, "n_critic", positive=("lr", "clip", "clamp"), shares=("decay", "ema"))

    def nets(self, shape: Shape, generator: torch.Generator) -> tuple[DcganGenerator, Critic]:
        """Untrained generator and critic for images of `shape`; the critic's weights are clipped."""
        g, d = _wasserstein_nets(self, shape, generator)
        clip_weights(d, self.clip)
        return g, d

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """See PriorSpec.fit."""
        g, d = self.nets(shape_of(public), ctx.generator("init"))
        optimizers = (
            torch.optim.RMSprop(g.parameters(), lr=self.lr),
            torch.optim.RMSprop(d.parameters(), lr=self.lr),
        )
        return _train_wasserstein(
            self,
            (g, d),
            optimizers,
            public,
            ctx,
            critic_loss=lambda d, real, fake, _rng: score_gap(d, real, fake),
            name="WGAN with clipping",
            after_critic=lambda: clip_weights(d, self.clip),
        )

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> ZSpace:
        """See PriorSpec.load: the space of z, bounded by `clamp`."""
        return _wasserstein_space(self, prior, shape, ctx)


@dataclass(frozen=True, kw_only=True)
class StylePrior(PriorSpec):
    """Small style-based generator, non-saturating logistic loss with lazy R1.

    Source: StyleGAN2-ADA's `auto` settings (Karras et al., NeurIPS 2020): Adam 0.0025 (0, 0.99), R1 on
    every 16th step with weight 0.0002 * size^2 / batch, moving average with a half-life of 10,000 images.

    Args:
        latent_dim: length of z.
        w_dim: length of w.
        mapping_layers: linear layers from z to w.
        width: channels of the generator's coarsest levels.
        critic_width: the same for the discriminator.
        steps: steps of both nets.
        batch: images in a step.
        lr: Adam's learning rate.
        decay: the learning rate falls linearly to zero over this last share of the steps.
        r1_weight: weight of the R1 penalty; 0 takes the source's formula.
        r1_every: steps between two penalties.
        ema_images: half-life of the weights' moving average in images.
        p_samples: draws of z from which the P-space box is estimated (Mirror: 100,000).
        kappa: half-width of the P-space box in standard deviations (Mirror: 1).
    """

    kind: ClassVar[str] = "style"
    search_fields: ClassVar[frozenset[str]] = frozenset({"p_samples", "kappa"})
    latent_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 2
    width: int = 64
    critic_width: int = 64
    steps: int = 60_000
    batch: int = 32
    lr: float = 0.0025
    decay: float = 0.0
    r1_weight: float = 0.0
    r1_every: int = 16
    ema_images: int = 10_000
    p_samples: int = 10_000
    kappa: float = 1.0

    def __post_init__(self) -> None:
        counts = ("w_dim", "mapping_layers", "r1_every", "ema_images", "p_samples")
        check_spec(self, *counts, positive=("lr", "kappa"), shares=("decay",))

    def nets(
        self, shape: Shape, generator: torch.Generator, *, group: int = 4
    ) -> tuple[StyleGenerator, nn.Module]:
        """Untrained generator and discriminator for images of `shape`."""
        channels, size, _ = shape
        with seeded(generator):
            g = StyleGenerator(
                latent_dim=self.latent_dim,
                w_dim=self.w_dim,
                mapping_layers=self.mapping_layers,
                width=self.width,
                size=size,
                channels=channels,
            )
            d = StyleDiscriminator(width=self.critic_width, size=size, channels=channels, group=group)
        return g, d

    @must_fit("training of a style GAN", "Lower its batch, width or critic_width.")
    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """See PriorSpec.fit."""
        g, d = self.nets(shape_of(public), ctx.generator("init"))
        g.to(ctx.device)
        d.to(ctx.device)
        # lazy regularization: betas and rate shrink by the share of steps without a penalty
        share = self.r1_every / (self.r1_every + 1)
        one_kernel = fused(ctx.device)
        opt_g = torch.optim.Adam(g.parameters(), lr=self.lr, betas=(0.0, 0.99), fused=one_kernel)
        opt_d = torch.optim.Adam(
            d.parameters(), lr=self.lr * share, betas=(0.0, 0.99**share), fused=one_kernel
        )
        rng = ctx.generator("training")
        real = stream(public, self.batch, rng, ctx.device)
        average, watch = copy.deepcopy(g), Stopwatch()
        keep = 0.5 ** (self.batch / self.ema_images)
        for step in range(self.steps):
            rate = decayed(step, self.steps, self.decay)
            set_lr(self.lr * rate, opt_g)
            set_lr(self.lr * share * rate, opt_d)
            loss_d = self._discriminator_loss(g, d, next(real), step, rng)
            update(opt_d, loss_d)
            fake = g(normal(self.batch, self.latent_dim, rng, ctx.device), noise="random", generator=rng)
            loss_g = realism_loss(d(fake)).mean()
            update(opt_g, loss_g)
            move_average(average, g, min(keep, (step + 1) / (step + 10)))
            if watch.is_due() or step == self.steps - 1:
                check_finite(float(loss_d.detach()), step, "style GAN")
                ctx.report(
                    step + 1, self.steps, critic=float(loss_d.detach()), generator=float(loss_g.detach())
                )
        return pack(g=average, d=d)

    def _discriminator_loss(
        self, g: StyleGenerator, d: nn.Module, real: Tensor, step: int, rng: torch.Generator
    ) -> Tensor:
        with torch.no_grad():
            z = normal(self.batch, self.latent_dim, rng, real.device)
            fake = g(z, noise="random", generator=rng)
        if step % self.r1_every:
            return F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean()
        real = real.requires_grad_(True)
        scores = d(real)
        (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
        weight = self.r1_weight or 0.0002 * real.shape[-1] ** 2 / self.batch
        penalty = 0.5 * weight * slope.square().sum((1, 2, 3)).mean() * self.r1_every
        return F.softplus(-scores).mean() + F.softplus(d(fake)).mean() + penalty

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> WSpace:
        """See PriorSpec.load: the space of w, bounded by the P-space box."""
        g, d = self.nets(shape, torch.Generator().manual_seed(0), group=1)
        unpack(prior, g=g, d=d)
        freeze(g)
        mean, std = g.p_stats(self.p_samples, torch.Generator().manual_seed(0))
        low, high = from_p(mean - self.kappa * std), from_p(mean + self.kappa * std)
        return WSpace(g.to(ctx.device), d.to(ctx.device), low.to(ctx.device), high.to(ctx.device))


def _wasserstein_nets(
    spec: WganPrior | WganClipPrior, shape: Shape, generator: torch.Generator
) -> tuple[DcganGenerator, Critic]:
    channels, size, _ = shape
    with seeded(generator):
        g = DcganGenerator(latent_dim=spec.latent_dim, width=spec.width, size=size, channels=channels)
        d = Critic(width=spec.critic_width, size=size, channels=channels)
    return g, d


def _train_wasserstein(
    spec: WganPrior | WganClipPrior,
    nets: tuple[DcganGenerator, Critic],
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    public: Tensor,
    ctx: Context,
    *,
    critic_loss: CriticLoss,
    name: str,
    after_critic: Callable[[], None] = lambda: None,
) -> Prior:
    """The trained nets; the generator climbs the critic's score."""
    g, d = nets
    g.to(ctx.device)
    d.to(ctx.device)
    rng = ctx.generator("training")
    real = stream(public, spec.batch, rng, ctx.device)

    def fake() -> Tensor:
        images: Tensor = g(normal(spec.batch, spec.latent_dim, rng, ctx.device))
        return images

    def loss_of_critic() -> Tensor:
        with torch.no_grad():
            made = fake()
        return critic_loss(d, next(real), made, rng)

    kept = duel(
        g,
        optimizers,
        spec,
        ctx,
        critic_loss=loss_of_critic,
        generator_loss=lambda: -d(fake()).mean(),
        name=name,
        after_critic=after_critic,
    )
    reestimate_batch_norm(kept, spec.latent_dim, rng, ctx.device)
    return pack(g=kept, d=d)


def _wasserstein_space(spec: WganPrior | WganClipPrior, prior: Prior, shape: Shape, ctx: Context) -> ZSpace:
    g, d = spec.nets(shape, torch.Generator().manual_seed(0))
    unpack(prior, g=g, d=d)
    return ZSpace(g.to(ctx.device), d.to(ctx.device), dim=spec.latent_dim, clamp=spec.clamp)


def score_gap(d: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean score of fakes minus that of real images, scalar: minus the Wasserstein distance as d sees it."""
    scores = d(torch.cat([real, fake]))
    gap: Tensor = scores[len(real) :].mean() - scores[: len(real)].mean()
    return gap


@torch.no_grad()
def clip_weights(net: nn.Module, bound: float) -> None:
    """Move every weight into [-bound, bound], in place."""
    for weights in net.parameters():
        weights.clamp_(-bound, bound)


def gradient_penalty(d: nn.Module, x: Tensor) -> Tensor:
    """Mean of (||dD/dx||_2 - 1)^2 over images x (N, C, H, W) that ask for gradients; scalar.

    Source: Gulrajani et al., NeurIPS 2017 (arXiv:1704.00028), equation 3.
    """
    (slope,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
    penalty: Tensor = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty


def pack(**nets: nn.Module) -> Prior:
    """Weights of nets as one dictionary, in half precision: priors are stored and shipped that way."""
    return {
        f"{name}.{key}": value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()
        for name, net in nets.items()
        for key, value in net.state_dict().items()
    }


def unpack(prior: Prior, **nets: nn.Module) -> None:
    """Load the weights of `pack` back into nets, in place; other entries of the prior are left alone."""
    for name, net in nets.items():
        own = {
            key.removeprefix(f"{name}."): value for key, value in prior.items() if key.startswith(f"{name}.")
        }
        net.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in own.items()})
