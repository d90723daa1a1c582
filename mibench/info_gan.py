"""InfoGAN: a GAN whose latents hold a code that its images must show, learned without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.adversarial import (
    check_spec,
    duel,
    normal,
    real_or_fake_loss,
    realism_loss,
    settle_batch_norm,
    shape_of,
    stream,
)
from mibench.gan import pack, unpack
from mibench.nets.dcgan import DcganGenerator
from mibench.nets.labeled import CodeDiscriminator
from mibench.nets.seeding import seeded
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.precision import fused, sent
from mibench.prior import Prior, PriorSpec, Shape
from mibench.victim import freeze

# least variance of a guess of c': the density of a sure guess has no bound, and would drown the other losses
_LEAST_VARIANCE = 1e-2


@dataclass(frozen=True, kw_only=True)
class InfoGanPrior(PriorSpec):
    """GAN in the shape of DCGAN with latents (noise, categorical code c, continuous code c').

    A head Q of the discriminator guesses the code of a fake: categorical variables by their cross-entropy,
    uniform c' in [-1, 1] by a Gaussian's log-density. Both nets descend on Q's loss, which bounds the mutual
    information of code and image, beside the losses of the first GAN on logits. Source: Chen et al., NeurIPS
    2016 (arXiv:1606.03657): 10 categorical variables of 10 values and 128 numbers of noise (its CelebA), 5
    continuous ones (its faces), Adam (0.5, 0.999) with 1e-3 for the generator and 2e-4 for the discriminator.
    Ours: spectral norm in the discriminator, the moving average, mirrored
    images, the weight of c', which the paper calls smaller, and a least variance of its guess.

    Args:
        latent_dim: numbers of noise.
        variables: categorical variables of c.
        values: values of each of them.
        continuous: numbers of c', >= 0.
        width: channels of the generator's last hidden map.
        critic_width: channels of the discriminator's first map.
        steps: generator steps.
        n_critic: discriminator steps for each generator step.
        batch: images in a step.
        lr: Adam's learning rate of the generator.
        critic_lr: the same of the discriminator and Q.
        info_weight: weight of Q's loss on c, >= 0 (lambda; 1 in the paper).
        continuous_weight: weight of Q's loss on c', >= 0.
        decay: the learning rates fall linearly to zero over this last share of the steps.
        ema: decay of the moving average of the generator's weights; 0 turns it off.
        clamp: bound of every number of noise during a search (GMI: 1).
        draws: random c that a search tries for each image, of which the best is kept; c has no gradient.
    """

    kind: ClassVar[str] = "infogan"
    search_fields: ClassVar[frozenset[str]] = frozenset({"clamp", "draws"})
    latent_dim: int = 128
    variables: int = 10
    values: int = 10
    continuous: int = 5
    width: int = 64
    critic_width: int = 64
    steps: int = 26_000
    n_critic: int = 1
    batch: int = 128
    lr: float = 1e-3
    critic_lr: float = 2e-4
    info_weight: float = 1.0
    continuous_weight: float = 0.1
    decay: float = 0.0
    ema: float = 0.999
    clamp: float = 1.0
    draws: int = 4

    def __post_init__(self) -> None:
        counts = ("n_critic", "variables", "values", "draws")
        check_spec(self, *counts, positive=("lr", "critic_lr", "clamp"), shares=("decay", "ema"))
        for name in ("continuous", "info_weight", "continuous_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"prior infogan: {name} must be >= 0, got {getattr(self, name)}.")

    def nets(self, shape: Shape, generator: torch.Generator) -> tuple[DcganGenerator, CodeDiscriminator]:
        """Untrained generator and discriminator for images of `shape`."""
        channels, size, _ = shape
        categories = self.variables * self.values
        with seeded(generator):
            g = DcganGenerator(
                latent_dim=self.latent_dim + categories + self.continuous,
                width=self.width,
                size=size,
                channels=channels,
            )
            d = CodeDiscriminator(
                code_dim=categories + 2 * self.continuous,
                width=self.critic_width,
                size=size,
                channels=channels,
            )
        return g, d

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """See PriorSpec.fit."""
        g, d = self.nets(shape_of(public), ctx.generator("init"))
        g.to(ctx.device)
        d.to(ctx.device)
        rng = ctx.generator("training")
        batches = stream(public, self.batch, rng, ctx.device)

        def critic_loss() -> Tensor:
            latents, c, moved = self.draw(self.batch, rng, ctx.device)
            with torch.no_grad():
                fake = g(latents)
            real = next(batches)
            logits, guess = d.both(torch.cat([real, fake]))
            info = self.info_loss(guess[len(real) :], c, moved)
            return real_or_fake_loss(logits[: len(real)], logits[len(real) :]) + info

        def generator_loss() -> Tensor:
            latents, c, moved = self.draw(self.batch, rng, ctx.device)
            logits, guess = d.both(g(latents))
            return realism_loss(logits).mean() + self.info_loss(guess, c, moved)

        kept = duel(
            g,
            (_adam(g, self.lr), _adam(d, self.critic_lr)),
            self,
            ctx,
            critic_loss=critic_loss,
            generator_loss=generator_loss,
            name="InfoGAN",
        )
        settle_batch_norm(kept, lambda rows: self.draw(rows, rng, ctx.device)[0])
        return pack(g=kept, d=d)

    def draw(self, rows: int, rng: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The generator's input, its c (rows, variables), int64, and its c' (rows, continuous)."""
        z = normal(rows, self.latent_dim, rng, device)
        c = sent(torch.randint(self.values, (rows, self.variables), generator=rng), device)
        moved = sent(2 * torch.rand(rows, self.continuous, generator=rng) - 1, device)
        return torch.cat([z, one_hots(c, self.values), moved], 1), c, moved

    def info_loss(self, guess: Tensor, c: Tensor, moved: Tensor) -> Tensor:
        """Minus the bound of the mutual information, weighted and up to a constant, scalar.

        Args:
            guess: of Q, (N, variables * values + 2 * continuous): logits, means, logarithms of variances.
            c: true categorical code (N, variables), int64.
            moved: true continuous code (N, continuous).
        """
        categories = self.variables * self.values
        logits = guess[:, :categories].unflatten(1, (self.variables, self.values))
        # summed over the variables, since the mutual information is; averaged over the images
        loss = self.info_weight * F.cross_entropy(logits.flatten(0, 1), c.flatten()) * self.variables
        if self.continuous == 0:
            return loss
        mean, log_variance = guess[:, categories:].chunk(2, 1)
        missed = normal_surprise(mean, moved, log_variance.exp())
        return loss + self.continuous_weight * missed * self.continuous

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> CodeSpace:
        """See PriorSpec.load: noise, bounded by `clamp`, c' in [-1, 1], and a drawn c."""
        g, d = self.nets(shape, torch.Generator().manual_seed(0))
        unpack(prior, g=g, d=d)
        return CodeSpace(g.to(ctx.device), d.to(ctx.device), self)


class CodeSpace:
    """Latents (noise, c', c) of an InfoGAN; c holds the number of a value for each categorical variable.

    A number of a value is no direction to search in: it gets no gradient, so optimizers leave it where it
    starts. So a search tries `draws` starts for each image.

    Args:
        g: the generator.
        d: its discriminator.
        spec: sizes of the latents, and options of the search.
    """

    def __init__(self, g: DcganGenerator, d: CodeDiscriminator, spec: InfoGanPrior) -> None:
        freeze(g)
        freeze(d)
        self.g, self.d, self.spec, self.draws = g, d, spec, spec.draws
        self.dim = spec.latent_dim + spec.continuous + spec.variables
        self._device = next(g.parameters()).device

    def start(self, noise: Noise) -> Tensor:
        """Latents (B, dim) as in training: standard normal, uniform in [-1, 1], and values at random."""
        z = noise.normal("start", self.spec.latent_dim)
        continuous = self.spec.continuous
        moved = 2 * noise.uniform("continuous code", max(continuous, 1))[:, :continuous] - 1
        c = noise.integers("categorical code", self.spec.values, self.spec.variables)
        return torch.cat([z, moved, c], 1).to(self._device)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        z, moved, c = self._split(latents)
        values = c.detach().round().long()
        images: Tensor = self.g(torch.cat([z, one_hots(values, self.spec.values), moved], 1))
        return images

    def project(self, latents: Tensor) -> Tensor:
        """Latents with noise clamped to [-clamp, clamp] and c' to [-1, 1]."""
        z, moved, c = self._split(latents)
        return torch.cat([z.clamp(-self.spec.clamp, self.spec.clamp), moved.clamp(-1, 1), c], 1)

    def realism(self, images: Tensor) -> Tensor:
        """-log D(x) of images (B,)."""
        return realism_loss(self.d(images))

    def _split(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = [self.spec.latent_dim, self.spec.continuous, self.spec.variables]
        z, moved, c = latents.split(sizes, 1)
        return z, moved, c


def normal_surprise(mean: Tensor, x: Tensor, variance: Tensor) -> Tensor:
    """Mean of -log N(x; mean, variance) up to a constant, scalar; all of one shape.

    What `F.gaussian_nll_loss` gives, bit for bit, without its look for negative variances, which waits for
    the device in every step.
    """
    held = variance.clone()
    with torch.no_grad():  # as in torch, the bound lets gradients pass
        held.clamp_(min=_LEAST_VARIANCE)
    surprise: Tensor = (0.5 * (held.log() + (mean - x) ** 2 / held)).mean()
    return surprise


def one_hots(c: Tensor, values: int) -> Tensor:
    """One-hot rows of the variables of c (N, M), int64, side by side: (N, M * values), float32."""
    return F.one_hot(c, values).flatten(1).float()


def _adam(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    device = next(net.parameters()).device
    return torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999), fused=fused(device))
