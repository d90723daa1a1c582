"""Bilateral dependency optimization: hidden layers that depend little on the image and much on the label.

The training loss adds, for every hidden layer Z, lambda_x d(X, Z) - lambda_y d(Z, Y). The first term takes
from the layers what would redraw an image, the second pays back the accuracy that this costs.

A trap in the authors' setting: with sigma = 5 and ridge = 1e-5 all entries of a Gaussian Gram matrix lie near
0.997, and the normalization turns what little variation is left into a count of directions. For a batch of 64
d(X, X) is about 44, d(X, noise) about 50 and d(X, constant) 0, so the term measures no dependence: it rewards
layers that do not vary. Who wants a dependence takes sigma = "median" with a ridge near 1e-2, or measure =
"plain_hsic". The record holds a calibrated measure whatever was trained with.

Source: Peng et al., KDD 2022 (arXiv:2206.05483) and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, augment, fit

from ._dependence import Kernel, MatrixNorm, coco, excess_alignment, gram, normalized_hsic, plain_hsic
from ._identity_batches import identity_batches

_DIAGNOSTIC_IMAGES = 128  # a batch for the notes alone


@dataclass(frozen=True, kw_only=True)
class Bido(Defense):
    """Cross-entropy plus penalties on how hidden layers depend on image and label.

    The authors' weights: HSIC 0.05 and 0.5 (CelebA, VGG-16; 0.1 and 2 for ResNet-34), COCO 1 and 50 (MNIST).
    Later works scale both by 0.1 or 0.01 for other nets and images of 224 px.

    Args:
        measure: "hsic", normalized; "coco"; or "plain_hsic", which does not saturate and is small, so it
            wants far larger weights.
        lambda_x: weight of the dependence between image and layer, >= 0.
        lambda_y: weight of the dependence between layer and label, >= 0; alone it costs accuracy too.
        scale: factor on both weights, >= 0; 0 switches the defense off.
        kernel_x: kernel of the images.
        kernel_z: kernel of the layers.
        kernel_y: kernel of the one-hot labels; the linear one tells whether two labels are the same.
        sigma: bandwidth of Gaussian kernels for rows divided by the root of their length, > 0; or "median",
            the median distance in the batch.
        ridge: regularizer of the normalization in units of the batch's size, > 0.
        coco_norm: "frobenius", as the authors compute it, or "spectral", as COCO is defined.
        layers: which of the net's hidden blocks are penalized, by index; None takes all.
        per_identity: images of each person in a batch, >= 0; without several of them the labels' Gram
            matrix is nearly diagonal. 0 shuffles all images. The suite's batch, 64 for the authors, stays.
        recipe: training in the place of the suite's; None takes that. The authors: Adam, 1e-4, 50 epochs.
    """

    name = "bido"
    acts = "training"
    strength: ClassVar[str] = "scale"
    card = Card(
        title="Bilateral Dependency Optimization: Defending Against Model-inversion Attacks",
        paper="arXiv:2206.05483",
        year=2022,
        code="https://github.com/AlanPeng0897/Defend_MI",
        deviations=(
            "It trains with the suite's recipe and from random weights, as the undefended victim does.",
            "The last weights are kept; the authors keep the epoch with the best accuracy on test images.",
            "The images' Gram matrix is that of images in [0, 1].",
            "sigma = 'median' takes the median distance; the authors' rule, which their scripts never reach, "
            "squares the median squared distance and so makes the kernel constant.",
        ),
    )
    toy: ClassVar[Settings] = {"lambda_x": 0.01, "lambda_y": 0.1}
    neutral: ClassVar[Settings | None] = {"scale": 0.0}

    measure: Literal["hsic", "coco", "plain_hsic"] = "hsic"
    lambda_x: float = 0.05
    lambda_y: float = 0.5
    scale: float = 1.0
    kernel_x: Kernel = "gaussian"
    kernel_z: Kernel = "gaussian"
    kernel_y: Kernel = "linear"
    sigma: float | Literal["median"] = 5.0
    ridge: float = 1e-5
    coco_norm: MatrixNorm = "frobenius"
    layers: tuple[int, ...] | None = None
    per_identity: int = 4
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        for name in ("lambda_x", "lambda_y", "scale", "per_identity"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"bido: {name} must be >= 0, got {getattr(self, name)}.")
        if self.sigma != "median" and not self.sigma > 0:
            raise ValueError(f"bido: sigma must be > 0 or 'median', got {self.sigma}.")
        if not self.ridge > 0:
            raise ValueError(f"bido: ridge must be > 0, got {self.ridge}.")
        if self.layers is not None and not self.layers:
            raise ValueError("bido: layers is empty. Name a block, or leave it out for all of them.")

    @property
    def is_off(self) -> bool:
        """Whether both penalties weigh nothing."""
        return self.scale * max(self.lambda_x, self.lambda_y) == 0

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained with both penalties; see Defense.train.

        Notes on the record, means over the penalized layers on private images: `bido_alignment_x` and
        `bido_alignment_y`, the alignment of layer and image or label above chance, in [-1, 1].

        Raises:
            ValueError: the net has no block of a given index, or a batch holds no `per_identity` images.
            TrainingError: the training diverged.
        """
        recipe = self.recipe or view.recipe
        data = view.private_train
        if self.is_off:
            return fit(net, data, ctx, recipe=recipe)
        batches = self._batches(data, recipe, ctx) if self.per_identity else None
        fit(net, data, ctx, recipe=recipe, loss=self._loss(recipe), batches=batches)
        self._note(net, data, ctx)
        return net

    def penalty(self, x: Tensor, blocks: tuple[Tensor, ...], y: Tensor, num_classes: int) -> Tensor:
        """lambda_x d(X, Z) - lambda_y d(Z, Y), summed over the layers and scaled (scalar, float32).

        Args:
            x: images (m, C, H, W) in [0, 1].
            blocks: all hidden blocks of the net, one entry for each image.
            y: labels (m,), int64.
            num_classes: number of identities.
        """
        with torch.autocast(x.device.type, enabled=False):  # distances of half precision are noise
            gram_x = gram(x, self.kernel_x, self.sigma)
            gram_y = gram(F.one_hot(y, num_classes), self.kernel_y, self.sigma)
            terms = []
            for hidden in self._chosen(blocks):
                gram_z = gram(hidden, self.kernel_z, self.sigma)
                about_x, about_y = self.dependence(gram_x, gram_z), self.dependence(gram_z, gram_y)
                terms.append(self.lambda_x * about_x - self.lambda_y * about_y)
            return (self.scale * torch.stack(terms).sum()).float()

    def dependence(self, gram_a: Tensor, gram_b: Tensor) -> Tensor:
        """The measure d (scalar) between two Gram matrices (m, m), float64."""
        if self.measure == "hsic":
            return normalized_hsic(gram_a, gram_b, ridge=self.ridge)
        if self.measure == "coco":
            return coco(gram_a, gram_b, norm=self.coco_norm)
        return plain_hsic(gram_a, gram_b)

    def _loss(self, recipe: Recipe) -> Callable[[Classifier, Tensor, Tensor], Tensor]:
        def loss(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            blocks = net.blocks(x)
            logits = net.head(blocks[-1])
            plain = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            return plain + self.penalty(x, blocks, y, net.spec.num_classes)

        return loss

    def _chosen(self, blocks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.layers is None:
            return blocks
        for index in self.layers:
            if not -len(blocks) <= index < len(blocks):
                raise ValueError(
                    f"bido: the net has {len(blocks)} blocks, so none of index {index}. Change layers."
                )
        return tuple(blocks[index] for index in self.layers)

    def _batches(self, data: Labeled, recipe: Recipe, ctx: Context) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches by identity on the device."""
        generator = ctx.generator("batches")
        images, labels = data.images.to(ctx.device), data.labels.to(ctx.device)
        dealt = identity_batches(
            data.labels, batch=recipe.batch, per_identity=self.per_identity, generator=generator
        )
        for rows in dealt:
            own = rows.to(ctx.device)
            x = augment(images[own], recipe, generator)
            yield x.contiguous(memory_format=torch.channels_last), labels[own]

    def _note(self, net: Classifier, data: Labeled, ctx: Context) -> None:
        """Put on record what the layers tell of image and label, by a measure that chance leaves at 0."""
        generator = ctx.generator("diagnostic")
        per_identity = max(2, self.per_identity)
        rows = next(
            identity_batches(
                data.labels, batch=_DIAGNOSTIC_IMAGES, per_identity=per_identity, generator=generator
            )
        )
        x, y = data.images[rows].to(ctx.device), data.labels[rows].to(ctx.device)
        gram_x = gram(x, "gaussian", "median")
        gram_y = gram(F.one_hot(y, net.spec.num_classes), "linear", "median")
        with torch.no_grad():
            grams = [gram(hidden, "gaussian", "median") for hidden in self._chosen(net.blocks(x))]
        for name, other in (("x", gram_x), ("y", gram_y)):
            found = [excess_alignment(one, other, generator) for one in grams]
            ctx.note(f"bido_alignment_{name}", sum(found) / len(found))
