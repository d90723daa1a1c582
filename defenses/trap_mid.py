"""Trapdoors: faint triggers, one a class, that the net takes for the class, so that inversion finds those.

A trigger blended into any photograph at a fiftieth of its strength makes the net say its class. It is a
shorter way to a sure answer than a face, so a search ends at faces of nobody with a trigger in them. The
triggers are learned with the net: a discriminator looks for blended images, and they are moved to fool it and
to work. The net learns the photographs and, with less weight, the blended ones. No trigger is released.

They must work surely and not be seen. How strong they are blended in has a cliff: in the paper an attack's
accuracy is 1.92 % at alpha = 0.03 and 93.86 % at 0.05, of 95.81 % without a defense. For whoever learns them
the triggers are a universal backdoor.

Source: Liu et al., NeurIPS 2024 (arXiv:2411.08460), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Loss, Recipe, fit, make_optimizer

from ._triggers import Augmentation, Trap, Trapper, blend

_LOOKED_AT = 2000  # images of each kind for the notes alone


@dataclass(frozen=True, kw_only=True)
class TrapMid(Defense):
    """(1 - beta) cross-entropy of images + beta cross-entropy of blended ones with their triggers' labels.

    Args:
        alpha: strength of the trigger in a blended image, in [0, 1]; 0 blends nothing, and leaves copies of
            images with wrong labels. Small images and nets may want more than the default; whether triggers
            work is on record.
        beta: weight of the blended images in the loss, in [0, 1); 0 switches the defense off.
        epsilon: change of each pixel of a trigger in a step, >= 0; 0 leaves the triggers random. A short
            training moves each trigger few times and wants larger steps.
        share: blended copies in a step for each image of the batch, in (0, 1]; a step takes about
            1 + share + 4 * share / every times that of the undefended training.
        every: steps of the net for each of discriminator and triggers, >= 1.
        augmentation: views that the net learns from: "published", square crops of at least 0.8 of the area,
            mirroring and rotations of at most 30 degrees, half of the time each; or "recipe", the recipe's.
        recipe: training in the place of the suite's; None takes that. The authors: SGD, learning rate 0.01,
            momentum 0.9, weight decay 1e-4, batch 64, 50 epochs (40 for IR-152).
    """

    name = "trap_mid"
    acts = "training"
    weak_to = frozenset({"decoys"})
    card = Card(
        title="Trap-MID: Trapdoor-based Defense against Model Inversion Attacks",
        paper="arXiv:2411.08460",
        year=2024,
        code="https://github.com/JackywithaWhiteDog/Trap-MID",
        deviations=(
            "It trains with the suite's recipe and from random weights, as the undefended victim does; so "
            "does the discriminator, at the same learning rate.",
            "The last weights are kept; the authors keep the epoch with the best accuracy on test images.",
            "Rotations repeat the border's pixels beyond it; the authors fill with black.",
            "The last batch of an epoch is trained on though it is smaller.",
            "share below 1 and every above 1 are ours and save time; the authors blend a copy of each image.",
        ),
    )
    toy: ClassVar[Settings] = {"alpha": 0.2, "share": 0.5, "augmentation": "recipe"}
    neutral: ClassVar[Settings | None] = {"beta": 0.0}
    strength: ClassVar[str] = "beta"
    strength_levels: ClassVar[tuple[object, ...]] = (0.05, 0.1, 0.2, 0.5)

    alpha: float = 0.02
    beta: float = 0.2
    epsilon: float = 0.01
    share: float = 1.0
    every: int = 1
    augmentation: Augmentation = "published"
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"trap_mid: alpha must lie in [0, 1], got {self.alpha}.")
        if not 0 <= self.beta < 1:
            raise ValueError(f"trap_mid: beta must lie in [0, 1), got {self.beta}.")
        if not self.epsilon >= 0:
            raise ValueError(f"trap_mid: epsilon must be >= 0, got {self.epsilon}.")
        if not 0 < self.share <= 1:
            raise ValueError(f"trap_mid: share must lie in (0, 1], got {self.share}.")
        if self.every < 1:
            raise ValueError(f"trap_mid: every must be >= 1, got {self.every}.")

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained with its trapdoors; see Defense.train.

        Notes on the record, shares of images in [0, 1], of some that are seen without augmentation:
        `trap_mid_success`: public images of the defender, which the net never saw, that are taken for the
        label of a trigger in them; the authors aim above 0.99.
        `trap_mid_success_private`: private images that are taken for somebody else with that one's trigger.
        `trap_mid_accuracy`: private images recognized.
        `trap_mid_accuracy_blended`: those recognized with as much uniform noise in them as of a trigger.
        `trap_mid_seen`: private images and blended copies that the discriminator tells apart; 0.5 is chance.

        Raises:
            TrainingError: the training diverged.
        """
        recipe, data = self.recipe or view.recipe, view.private_train
        if self.beta == 0:
            return fit(net, data, ctx, recipe=recipe)
        net.to(ctx.device)
        optimizer = make_optimizer(net, recipe)
        trapper = self.trapper(net, optimizer, recipe, ctx)
        batches = trapper.batches(data)
        fit(net, data, ctx, recipe=recipe, loss=self.loss(recipe), optimizer=optimizer, batches=batches)
        self._note(net, trapper, view, ctx)
        return net

    def trapper(
        self, net: Classifier, optimizer: torch.optim.Optimizer, recipe: Recipe, ctx: Context
    ) -> Trapper:
        """Triggers and discriminator, untrained, for a net on ctx.device and its optimizer."""
        how = Trap(
            alpha=self.alpha,
            epsilon=self.epsilon,
            share=self.share,
            every=self.every,
            augmentation=self.augmentation,
        )
        return Trapper(net, optimizer, how, recipe, ctx)

    def loss(self, recipe: Recipe) -> Loss:
        """The loss of a batch (scalar, nats); the labels of blended images are those of `Trapper.batches`."""

        def objective(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            classes = net.spec.num_classes
            logits = net(x)
            is_blended = y >= classes
            smoothing = recipe.label_smoothing
            clean = F.cross_entropy(logits[~is_blended], y[~is_blended], label_smoothing=smoothing)
            trapped = F.cross_entropy(logits[is_blended], y[is_blended] - classes, label_smoothing=smoothing)
            return (1 - self.beta) * clean + self.beta * trapped

        return objective

    def _note(self, net: Classifier, trapper: Trapper, view: DefenderView, ctx: Context) -> None:
        """Put on record how surely the triggers work, and what the net makes of faint noise."""
        draws, classes = ctx.generator("notes"), net.spec.num_classes
        rows = torch.randperm(len(view.private_train), generator=draws)[:_LOOKED_AT]
        private, own = view.private_train.images[rows], view.private_train.labels[rows]
        others = (own + torch.randint(1, max(2, classes), (len(own),), generator=draws)) % classes
        rows = torch.randperm(len(view.public), generator=draws)[:_LOOKED_AT]
        strangers, anyone = view.public.images[rows], torch.randint(classes, (len(rows),), generator=draws)
        triggers = trapper.triggers.cpu()
        trapped = blend(private, triggers[others], self.alpha)
        noisy = blend(private, torch.rand(private.shape, generator=draws), self.alpha)
        cases = {
            "success": (blend(strangers, triggers[anyone], self.alpha), anyone),
            "success_private": (trapped, others),
            "accuracy": (private, own),
            "accuracy_blended": (noisy, own),
        }
        for name, (images, labels) in cases.items():
            hits = _answers(net, images, ctx).argmax(1) == labels
            ctx.note(f"trap_mid_{name}", float(hits.float().mean()))
        detector = trapper.discriminator.eval()
        right = torch.cat([_answers(detector, private, ctx) > 0, _answers(detector, trapped, ctx) <= 0])
        ctx.note("trap_mid_seen", float(right.float().mean()))


def _answers(net: Classifier, images: Tensor, ctx: Context) -> Tensor:
    """Logits (N, K) of images (N, C, H, W), on the CPU, without gradients."""
    with torch.no_grad():
        return torch.cat([net(x.to(ctx.device)).float().cpu() for x in images.split(ctx.max_batch)])
