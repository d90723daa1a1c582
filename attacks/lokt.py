"""LOKT: carry a label-only victim's knowledge over to nets that give gradients, and search in those.

A conditional GAN learns faces of the victim's classes from nothing but the hard labels that the victim gives
to its fakes: a class head of the discriminator repeats them, and the generator follows the class head.
Students are trained on the GAN's images as the victim labels them. A white-box search in the students then
asks the victim nothing.

Source: Nguyen et al., NeurIPS 2023 (arXiv:2310.19342), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions, without_queries
from mibench.augment import Views
from mibench.distil import Student, load_students, train_students
from mibench.gan import WganPrior, pack, unpack
from mibench.latent import IdentityLoss, Search
from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.conditional import AuxiliaryDiscriminator
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.training import Recipe
from mibench.victim import LabelVictim, WhiteBoxVictim

from ._conditional import (
    AUTHORS_VIEWS,
    ConditionalGan,
    ConditionalSpace,
    Generator,
    invert_classes,
    shuffled_rows,
)

# 200 epochs of 30,000 images are 12 of 500,000; the rest is the authors' too
_AUTHORS = Recipe(epochs=12, batch=256, lr=0.1, weight_decay=5e-4)


@dataclass(frozen=True, kw_only=True)
class Lokt(Attack[LabelVictim]):
    """Label-only model inversion via knowledge transfer.

    Args:
        gan: the conditional GAN and its training; the authors take 19,000 steps of 128 images.
        warmup: generator steps before `gan.steps` in which the classes count for nothing and the victim is
            not asked, >= 0; the authors take 1,000 to 6,000.
        class_weight: weight of the class losses, >= 0; the authors take 1.5.
        students: nets trained on the GAN's images, searched together; the authors take three DenseNets.
            None at all searches in the discriminator's class head, as the authors' smallest variant does.
        images_per_class: GAN images of each class that the victim labels for the students, >= 1; the authors
            take 500. They are held in memory at once.
        loss: identity loss of the search; the authors take max_margin.
        views: what the students see of an image in the search.
        num_views: views of each image in a step of the search, >= 1; the authors take 2.
        search: the authors take 600 Adam steps at 0.1 and keep the last iterate.
        restarts: random starts of each reconstruction, >= 1, of which the one with the students' largest
            target logit is kept; the authors choose none of their five.
    """

    name = "lokt"
    access = LabelVictim
    card = Card(
        title="Label-Only Model Inversion Attacks via Knowledge Transfer",
        paper="Nguyen et al., NeurIPS 2023, arXiv:2310.19342",
        year=2023,
        code="https://github.com/ngoc-nguyen-0/LOKT_neurips2023",
        deviations=(
            "students are nets of this package, by default none of the usual judge's architecture",
            "students see each image in a random view; the authors average a clean and an augmented loss",
            "the generator may start from a GAN that was trained on the public images (gan.start)",
            "views are drawn for each image by itself, so that rows are independent",
            "brightness and contrast of a view change together, with one probability and in one order",
        ),
    )

    toy: ClassVar[Settings] = {
        "gan": {
            "start": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8},
            "critic_width": 4,
            "steps": 8,
            "n_critic": 1,
            "batch": 16,
        },
        "warmup": 2,
        "images_per_class": 48,
        "students": [{"net": "small_vgg", "width": 8, "recipe": {"epochs": 8, "batch": 16}}],
        "search": {"steps": 20, "lr": 0.1, "keep": "last"},
    }

    gan: ConditionalGan = field(default_factory=lambda: ConditionalGan(steps=19_000, batch=128))
    warmup: int = 1_000
    class_weight: float = 1.5
    students: tuple[Student, ...] = (
        Student(net="small_convnext", recipe=Recipe(epochs=12, batch=256, optimizer="adamw", lr=0.002)),
        Student(net="small_vgg", recipe=_AUTHORS),
        Student(net="small_vgg", width=24, recipe=_AUTHORS),
    )
    images_per_class: int = 500
    loss: IdentityLoss = "max_margin"
    views: Views = AUTHORS_VIEWS
    num_views: int = 2
    search: Search = field(default_factory=lambda: Search(steps=600, lr=0.1, keep="last"))
    restarts: int = 1

    def __post_init__(self) -> None:
        for name in ("images_per_class", "num_views", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"lokt: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("warmup", "class_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"lokt: {name} must be >= 0, got {getattr(self, name)}.")

    def prior_spec(self) -> WganPrior | None:
        """The GAN that the conditional one starts from, if any."""
        return self.gan.start

    def adapt_prior(self, prior: Prior, victim: LabelVictim, public: Tensor, ctx: Context) -> Prior:
        """Generator `g`, discriminator `d` and students, taught by the victim's labels of fakes.

        Asks about each fake that the discriminator sees after the warm-up, and about the students' images.
        """
        g = self.gan.generator(victim.shape, victim.num_classes, ctx.generator("generator"), prior=prior)
        d = self._discriminator(victim, ctx.generator("discriminator"))
        images, rows = public.to(ctx.device), shuffled_rows(len(public), self.gan.batch, ctx)

        def critic_loss(fake: Tensor, _y: Tensor, step: int) -> Tensor:
            real = images[next(rows)]
            scores, classes = d.both(torch.cat([real, fake]))
            loss = F.softplus(-scores[: len(real)]).mean() + F.softplus(scores[len(real) :]).mean()
            if step < self.warmup:
                return loss
            told = victim.labels(fake)
            return loss + self.class_weight * F.cross_entropy(classes[len(real) :], told)

        def generator_loss(fake: Tensor, y: Tensor, step: int) -> Tensor:
            scores, classes = d.both(fake)
            loss = F.softplus(-scores).mean()
            return loss if step < self.warmup else loss + self.class_weight * F.cross_entropy(classes, y)

        self.gan.train(
            g,
            d,
            victim.num_classes,
            ctx,
            critic_loss=critic_loss,
            generator_loss=generator_loss,
            warmup=self.warmup,
        )
        return {**pack(g=g, d=d), **self._students(g, victim, ctx)}

    def _students(self, g: Generator, victim: LabelVictim, ctx: Context) -> Prior:
        """Weights of students taught by the victim's labels of the GAN's images."""
        if not self.students:
            return {}
        wanted = torch.arange(victim.num_classes).repeat_interleave(self.images_per_class)
        z = torch.randn(len(wanted), g.latent_dim, generator=ctx.generator("images for students"))
        with torch.no_grad():
            parts = [
                g(part.to(ctx.device), y.to(ctx.device)).cpu()
                for part, y in zip(z.split(ctx.max_batch), wanted.split(ctx.max_batch))
            ]
        images = torch.cat(parts)
        told = victim.labels(images)
        ctx.note("classes_kept", float((told == wanted).float().mean()))
        ctx.note("classes_seen", len(told.unique()) / victim.num_classes)
        answers = F.one_hot(told, victim.num_classes).float()
        return train_students(self.students, victim, images, answers, ctx)

    def _discriminator(self, victim: LabelVictim, generator: torch.Generator) -> AuxiliaryDiscriminator:
        channels, size, _ = victim.shape
        spec = NetSpec(
            name="auxiliary_discriminator",
            width=self.gan.critic_width,
            channels=channels,
            size=size,
            num_classes=victim.num_classes,
        )
        with seeded(generator):
            return AuxiliaryDiscriminator(spec)

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert; the search asks the victim nothing, so its effort is one point."""
        g = self.gan.generator(victim.shape, victim.num_classes, torch.Generator())
        d = self._discriminator(victim, torch.Generator())
        unpack(prior, g=g, d=d)
        nets = load_students(self.students, victim, prior, ctx)
        space = ConditionalSpace(g.to(ctx.device), d.to(ctx.device), victim.num_classes)
        got = invert_classes(
            surrogate(nets or [d]),
            space,
            targets,
            ctx,
            search=self.search,
            loss=self.loss,
            views=self.views,
            num_views=self.num_views,
            restarts=self.restarts,
        )
        return Reconstructions.collect(got.images, targets, effort=without_queries(got.effort))


def surrogate(nets: list[Classifier]) -> WhiteBoxVictim:
    """The attacker's own nets as a victim in its hands, whose logits are the mean of theirs."""

    def mean(x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in nets]).mean(0)

    return WhiteBoxVictim(lambda x: mean(x).softmax(1), nets[0], view=mean)
