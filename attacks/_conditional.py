"""What PLG-MI and LOKT share: a conditional GAN for one victim, and the search in the latents of a class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.augment import Views
from mibench.gan import WganPrior, unpack
from mibench.inversion import Problem, invert_latents
from mibench.latent import IdentityLoss, Search, identity_loss
from mibench.nets.conditional import (
    AuxiliaryDiscriminator,
    ConditionalDcgan,
    ConditionalGenerator,
    ProjectionDiscriminator,
)
from mibench.nets.seeding import seeded
from mibench.noise import Noise
from mibench.plugin import Context, Stopwatch
from mibench.prior import Prior, Shape
from mibench.training import check_finite
from mibench.victim import WhiteBoxVictim, freeze

# crops of 80 to 100 % of the area, mirrored, turned by up to 5 degrees, half of them tinted; PLG-MI's code
AUTHORS_VIEWS = Views(scale=(0.8, 1.0), flip=0.5, turn=5.0, jitter=0.2, jitter_rate=0.5)

GanLoss = Callable[[Tensor, Tensor, int], Tensor]
Generator = ConditionalGenerator | ConditionalDcgan
Discriminator = ProjectionDiscriminator | AuxiliaryDiscriminator


@dataclass(frozen=True, kw_only=True)
class ConditionalGan:
    """Architecture and training of a conditional GAN.

    Args:
        latent_dim: length of z.
        width: channels of the generator's last hidden map.
        critic_width: channels of the discriminator's first map.
        start: a Wasserstein GAN of public images whose generator is given conditional norms and trained on;
            it brings its own latent_dim and width. None starts a residual generator from random weights,
            as the authors do.
        head_start: discriminator steps before the first generator step; a generator from `start` would
            unlearn its faces on an untrained discriminator.
        steps: generator steps, >= 0.
        n_critic: discriminator steps for each generator step.
        batch: images in a step.
        lr: Adam's learning rate of the generator, with betas 0 and 0.9.
        critic_lr: the same for the discriminator; 0 takes `lr`, as the authors do.
        moves: what is trained of the generator: all of it, or the scales and shifts of its classes alone,
            which keeps the faces of `start` (Noguchi and Harada, ICCV 2019, arXiv:1904.01774).
        decay: the learning rate falls linearly to zero over this last share of the steps.
    """

    latent_dim: int = 128
    width: int = 64
    critic_width: int = 64
    start: WganPrior | None = None
    head_start: int = 0
    steps: int = 30_000
    n_critic: int = 5
    batch: int = 64
    lr: float = 2e-4
    critic_lr: float = 0.0
    moves: Literal["all", "norms"] = "all"
    decay: float = 0.0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        least = {"latent_dim": 1, "width": 1, "critic_width": 1, "head_start": 0}
        for name, low in {**least, "steps": 0, "n_critic": 1, "batch": 1}.items():
            if getattr(self, name) < low:
                raise ValueError(f"gan: {name} must be >= {low}, got {getattr(self, name)}.")
        if not self.lr > 0 or not self.critic_lr >= 0 or not 0 <= self.decay <= 1:
            raise ValueError(
                "gan: lr must be > 0, critic_lr >= 0 and decay lie in [0, 1], got "
                f"{self.lr}, {self.critic_lr} and {self.decay}."
            )
        if self.moves == "norms" and self.start is None:
            raise ValueError("gan: moves = 'norms' would keep random layers. Give a `start`, or move all.")

    def generator(
        self, shape: Shape, num_classes: int, generator: torch.Generator, *, prior: Prior | None = None
    ) -> Generator:
        """The generator for images of `shape`, on the CPU; `prior` holds the weights of `start`."""
        channels, size, _ = shape
        if self.start is not None:
            plain, _ = self.start.nets(shape, generator)
            if prior is not None:
                unpack(prior, g=plain)
            with seeded(generator):
                return ConditionalDcgan(plain, num_classes)
        with seeded(generator):
            return ConditionalGenerator(
                num_classes=num_classes,
                latent_dim=self.latent_dim,
                width=self.width,
                size=size,
                channels=channels,
            )

    def train(
        self,
        g: Generator,
        d: Discriminator,
        num_classes: int,
        ctx: Context,
        *,
        critic_loss: GanLoss,
        generator_loss: GanLoss,
        warmup: int = 0,
    ) -> None:
        """Train both nets in place, on ctx.device, and leave them frozen in eval mode.

        Args:
            g: the generator.
            d: the discriminator.
            num_classes: number of classes K; those of fakes are drawn uniformly.
            ctx: gives randomness, device and reporter.
            critic_loss: (fakes (B, C, H, W), their classes (B,), step) -> scalar, for the discriminator.
            generator_loss: the same for the generator.
            warmup: generator steps before `steps`.

        Raises:
            TrainingError: a loss became NaN or infinite.
        """
        for net in (g, d):
            net.to(ctx.device)
            net.to(memory_format=torch.channels_last)
            net.train().requires_grad_(True)
        betas, total = (0.0, 0.9), warmup + self.steps
        moved = g.class_parameters() if self.moves == "norms" else list(g.parameters())
        opt_g = torch.optim.Adam(moved, lr=self.lr, betas=betas)
        opt_d = torch.optim.Adam(d.parameters(), lr=self.critic_lr or self.lr, betas=betas)
        draws = _draws(self.batch, g.latent_dim, num_classes, ctx)
        watch = Stopwatch()

        def improve_critic(step: int) -> Tensor:
            z, y = next(draws)
            with torch.no_grad():
                fake = g(z, y)
            return _update(opt_d, critic_loss(fake, y, step))

        for _ in range(self.head_start):
            improve_critic(0)
        for step in range(total):
            left = (total - step) / total
            rate = 1.0 if left >= self.decay else left / self.decay
            _set_rate(self.lr * rate, opt_g)
            _set_rate((self.critic_lr or self.lr) * rate, opt_d)
            for _ in range(self.n_critic):
                loss_d = improve_critic(step)
            z, y = next(draws)
            loss_g = _update(opt_g, generator_loss(g(z, y), y, step))
            if watch.is_due() or step == total - 1:
                check_finite(float(loss_d + loss_g), step, "conditional GAN")
                ctx.report(step + 1, total, critic=float(loss_d), generator=float(loss_g))
        freeze(g)
        freeze(d)


class ConditionalSpace:
    """The latents of a conditional generator: z, standard normal, and behind it the number of a class.

    The class is no direction to search in: it gets no gradient, so optimizers leave it where it starts.

    Args:
        g: the generator.
        d: the discriminator that it was trained against.
        num_classes: number of classes K.
    """

    def __init__(self, g: Generator, d: Discriminator, num_classes: int) -> None:
        freeze(g)
        freeze(d)
        self.g, self.d, self.num_classes = g, d, num_classes
        self.dim = g.latent_dim + 1
        self._device = next(g.parameters()).device

    def of(self, noise: Noise, labels: Tensor) -> Tensor:
        """Random latents (B, dim) of classes labels (B,)."""
        z = noise.normal("start", self.dim - 1)
        return torch.cat([z, labels[:, None].to(z)], dim=1).to(self._device)

    def start(self, noise: Noise) -> Tensor:
        """Random latents (B, dim) of random classes."""
        return self.of(noise, noise.integers("class", self.num_classes, 1).squeeze(1))

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents in their classes."""
        images: Tensor = self.g(latents[:, :-1], latents[:, -1].detach().round().long())
        return images

    def project(self, latents: Tensor) -> Tensor:
        """The latents as they are: neither attack bounds z."""
        return latents

    def realism(self, images: Tensor) -> Tensor:
        """Minus the discriminator's score of being real, of any class, (B,)."""
        scores: Tensor = self.d.realness(images)
        return -scores


