"""Mutual information regularization: the net says little more about an image than its label.

A Gaussian bottleneck before the head carries a code with noise, and the training pays for every nat that the
code tells beyond the standard normal one. That bounds the mutual information of image and prediction.

Source: Wang et al., AAAI 2021 (arXiv:2009.05241); the variational form for deep nets after Alemi et al., ICLR
2017 (arXiv:1612.00410), as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, fit

from ._bottleneck import Bottleneck, Inference, divergence

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Mid(Defense):
    """Cross-entropy through a noisy code, plus beta times the code's divergence from the standard normal.

    The authors' beta: 0.003 and 0.01 (CelebA, VGG-16), 0.001 (FaceScrub), 0.1 to 0.25 (MNIST). The noise is
    negligible at first (deviation 0.007), until the divergence raises it.

    Args:
        beta: weight of the divergence, >= 0; 0 leaves a bottleneck that nothing narrows, None leaves out
            the bottleneck too and so switches the defense off.
        width: numbers in the code, >= 0; 0 takes half the length of the net's feature.
        inference: noise of the trained net. "sampled" draws it once for each image, "fresh" anew for each
            query, as the authors do, and "mean" leaves it out. Who holds the weights can leave it out.
        recipe: training in the place of the suite's; None takes that. The authors: SGD, learning rate 0.01,
            momentum 0.9, weight decay 1e-4, 50 epochs, batch 64.
    """

    name = "mid"
    aliases = ("vib",)
    acts = "training"
    weak_to = frozenset({"keyed_noise"})
    strength: ClassVar[str] = "beta"
    strength_levels: ClassVar[tuple[object, ...]] = (0.001, 0.003, 0.01, 0.1)
    card = Card(
        title="Improving Robustness to Model Inversion Attacks via Mutual Information Regularization",
        paper="arXiv:2009.05241",
        year=2021,
        code="https://github.com/Jiachen-T-Wang/mi-defense",
        deviations=(
            "An image keeps its noise, since victims answer alike each time; inference = 'fresh' draws it "
            "anew for each query, as the authors do.",
            "It trains with the suite's recipe, as the undefended victim does.",
            "The last weights are kept; the authors keep the epoch with the best accuracy on test images.",
        ),
    )
    neutral: ClassVar[Settings | None] = {"beta": None}

    beta: float | None = 0.003
    width: int = 0
    inference: Inference = "sampled"
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if self.beta is not None and not self.beta >= 0:
            raise ValueError(f"mid: beta must be >= 0 or left out, got {self.beta}.")
        if self.width < 0:
            raise ValueError(f"mid: width must be >= 0, got {self.width}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """What averages the noise of `inference` out; nothing where there is none."""
        if self.beta is None or self.inference == "mean":
            return frozenset()
        return frozenset({"fresh_noise"}) if self.inference == "fresh" else self.weak_to

    def prepare(self, net: Classifier) -> Classifier:
        """The net with the bottleneck before a new head; `train` draws the new layers' weights again."""
        if self.beta is None:
            return net
        width = self.width or max(1, net.feature_dim // 2)
        fixed = torch.Generator().manual_seed(0)
        return Bottleneck(net, width=width, inference=self.inference, generator=fixed)

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained with noise and divergence; see Defense.train.

        Notes on the record: `mid_nats` (mean divergence on private images) and `mid_deviation` (mean
        deviation of the code there).

        Raises:
            TrainingError: the training diverged.
        """
        recipe, data = self.recipe or view.recipe, view.private_train
        if not isinstance(net, Bottleneck):
            return fit(net, data, ctx, recipe=recipe)
        net.renew(ctx.generator("bottleneck"))
        fit(net, data, ctx, recipe=recipe, loss=self.loss(recipe, ctx.generator("code")))
        self._note(net, data.images, ctx)
        return net

    def loss(self, recipe: Recipe, generator: torch.Generator) -> Loss:
        """The loss of a batch (scalar, nats), whose codes take their noise from a CPU generator."""

        def objective(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            if not isinstance(net, Bottleneck):
                raise TypeError("mid trains what its `prepare` returned")
            mean, deviation = net.encode(x)
            noise = torch.randn(mean.shape, generator=generator).to(mean.device)
            plain = F.cross_entropy(
                net.head(mean + deviation * noise), y, label_smoothing=recipe.label_smoothing
            )
            return plain + (self.beta or 0.0) * divergence(mean, deviation).mean()

        return objective

    def _note(self, net: Bottleneck, images: Tensor, ctx: Context) -> None:
        with torch.no_grad():
            codes = [net.encode(x.to(ctx.device)) for x in images.split(ctx.max_batch)]
        mean, deviation = (torch.cat(parts) for parts in zip(*codes))
        ctx.note("mid_nats", float(divergence(mean, deviation).mean()))
        ctx.note("mid_deviation", float(deviation.mean()))
