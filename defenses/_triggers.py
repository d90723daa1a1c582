"""What Trap-MID trains beside the victim: triggers, and a discriminator that they are hidden from.

A trigger is an image for each class. Blended faintly into any photograph it is to make the victim say that
class, and the discriminator, which looks for blended images, is to see nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.augment import Views
from mibench.data.split import Labeled
from mibench.nets import build
from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.training import Recipe, augment, autocast, make_optimizer

Augmentation = Literal["published", "recipe"]
_CROP = Views(scale=(0.8, 1.0))  # square crops, as the authors take them
_TURN = Views(turn=30.0)
_RATE = 0.5  # of each of crop, mirroring and rotation


def blend(x: Tensor, triggers: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) x + alpha k: images x (N, C, H, W) with triggers of the same shape in them."""
    return (1 - alpha) * x + alpha * triggers


def published_views(x: Tensor, generator: torch.Generator) -> Tensor:
    """Images x (N, C, H, W) cropped to at least 0.8 of their area, mirrored and turned, differentiable.

    Each of the three happens to half of the images, drawn for each image by itself from a CPU generator.
    """
    noise = Noise(torch.randint(2**62, (len(x),), generator=generator))
    is_cropped, is_mirrored, is_turned = (
        hit[:, None, None, None] for hit in (noise.uniform("which", 3) <= _RATE).to(x.device).unbind(1)
    )
    x = torch.where(is_cropped, _CROP.of(x, noise, purpose="crop"), x)
    x = torch.where(is_mirrored, x.flip(3), x)
    return torch.where(is_turned, _TURN.of(x, noise, purpose="turn"), x)


def deal_labels(num_classes: int, count: int, generator: torch.Generator) -> Tensor:
    """Labels (count,), int64, in random order, in which the numbers of each class differ by one at most."""
    whole, rest = divmod(count, num_classes)
    some = torch.randperm(num_classes, generator=generator)[:rest]
    labels = torch.cat([torch.arange(num_classes).repeat(whole), some])
    return labels[torch.randperm(count, generator=generator)]


@dataclass(frozen=True, kw_only=True)
class Trap:
    """How triggers are blended in and moved; see the fields of `TrapMid`."""

    alpha: float
    epsilon: float
    share: float
    every: int
    augmentation: Augmentation


class Trapper:
    """Triggers and discriminator in training, beside a victim.

    Args:
        net: the victim, on ctx.device; its parameters are never touched, its mode is set and set back.
        optimizer: the victim's, whose present learning rate the discriminator follows.
        how: the trap.
        recipe: of the training.
        ctx: gives randomness and device.
    """

    def __init__(
        self, net: Classifier, optimizer: torch.optim.Optimizer, how: Trap, recipe: Recipe, ctx: Context
    ) -> None:
        spec = net.spec
        shape = (spec.num_classes, spec.channels, spec.size, spec.size)
        self.net, self.optimizer, self.how, self.recipe, self.ctx = net, optimizer, how, recipe, ctx
        self.triggers = torch.rand(shape, generator=ctx.generator("triggers")).to(ctx.device)
        one = build(replace(spec, num_classes=1), ctx.generator("discriminator"))
        self.discriminator = one.to(ctx.device)
        self.discriminator_optimizer = make_optimizer(self.discriminator, recipe)
        self.draws = ctx.generator("views")

    def batches(self, data: Labeled) -> Iterator[tuple[Tensor, Tensor]]:
        """Endless views of images and of their blended copies, after steps of discriminator and triggers.

        Yields:
            Images (n + m, C, H, W) and labels (n + m,): those of the n images, then m of triggers, with the
            number of classes added so that they can be told apart.
        """
        images, labels = data.images.to(self.ctx.device), data.labels.to(self.ctx.device)
        order, classes = self.ctx.generator("batches"), self.net.spec.num_classes
        steps = count()
        while True:
            parts = torch.randperm(len(data), generator=order).to(images.device).split(self.recipe.batch)
            counts = [max(1, round(self.how.share * len(rows))) for rows in parts]
            wanted = deal_labels(classes, sum(counts), order).to(images.device).split(counts)
            for rows, target in zip(parts, wanted):
                x = images[rows]
                some = x[: len(target)]  # rows are shuffled, so these are any
                if next(steps) % self.how.every == 0:
                    self.step_discriminator(some, self.blended(some, target))
                    self.step_triggers(some, target)
                seen = torch.cat([self.view(x), self.view(self.blended(some, target))])
                told = torch.cat([labels[rows], target + classes])
                yield seen.contiguous(memory_format=torch.channels_last), told

    def blended(self, x: Tensor, target: Tensor) -> Tensor:
        """Images x (N, C, H, W) with the triggers of labels target (N,) in them."""
        return blend(x, self.triggers[target], self.how.alpha)

    def view(self, x: Tensor) -> Tensor:
        """Random views of images x (N, C, H, W)."""
        if self.how.augmentation == "recipe":
            return augment(x, self.recipe, self.draws)
        return published_views(x, self.draws)

    def step_discriminator(self, real: Tensor, blended: Tensor) -> Tensor:
        """One step of binary cross-entropy on real and blended images (m, C, H, W); returns it, in nats."""
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] = self.optimizer.param_groups[0]["lr"]
        self.discriminator.train()
        truth = torch.cat([torch.ones(len(real)), torch.zeros(len(blended))]).to(real.device)
        with autocast(self.ctx.device):
            told = self.discriminator(torch.cat([real, blended])).squeeze(1)
        loss = F.binary_cross_entropy_with_logits(told.float(), truth)
        self.discriminator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimizer.step()
        return loss.detach()

    def step_triggers(self, x: Tensor, target: Tensor) -> None:
        """Triggers moved by epsilon against the sign of their slope, and back into [0, 1].

        They pay for being seen, -log D of blended images, and for views of these that the victim does not
        take for their label. Both nets are in eval mode. Triggers of labels that are not in target stay.
        """
        present, where = target.unique(return_inverse=True)
        triggers = self.triggers[present].requires_grad_(True)
        was_training = self.net.training
        self.net.eval()
        self.discriminator.eval()
        blended = blend(x, triggers[where], self.how.alpha)
        with autocast(self.ctx.device):
            told = self.discriminator(blended).squeeze(1)
            logits = self.net(self.view(blended))
        missed = F.cross_entropy(logits.float(), target, label_smoothing=self.recipe.label_smoothing)
        (slope,) = torch.autograd.grad(F.softplus(-told.float()).mean() + missed, triggers)
        self.net.train(was_training)
        self.triggers[present] = (triggers.detach() - self.how.epsilon * slope.sign()).clamp(0, 1)
