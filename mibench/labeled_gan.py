"""A conditional GAN of labeled public images, which a defender may take for its substitute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.adversarial import (
    check_spec,
    duel,
    normal,
    real_or_fake_loss,
    realism_loss,
    settle_batch_norm,
    stream_of_rows,
)
from mibench.data.split import Labeled
from mibench.gan import pack, unpack
from mibench.nets.labeled import LabeledDiscriminator, LabeledGenerator
from mibench.nets.seeding import seeded
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.precision import fused, sent
from mibench.prior import LabeledPriorSpec, Prior, Shape
from mibench.victim import freeze


@dataclass(frozen=True, kw_only=True)
class CganPrior(LabeledPriorSpec):
    """Conditional GAN in the shape of DCGAN: generator and discriminator are told the label.

    Its losses are those of the first GAN, on logits: softplus(-D(x, y)) + softplus(D(G(z, y), y)) for the
    discriminator, softplus(-D(G(z, y), y)) for the generator. Labels of fakes are drawn as they are spread
    over the images. Source: Mirza and Osindero, 2014 (arXiv:1411.1784), whose nets have no convolutions;
    layers, Adam 2e-4 (0.5, 0.999) and latents of 100 numbers as in DCGAN (Radford et al., ICLR 2016,
    arXiv:1511.06434). Ours: spectral norm in the discriminator, the
    moving average, and mirrored images.

    Args:
        latent_dim: length of z.
        label_dim: length of what a label stands for in each net.
        width: channels of the generator's last hidden map.
        critic_width: channels of the discriminator's first map.
        steps: generator steps.
        n_critic: discriminator steps for each generator step.
        batch: images in a step.
        lr: Adam's learning rate for both nets.
        decay: the learning rate falls linearly to zero over this last share of the steps.
        ema: decay of the moving average of the generator's weights; 0 turns it off.
        clamp: bound of every coordinate of z during a search (GMI: 1).
    """

    kind: ClassVar[str] = "cgan"
    search_fields: ClassVar[frozenset[str]] = frozenset({"clamp"})
    latent_dim: int = 100
    label_dim: int = 50
    width: int = 64
    critic_width: int = 64
    steps: int = 26_000
    n_critic: int = 1
    batch: int = 64
    lr: float = 2e-4
    decay: float = 0.0
    ema: float = 0.999
    clamp: float = 1.0

    def __post_init__(self) -> None:
        check_spec(self, "n_critic", "label_dim", positive=("lr", "clamp"), shares=("decay", "ema"))

    def nets(
        self, shape: Shape, num_classes: int, generator: torch.Generator
    ) -> tuple[LabeledGenerator, LabeledDiscriminator]:
        """Untrained generator and discriminator for images of `shape` with `num_classes` labels."""
        channels, size, _ = shape
        with seeded(generator):
            g = LabeledGenerator(
                num_classes=num_classes,
                latent_dim=self.latent_dim,
                label_dim=self.label_dim,
                width=self.width,
                size=size,
                channels=channels,
            )
            d = LabeledDiscriminator(
                num_classes=num_classes,
                label_dim=self.label_dim,
                width=self.critic_width,
                size=size,
                channels=channels,
            )
        return g, d

    def fit_labeled(self, public: Labeled, ctx: Context) -> Prior:
        """See LabeledPriorSpec.fit_labeled."""
        labels = F.one_hot(public.labels).float().to(ctx.device)
        g, d = self.nets(public.shape, labels.shape[1], ctx.generator("init"))
        g.to(ctx.device)
        d.to(ctx.device)
        rng = ctx.generator("training")
        batches = stream_of_rows(public.pixels, self.batch, rng, ctx.device)

        def told(rows: int = self.batch) -> tuple[Tensor, Tensor]:
            z = normal(rows, self.latent_dim, rng, ctx.device)
            drawn = torch.randint(len(labels), (rows,), generator=rng)
            return z, labels[sent(drawn, ctx.device)]

        def critic_loss() -> Tensor:
            z, y = told()
            with torch.no_grad():
                fake = g(torch.cat([z, y], 1))
            real, rows = next(batches)
            logits = d(torch.cat([real, fake]), torch.cat([labels[rows], y]))
            return real_or_fake_loss(logits[: len(real)], logits[len(real) :])

        def generator_loss() -> Tensor:
            z, y = told()
            return realism_loss(d(g(torch.cat([z, y], 1)), y)).mean()

        kept = duel(
            g,
            (self._adam(g), self._adam(d)),
            self,
            ctx,
            critic_loss=critic_loss,
            generator_loss=generator_loss,
            name="conditional GAN",
        )
        settle_batch_norm(kept, lambda rows: torch.cat(told(rows), 1))
        return pack(g=kept, d=d)

    def _adam(self, net: torch.nn.Module) -> torch.optim.Optimizer:
        device = next(net.parameters()).device
        return torch.optim.Adam(net.parameters(), lr=self.lr, betas=(0.5, 0.999), fused=fused(device))

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> MixtureSpace:
        """See PriorSpec.load: z, bounded by `clamp`, and a mixture of labels."""
        num_classes = prior["g.embed.weight"].shape[1]
        g, d = self.nets(shape, num_classes, torch.Generator().manual_seed(0))
        unpack(prior, g=g, d=d)
        return MixtureSpace(g.to(ctx.device), d.to(ctx.device), num_classes, clamp=self.clamp)


class MixtureSpace:
    """Latents (z, a) of a conditional generator: softmax(t a) mixes the labels, and is searched with z.

    It serves whoever has no label that fits: an image of a stranger lies between the known people. The
    search starts at a = 1 for one label, drawn at random, and 0 for the others; t is such that this label has
    half the weight, where a softmax is steepest. So steps that cross z's range lead from label to label.

    Args:
        g: the generator.
        d: its discriminator.
        num_classes: number of labels K.
        clamp: bound of every coordinate of z.
    """

    def __init__(
        self, g: LabeledGenerator, d: LabeledDiscriminator, num_classes: int, *, clamp: float
    ) -> None:
        freeze(g)
        freeze(d)
        self.g, self.d, self.num_classes, self.clamp = g, d, num_classes, clamp
        self.dim = g.latent_dim + num_classes
        # e^t is what all other labels have together; at least 1, or two labels would have no slope
        self.steepness = max(math.log(max(num_classes - 1, 1)), 1.0)
        self._device = next(g.parameters()).device

    def start(self, noise: Noise) -> Tensor:
        """Standard normal z, and a for a random label: (B, dim)."""
        z = noise.normal("start", self.g.latent_dim)
        label = noise.integers("label", self.num_classes, 1).squeeze(1)
        return torch.cat([z, F.one_hot(label, self.num_classes)], 1).to(self._device)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of latents."""
        z, y = self._split(latents)
        images: Tensor = self.g(torch.cat([z, y], 1))
        return images

    def project(self, latents: Tensor) -> Tensor:
        """Latents with z clamped to [-clamp, clamp]; every a gives a mixture."""
        z, a = latents[:, : self.g.latent_dim], latents[:, self.g.latent_dim :]
        return torch.cat([z.clamp(-self.clamp, self.clamp), a], 1)

    def realism(self, images: Tensor) -> Tensor:
        """-log D (B,) of images whose latents are not known: D is told the even mixture of all labels."""
        even = torch.full((len(images), self.num_classes), 1 / self.num_classes, device=images.device)
        return realism_loss(self.d(images, even))

    def realism_of(self, latents: Tensor, images: Tensor) -> Tensor:
        """-log D(x, y) (B,) of the images of latents, y being their mixtures."""
        return realism_loss(self.d(images, self._split(latents)[1]))

    def of_label(self, label: int) -> LabelSpace:
        """The space of z for one label.

        Raises:
            ValueError: the generator knows no such label.
        """
        if not 0 <= label < self.num_classes:
            known = f"it knows labels 0 to {self.num_classes - 1}"
            raise ValueError(f"prior cgan: {known}, got {label}. Train it on images of that label.")
        return LabelSpace(self.g, self.d, label, self.num_classes, clamp=self.clamp)

    def _split(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The z (B, latent_dim) and the mixtures (B, K) of latents."""
        z, a = latents[:, : self.g.latent_dim], latents[:, self.g.latent_dim :]
        return z, (self.steepness * a).softmax(1)


class LabelSpace:
    """Latents z of a conditional generator whose label is given.

    Args:
        g: the generator.
        d: its discriminator.
        label: the label.
        num_classes: number of labels K.
        clamp: bound of every coordinate of z.
    """

    def __init__(
        self, g: LabeledGenerator, d: LabeledDiscriminator, label: int, num_classes: int, *, clamp: float
    ) -> None:
        self.g, self.d, self.clamp, self.dim = g, d, clamp, g.latent_dim
        device = next(g.parameters()).device
        self._label = F.one_hot(torch.tensor([label], device=device), num_classes).float()

    def start(self, noise: Noise) -> Tensor:
        """Standard normal z (B, dim)."""
        return noise.normal("start", self.dim).to(self._label.device)

    def decode(self, latents: Tensor) -> Tensor:
        """Images of z and the label."""
        images: Tensor = self.g(torch.cat([latents, self._told(latents)], 1))
        return images

    def project(self, latents: Tensor) -> Tensor:
        """The z clamped to [-clamp, clamp]."""
        return latents.clamp(-self.clamp, self.clamp)

    def realism(self, images: Tensor) -> Tensor:
        """-log D(x, label) of images (B,)."""
        return realism_loss(self.d(images, self._told(images)))

    def _told(self, rows: Tensor) -> Tensor:
        return self._label.expand(len(rows), -1)
