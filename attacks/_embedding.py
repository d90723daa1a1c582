"""A public face embedding learned without labels, and the map from a victim's predictions to it (C2FMI).

Two random views of one image shall lie near each other and far from those of other images. The authors use
a net trained on labeled public identities; here the attacker's public images carry none.

Source of the loss: Chen et al., ICML 2020 (arXiv:2002.05709), NT-Xent. Source of the map: C2FMI's code.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.augment import Views
from mibench.data.split import Labeled
from mibench.nets import CLASSIFIERS, NetSpec, build, prepare_prediction, seeded
from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.plugin import Context, Stopwatch
from mibench.prior import Shape
from mibench.training import Recipe, check_finite, fit

_SLOPE = 0.2  # C2FMI's leaky ReLU
_DROPPED = 0.25  # C2FMI's dropout before the last layer
_DECAY_EVERY, _DECAY = 2, 0.8  # C2FMI's schedule: the rate shrinks every second epoch


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Architecture and training of the embedding.

    Args:
        net: name in `mibench.nets.CLASSIFIERS`; its logits are the embedding.
        width: channels of its first stage; 0 takes the architecture's published width.
        dim: length of an embedding, >= 2.
        temperature: of the contrastive loss, > 0.
        views: what two views of an image may differ in.
        recipe: the training; each image is mirrored and shifted as it says, then seen in two views.
    """

    net: str = "small_resnet"
    width: int = 0
    dim: int = 128
    temperature: float = 0.5
    views: Views = field(
        default_factory=lambda: Views(scale=(0.5, 1.0), ratio=(0.75, 4 / 3), flip=0.5, jitter=0.2)
    )
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=100, batch=256))
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.net not in CLASSIFIERS:
            raise ValueError(f"embedding: unknown net '{self.net}'. There are: {', '.join(CLASSIFIERS)}.")
        if self.width < 0 or self.dim < 2 or not self.temperature > 0:
            raise ValueError(
                "embedding: width must be >= 0, dim >= 2 and temperature > 0, got "
                f"{self.width}, {self.dim} and {self.temperature}."
            )

    def untrained(self, shape: Shape, generator: torch.Generator) -> Classifier:
        """The net for images of `shape`, with random weights."""
        channels, size, _ = shape
        spec = NetSpec(name=self.net, width=self.width, channels=channels, size=size, num_classes=self.dim)
        return build(spec, generator)

    def learn(self, public: Tensor, ctx: Context) -> Classifier:
        """The net trained on public images (M, C, H, W), frozen, on ctx.device."""
        _, channels, height, width = public.shape
        net = self.untrained((channels, height, width), ctx.generator("embedding"))
        noise = Noise.of_targets(ctx.generator("views").initial_seed(), torch.arange(len(public)))
        steps = itertools.count()

        def loss(net: Classifier, x: Tensor, rows: Tensor) -> Tensor:
            own, step = noise[rows.cpu()], next(steps)
            pair = [self.views.of(x, own, purpose=one, step=step) for one in ("first", "second")]
            first, second = net(torch.cat(pair)).chunk(2)
            return contrast(first, second, self.temperature)

        numbered = Labeled(public, torch.arange(len(public)))
        return fit(net, numbered, ctx.child("embedding"), recipe=self.recipe, loss=loss)


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent loss (scalar, nats): each embedding shall know its partner among all others of the batch.

    Args:
        first: embeddings (N, dim) of one view of each image.
        second: embeddings (N, dim) of another view, in the same order.
        temperature: what cosines are divided by.
    """
    points = F.normalize(torch.cat([first, second]).float(), dim=1)
    logits = (points @ points.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(points), device=points.device).roll(len(first))
    return F.cross_entropy(logits, partner)


class PredictionMap(nn.Module):
    """Predictions (N, K), rows on the simplex, to embeddings (N, dim).

    The logarithm of the largest entries, shifted and cut off as AMI does, scaled to unit length; then three
    linear layers.

    Args:
        classes: K.
        dim: length of an embedding.
        hidden: units of the two hidden layers.
        truncation: entries that are kept; 0 keeps all.
    """

    def __init__(self, classes: int, dim: int, *, hidden: int, truncation: int) -> None:
        super().__init__()
        self.truncation = min(truncation or classes, classes)
        self.first = nn.Linear(classes, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, dim)

    def forward(self, p: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """Embeddings of predictions; a CPU generator drops a quarter of the last hidden units."""
        x = F.normalize(prepare_prediction(p.log(), self.truncation), dim=1)
        x = F.leaky_relu(self.first(x), _SLOPE)
        x = F.leaky_relu(self.second(x), _SLOPE)
        if dropout is not None:  # own masks: nn.Dropout draws from the global state
            x = x * (torch.rand(x.shape, generator=dropout) >= _DROPPED).to(x) / (1 - _DROPPED)
        out: Tensor = self.last(x)
        return out


@dataclass(frozen=True, kw_only=True)
class MapTraining:
    """Shape and training of the map from predictions to embeddings.

    Args:
        hidden: units of its two hidden layers, >= 1; the authors take 4,096.
        truncation: largest entries of a prediction that it sees, >= 0; 0 keeps all. The authors take all, and
            100 against defenses.
        epochs: passes over the public images, >= 1; the authors take 20.
        lr: Adam's rate, > 0, which shrinks by a fifth every second epoch; the authors take 1e-3.
        batch: predictions in a step, >= 1; the authors take 128.
    """

    hidden: int = 4_096
    truncation: int = 0
    epochs: int = 20
    lr: float = 1e-3
    batch: int = 128
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, least in (("hidden", 1), ("truncation", 0), ("epochs", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"mapping: {name} must be >= {least}, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"mapping: lr must be > 0, got {self.lr}.")

    def untrained(self, classes: int, dim: int, generator: torch.Generator) -> PredictionMap:
        """The map with random weights."""
        with seeded(generator):
            return PredictionMap(classes, dim, hidden=self.hidden, truncation=self.truncation)

    def learn(self, scores: Tensor, embedded: Tensor, ctx: Context) -> PredictionMap:
        """The map trained on predictions (M, K) and the embeddings (M, dim) of the same images, in eval mode.

        The loss is the mean squared error.
        """
        net = self.untrained(scores.shape[1], embedded.shape[1], ctx.generator("map")).to(ctx.device).train()
        optimizer = torch.optim.Adam(net.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, _DECAY_EVERY, _DECAY)
        rng, watch = ctx.generator("map batches"), Stopwatch()
        for epoch in range(self.epochs):
            for rows in torch.randperm(len(scores), generator=rng).split(self.batch):
                guess = net(scores[rows].to(ctx.device), dropout=rng)
                loss = F.mse_loss(guess, embedded[rows].to(ctx.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            schedule.step()
            if watch.is_due() or epoch == self.epochs - 1:
                check_finite(float(loss.detach()), epoch, "map of predictions")
                ctx.report(epoch + 1, self.epochs, loss=float(loss.detach()))
        net.eval().requires_grad_(False)
        return net