def invert_classes(
    victim: WhiteBoxVictim,
    space: ConditionalSpace,
    targets: Tensor,
    ctx: Context,
    *,
    search: Search,
    loss: IdentityLoss,
    views: Views,
    num_views: int,
    restarts: int,
) -> Reconstructions:
    """Search the latents of each target's class, seen through random views; see invert_latents.

    The loss is the mean of the identity losses of `num_views` views, drawn anew in each step for each row.
    """

    def mean_loss(images: Tensor, problem: Problem, step: int) -> Tensor:
        seen = [views.of(images, problem.noise, purpose=f"view {i}", step=step) for i in range(num_views)]
        logits = victim.logits(torch.cat(seen))
        return identity_loss(logits, problem.labels.repeat(num_views), loss).view(num_views, -1).mean(0)

    return invert_latents(
        victim,
        space,
        targets,
        ctx,
        search=search,
        loss=mean_loss,
        restarts=restarts,
        start=lambda problem: space.of(problem.noise, problem.labels.cpu()),
        is_bounded=False,
        per_step=num_views,
    )


def shuffled_rows(count: int, batch: int, ctx: Context) -> Iterator[Tensor]:
    """Endless row numbers (B,) of `count` images in shuffled batches of one size, on ctx.device."""
    rng = ctx.generator("rows")
    batch = min(batch, count)
    while True:
        order = torch.randperm(count, generator=rng)[: count // batch * batch]
        yield from order.to(ctx.device).split(batch)


def _draws(batch: int, latent_dim: int, num_classes: int, ctx: Context) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless latents (batch, latent_dim) with classes (batch,)."""
    rng = ctx.generator("conditional gan")
    while True:
        z = torch.randn(batch, latent_dim, generator=rng)
        y = torch.randint(num_classes, (batch,), generator=rng)
        yield z.to(ctx.device), y.to(ctx.device)


def _set_rate(lr: float, optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    """One step of the optimizer's own parameters alone; the loss, detached."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=[p for group in optimizer.param_groups for p in group["params"]])
    optimizer.step()
    return loss.detach()
