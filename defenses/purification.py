"""Purified vectors: an autoencoder redraws them so that an inversion network of the defender's errs.

The defender trains a network that draws images from the victim's answers, holds it fixed, and trains a small
autoencoder of logits to stay near them, to keep the predicted label, and to mislead that network. Every
answer passes through it. Labels are not promised to stay: how many change is on record. `purifier`, by the
same group in 2023, is another method.

Source: Yang et al., arXiv:2005.03915 (2020), of which the abstract could be read, and a re-implementation in
a public port of the defense of Wen et al. (IEEE CSR 2021), whose sizes, losses and training are the defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.precision import fused
from mibench.training import check_finite, mean_loss
from mibench.victim import freeze

from ._simplex import note_distortion
from ._surrogate import Surrogate, log_answers

_BETAS = (0.5, 0.999)  # Adam of the re-implementation
Draw = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Purification(Defense):
    """An autoencoder between the logits and the release, trained against a fixed inversion network.

    It minimizes distance_weight * mean squared change - inversion_weight * mean squared pixel error of what
    the inversion network draws + label_weight * cross-entropy with the predicted label.

    Args:
        distance_weight: of the change of a vector, >= 0.
        inversion_weight: of the inversion network's error, which is driven up, >= 0; 0 trains without one.
        label_weight: of the cross-entropy, in nats, with the label that the victim predicts, >= 0.
        space: what the autoencoder reads, and where its change is measured: "logits", as in the
            re-implementation, or "probabilities", as the abstract tells.
        share: of the purified vector in what is released, in [0, 1]; 0 switches the defense off.
        reference: whose vectors it learns: of the defender's "public" people, or of the "private" training
            images, which the victim is surer of.
        hidden: units of the hidden layer, >= 1.
        surrogate: the defender's inversion network.
        epochs: passes over the vectors, >= 1.
        batch: vectors in a step, >= 2.
        lr: learning rate of Adam, > 0.
    """

    name = "purification"
    acts = "output"
    card = Card(
        title="Defending Model Inversion and Membership Inference Attacks via Prediction Purification",
        paper="arXiv:2005.03915",
        year=2020,
        deviations=(
            "The abstract and another's re-implementation alone could be read; sizes, losses and weights "
            "are the latter's.",
            "The inversion network is trained once and held fixed, as in the re-implementation; the abstract "
            "speaks of adversarial training against it.",
            "The reference vectors are those of the defender's public people, and their label is the one "
            "that the victim predicts.",
            "The batch, and the training of the inversion network, are those of our other defenses.",
        ),
    )

    toy: ClassVar[Settings] = {
        "epochs": 60,
        "batch": 16,
        "lr": 5e-3,
        "reference": "private",
        "surrogate": {"width": 8, "epochs": 2, "batch": 16},
    }
    neutral: ClassVar[Settings | None] = {"share": 0.0}
    strength: ClassVar[str] = "inversion_weight"
    strength_levels: ClassVar[tuple[object, ...]] = (0.0, 1.0, 10.0, 100.0)

    distance_weight: float = 1.0
    inversion_weight: float = 1.0
    label_weight: float = 1.0
    space: Literal["logits", "probabilities"] = "logits"
    share: float = 1.0
    reference: Literal["public", "private"] = "public"
    hidden: int = 100
    surrogate: Surrogate = field(default_factory=Surrogate)
    epochs: int = 20
    batch: int = 128
    lr: float = 5e-4

    def __post_init__(self) -> None:
        for name, least in (("hidden", 1), ("epochs", 1), ("batch", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"purification: {name} must be >= {least}, got {getattr(self, name)}.")
        for name in ("distance_weight", "inversion_weight", "label_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"purification: {name} must be >= 0, got {getattr(self, name)}.")
        if not 0 <= self.share <= 1:
            raise ValueError(f"purification: share must lie in [0, 1], got {self.share}.")
        if not self.lr > 0:
            raise ValueError(f"purification: lr must be > 0, got {self.lr}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Weights of the autoencoder; see Defense.

        Notes on the record: `purification_error`, the last mean squared pixel error of the inversion network;
        `purification_loss`, the mean loss of the last epoch; the distortion and the share of changed labels
        on public images, see `note_distortion`; `purification_flipped_private`, that share on private ones.

        Raises:
            TrainingError: a training diverged.
        """
        if self.share == 0:
            return {}
        data = view.public if self.reference == "public" else view.private_train
        logits = _logits(net, data.images, ctx)
        rewriter = self._build(net.spec.num_classes, ctx)
        draw = self._drawer(net, data.images, ctx) if self.inversion_weight > 0 else None
        self._fit(rewriter, logits, data.images, draw, ctx)
        state = {key: value.cpu() for key, value in rewriter.state_dict().items()}
        note_distortion(self, net, state, view, ctx)
        own = _logits(net, view.private_train.images, ctx)
        with torch.no_grad():
            changed = self.purify(rewriter, own).argmax(1) != own.argmax(1)
        ctx.note("purification_flipped_private", float(changed.float().mean()))
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with purified release; gradients pass through the autoencoder; see Defense."""
        if self.share == 0:
            return Released(net)
        rewriter = self._build(net.spec.num_classes, ctx)
        rewriter.load_state_dict(dict(state))
        freeze(rewriter)
        return _Purified(net, rewriter, self)

    def purify(self, rewriter: nn.Module, logits: Tensor) -> Tensor:
        """Probabilities (N, K) released for logits (N, K); differentiable."""
        drawn = rewriter(self.read(logits)).softmax(1)
        return drawn if self.share == 1 else torch.lerp(logits.softmax(1), drawn, self.share)

    def read(self, logits: Tensor) -> Tensor:
        """What the autoencoder reads of logits (N, K): those, or their softmax."""
        return logits if self.space == "logits" else logits.softmax(1)

    def loss(self, drawn: Tensor, logits: Tensor, error: Tensor | float) -> Tensor:
        """The loss of a batch (scalar).

        Args:
            drawn: (N, K), logits from the autoencoder.
            logits: (N, K), of the victim.
            error: mean squared pixel error (scalar) of the inversion network on the drawn ones.
        """
        change = F.mse_loss(self.read(drawn), self.read(logits))
        label = F.cross_entropy(drawn, logits.argmax(1))
        return self.distance_weight * change - self.inversion_weight * error + self.label_weight * label

    def _build(self, num_classes: int, ctx: Context) -> nn.Module:
        with seeded(ctx.generator("rewriter")):
            rewriter = nn.Sequential(
                nn.Linear(num_classes, self.hidden),
                nn.ReLU(),
                nn.BatchNorm1d(self.hidden),
                nn.Linear(self.hidden, num_classes),
                nn.BatchNorm1d(num_classes),
            )
        return rewriter.to(ctx.device)

    def _drawer(self, net: Classifier, images: Tensor, ctx: Context) -> Draw:
        """The trained inversion network: logits (N, K) -> images (N, C, H, W); differentiable and fixed."""
        own = ctx.child("surrogate")
        decoder = self.surrogate.build(net.spec, own)
        self.surrogate.fit(decoder, log_answers(net, images, ctx), images, own, name=self.name)
        freeze(decoder)

        def draw(logits: Tensor) -> Tensor:
            drawn: Tensor = decoder(self.surrogate.prepare(logits.log_softmax(1)))
            return drawn

        return draw

    def _fit(
        self, rewriter: nn.Module, logits: Tensor, images: Tensor, draw: Draw | None, ctx: Context
    ) -> None:
        """Train the autoencoder in place on logits (M, K) of images (M, C, H, W); left in eval mode."""
        order = ctx.generator("vectors")
        optimizer = torch.optim.Adam(rewriter.parameters(), lr=self.lr, betas=_BETAS, fused=fused(ctx.device))
        watch = Stopwatch()
        rewriter.train()
        for epoch in range(self.epochs):
            losses, counts = [], []
            for rows in torch.randperm(len(logits), generator=order).split(self.batch):
                if len(rows) == 1:
                    continue  # BatchNorm cannot train on a single vector
                some = logits[rows.to(logits.device)]
                drawn = rewriter(self.read(some))
                error = F.mse_loss(draw(drawn), images[rows].to(drawn.device)) if draw else 0.0
                loss = self.loss(drawn, some, error)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                counts.append(len(rows))
            total = mean_loss(losses, counts, len(logits))
            check_finite(total, epoch, "purification: autoencoder")
            if watch.is_due():
                ctx.report(epoch + 1, self.epochs, loss=total)
        ctx.note("purification_loss", total)
        rewriter.eval()


class _Purified(nn.Module):
    """The victim with purified release."""

    def __init__(self, net: Classifier, rewriter: nn.Module, how: Purification) -> None:
        super().__init__()
        self.net = net
        self.rewriter = rewriter
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images x (N, C, H, W)."""
        return self.how.purify(self.rewriter, self.net(x))


def _logits(net: Classifier, images: Tensor, ctx: Context) -> Tensor:
    """The victim's logits (N, K) of images (N, C, H, W), float32, without gradients."""
    with torch.no_grad():
        return torch.cat([net(x.to(ctx.device)) for x in images.split(ctx.max_batch)])
