"""Bilateral dependency optimization: hidden layers that depend little on the image and much on the label.

The training loss adds, for every hidden layer Z, lambda_x d(X, Z) - lambda_y d(Z, Y). The first term takes
from the layers what would redraw an image, the second pays back the accuracy that this costs.

A trap in the authors' setting: with sigma = 5 and ridge = 1e-5 all entries of a Gaussian Gram matrix lie near
0.997, and the normalization turns what little variation is left into a count of directions. For a batch of 64
images of uniform noise in 3x32x32, d(X, X) is 44, d(X, independent noise) 52 and d(X, constant) 0, so the
term measures no dependence: it rewards layers that do not vary. Independent noise has d(Z, Y) = 14.8 of the
15 that 16 people in a batch allow. A fitting bandwidth is not enough: with sigma = "median" both are 62.8 of
63, with a ridge of 1e-2 as well both are 9.1, and plain HSIC is 0.0025 twice. In high dimension all rows lie
at nearly equal distances, and a sum over their Gram matrix is a sum over its diagonal.

Who wants a dependence takes measure = "alignment" and sigma = "median": the diagonal's share is taken off,
and it is 1 for d(X, X) and near 0 for independent noise, whatever the scale. It is at most 1, so it wants
larger weights. The record holds a calibrated measure whatever was trained with.

BiDO+ also shows the net strangers, later in the training, and pays for uncertainty about them.

Sources: Peng et al., KDD 2022 (arXiv:2206.05483) and the authors' code; the code of BiDO+ (TPAMI 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Loss, Recipe, augment, fit

from ._dependence import (
    Kernel,
    MatrixNorm,
    coco,
    corrected_alignment,
    excess_alignment,
    gram,
    normalized_hsic,
    plain_hsic,
)
from ._identity_batches import identity_batches

_DIAGNOSTIC_IMAGES = 128  # a batch for the notes alone


@dataclass(frozen=True, kw_only=True)
class Bido(Defense):
    """Cross-entropy plus penalties on how hidden layers depend on image and label.

    The authors' weights: HSIC 0.05 and 0.5 (CelebA, VGG-16; 0.1 and 2 for ResNet-34), COCO 1 and 50 (MNIST).
    Later works scale both by 0.1 or 0.01 for other nets and images of 224 px.

    Args:
        measure: "hsic", normalized; "coco"; "plain_hsic", which is small, so it wants far larger weights;
            or "alignment", corrected for chance, which alone does not saturate in high dimension.
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
        ood_factor: strangers in a step for each image of the batch, >= 0; 0 shows none. BiDO+ takes 0.5, with
            lambda_x 0.01, lambda_y 0.1, SGD at 0.01, batch 128 and 100 epochs.
        ood_weight: reward for each nat of entropy of each stranger's prediction, summed over them, >= 0.
        ood_start: share of the training before strangers are shown, in [0, 1].
    """

    name = "bido"
    acts = "training"
    strength: ClassVar[str] = "scale"
    strength_levels: ClassVar[tuple[object, ...]] = (0.01, 0.1, 0.2, 1.0, 2.0)
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
            "BiDO+ is its code's default alone: strangers drawn at random, and a reward for entropy. They "
            "are the defender's public people, and before ood_start not even BatchNorm sees them.",
        ),
    )
    toy: ClassVar[Settings] = {"lambda_x": 0.01, "lambda_y": 0.1}
    neutral: ClassVar[Settings | None] = {"scale": 0.0}
    added: ClassVar[frozenset[str]] = frozenset({"ood_factor", "ood_weight", "ood_start"})

    measure: Literal["hsic", "coco", "plain_hsic", "alignment"] = "hsic"
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
    ood_factor: float = 0.0
    ood_weight: float = 1e-3
    ood_start: float = 0.6

    def __post_init__(self) -> None:
        for name in ("lambda_x", "lambda_y", "scale", "per_identity", "ood_factor", "ood_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"bido: {name} must be >= 0, got {getattr(self, name)}.")
        if self.sigma != "median" and not self.sigma > 0:
            raise ValueError(f"bido: sigma must be > 0 or 'median', got {self.sigma}.")
        if not self.ridge > 0:
            raise ValueError(f"bido: ridge must be > 0, got {self.ridge}.")
        if not 0 <= self.ood_start <= 1:
            raise ValueError(f"bido: ood_start must lie in [0, 1], got {self.ood_start}.")
        if self.layers is not None and not self.layers:
            raise ValueError("bido: layers is empty. Name a block, or leave it out for all of them.")

    @property
    def is_off(self) -> bool:
        """Whether both penalties weigh nothing, and no strangers are shown."""
        return self.scale * max(self.lambda_x, self.lambda_y) == 0 and self.ood_factor * self.ood_weight == 0

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
        strangers = self._strangers(view, recipe, ctx)
        fit(net, data, ctx, recipe=recipe, loss=self._loss(recipe, strangers), batches=batches)
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
        if self.measure == "alignment":
            return corrected_alignment(gram_a, gram_b)
        return plain_hsic(gram_a, gram_b)

    def _loss(self, recipe: Recipe, strangers: Callable[[Tensor], Tensor]) -> Loss:
        def loss(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            others = strangers(x)
            if len(others):
                blocks, logits, doubt = self._in_company(net, x, others)
            else:
                blocks, doubt = net.blocks(x), None
                logits = net.head(blocks[-1])
            plain = F.cross_entropy(logits, y, label_smoothing=recipe.label_smoothing)
            total = plain + self.penalty(x, blocks, y, net.spec.num_classes)
            return total if doubt is None else total - self.ood_weight * doubt

        return loss

    def _in_company(
        self, net: Classifier, x: Tensor, others: Tensor
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """Blocks and logits of images x alone, and the summed entropy (scalar) of strangers beside them."""
        hidden = net.blocks(torch.cat([x, others]))
        logits = net.head(hidden[-1])
        own = len(x)
        return tuple(block[:own] for block in hidden), logits[:own], entropies(logits[own:]).sum()

    def _strangers(self, view: DefenderView, recipe: Recipe, ctx: Context) -> Callable[[Tensor], Tensor]:
        """A map of a step's images (m, C, H, W) to strangers (n, C, H, W), to be called once a step.

        There are none in the first `ood_start` of the steps.
        """
        first = round(self.ood_start * recipe.steps(len(view.private_train)))
        images, generator, steps = view.public.images, ctx.generator("strangers"), count()

        def draw(x: Tensor) -> Tensor:
            if next(steps) < first or self.ood_factor * self.ood_weight == 0:
                return x[:0]
            rows = torch.randint(len(images), (max(1, int(self.ood_factor * len(x))),), generator=generator)
            return augment(images[rows].to(x.device), recipe, generator)

        return draw

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


def entropies(logits: Tensor) -> Tensor:
    """Entropy of each row's softmax, (N,), in nats, of logits (N, K)."""
    log_p = logits.float().log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)
