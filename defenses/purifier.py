"""Released vectors drawn anew by an autoencoder that has only seen the answers to strangers.

The victim is surer of the images that it was trained on than of others, and its vectors tell more than the
label. A small autoencoder, trained on vectors of people that the victim does not know, gives every vector the
look of theirs. The version of 2023 is conditioned on the predicted label, and also exchanges the two largest
probabilities of training images, which are otherwise recognized by their being right. The version of 2020
has a plain autoencoder, trained against an inversion network of the defender's.

Sources: Yang et al., arXiv:2005.03915 (2020) and Purifier, AAAI 2023 (arXiv:2212.00612), of which abstracts
and re-implementations by others could be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.data.split import Labeled, dequantize, quantize
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.nets.inversion_net import InversionNet
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.precision import fused
from mibench.training import check_finite, mean_loss
from mibench.victim import freeze

from ._simplex import Reshaped, length, note_distortion, part_of, top_label
from ._surrogate import Surrogate, log_answers

_BETAS = (0.5, 0.999)  # Adam; a re-implementation of the version of 2020
_LEAST = 1e-12  # probabilities are not looked at below it
_WHOLE = 255  # gray levels


@dataclass(frozen=True, kw_only=True)
class Purifier(Defense):
    """An autoencoder of released vectors, and an exchange of the labels of training images.

    Args:
        mode: "cvae", conditioned on the predicted label (2023), or "autoencoder" (2020).
        weight: share of the purified vector in what is released, in [0, 1]; 0 switches the defense off.
        reference: whose vectors it learns: of the defender's "public" people, or of the "private" training
            images, which the victim is surer of.
        hidden: units of the hidden layers, >= 1.
        latent: length of the code in the mode "cvae", >= 0; with 0 the output hangs on the label alone.
        label_weight: of the cross-entropy with the predicted label, >= 0.
        kl_weight: of the code's divergence from a standard normal one, >= 0; mode "cvae".
        inversion_weight: of the inversion network's error, which is driven up, >= 0; mode "autoencoder".
        surrogate: the defender's inversion network, in the mode "autoencoder".
        epochs: passes over the vectors, >= 1.
        batch: vectors in a step, >= 1.
        lr: learning rate of Adam, > 0.
        swap: share of the private training images whose two largest probabilities are exchanged, in [0, 1].
        swap_distance: L2 distance, of images in [0, 1], from such an image below which a query counts as it.
    """

    name = "purifier"
    acts = "output"
    card = Card(
        title="Purifier: defending data inference attacks via transforming confidence scores",
        paper="arXiv:2212.00612",
        year=2023,
        deviations=(
            "Only abstracts and others' re-implementations could be read; sizes are our reconstruction.",
            "The reference vectors are those of the defender's public people; the authors hold data of the "
            "private people that the victim was not trained on.",
            "The decoder is given the mean of the code, so that an image is always answered alike.",
            "The share of exchanged training images is an option; the authors match it to the errors on "
            "other images, of which the defender has none.",
            "The autoencoder of 2020 reads log-probabilities, which are the logits but for a constant.",
        ),
    )

    toy: ClassVar[Settings] = {
        "epochs": 60,
        "batch": 16,
        "lr": 5e-3,
        "swap": 0.25,
        "reference": "private",
        "surrogate": {"width": 8, "epochs": 2, "batch": 16},
    }
    neutral: ClassVar[Settings | None] = {"weight": 0.0}
    strength: ClassVar[str] = "weight"
    strength_levels: ClassVar[tuple[object, ...]] = (0.25, 0.5, 0.75, 1.0)

    mode: Literal["cvae", "autoencoder"] = "cvae"
    weight: float = 1.0
    reference: Literal["public", "private"] = "public"
    hidden: int = 100
    latent: int = 8
    label_weight: float = 1.0
    kl_weight: float = 1.0
    inversion_weight: float = 1.0
    surrogate: Surrogate = field(default_factory=Surrogate)
    epochs: int = 20
    batch: int = 128
    lr: float = 5e-4
    swap: float = 1.0
    swap_distance: float = 5e-5

    def __post_init__(self) -> None:
        for name in ("hidden", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"purifier: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("latent", "label_weight", "kl_weight", "inversion_weight", "swap_distance"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"purifier: {name} must be >= 0, got {getattr(self, name)}.")
        for name in ("weight", "swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"purifier: {name} must lie in [0, 1], got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"purifier: lr must be > 0, got {self.lr}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Weights of the autoencoder, and the images whose labels are exchanged, as bytes where they are.

        Notes on the record: `purifier_loss`, the mean loss of the last epoch, and the distortion, see
        `note_distortion`.

        Raises:
            TrainingError: a training diverged.
        """
        if self.weight == 0:
            return {}
        data = view.public if self.reference == "public" else view.private_train
        scores = log_answers(net, data.images, ctx).exp()
        rewriter = self._build(net.spec.num_classes, ctx)
        decoder = None
        if self.mode == "autoencoder" and self.inversion_weight > 0:
            decoder = self.surrogate.build(net.spec, ctx)
            log_p = scores.clamp_min(_LEAST).log()
            self.surrogate.fit(decoder, log_p, data.images, ctx.child("surrogate"), name=self.name)
            freeze(decoder)
        self._fit(rewriter, scores, data.images, decoder, ctx)
        state = {f"rewriter.{key}": value.cpu() for key, value in rewriter.state_dict().items()}
        state |= self._members(view.private_train, ctx)
        note_distortion(self, net, state, view, ctx)
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with purified release; see Defense."""
        if self.weight == 0:
            return Released(net)
        rewriter = self._build(net.spec.num_classes, ctx)
        rewriter.load_state_dict(part_of(state, "rewriter"))
        freeze(rewriter)
        members = state.get("members")
        return Reshaped(net, lambda scores, x: self.purify(rewriter, scores, x, members))

    def purify(self, rewriter: nn.Module, scores: Tensor, images: Tensor, members: Tensor | None) -> Tensor:
        """Probabilities (N, K), drawn anew, with the two largest exchanged for members.

        Args:
            rewriter: probabilities (N, K) -> logits (N, K) and a penalty (N,).
            scores: of the victim.
            images: the queries (N, C, H, W).
            members: (S, C, H, W), the images whose labels are exchanged; None for none.
        """
        moved = torch.lerp(scores, rewriter(scores)[0].softmax(1), self.weight)
        moved = moved / moved.sum(1, keepdim=True)
        if members is None:
            return moved
        top, index = moved.topk(2, dim=1)
        swapped = moved.scatter(1, index, top.flip(1))
        return torch.where(is_near(images, members, self.swap_distance)[:, None], swapped, moved)

    def _build(self, num_classes: int, ctx: Context) -> nn.Module:
        with seeded(ctx.generator("rewriter")):
            if self.mode == "cvae":
                return LabelVae(num_classes, self).to(ctx.device)
            return Autoencoder(num_classes, self.hidden).to(ctx.device)

    def _fit(
        self, rewriter: nn.Module, scores: Tensor, images: Tensor, decoder: InversionNet | None, ctx: Context
    ) -> None:
        """Train the autoencoder in place on scores (M, K) of images (M, C, H, W); left in eval mode."""
        draws = ctx.generator("vectors")
        optimizer = torch.optim.Adam(rewriter.parameters(), lr=self.lr, betas=_BETAS, fused=fused(ctx.device))
        watch = Stopwatch()
        rewriter.train()
        for epoch in range(self.epochs):
            losses, counts = [], []
            for rows in torch.randperm(len(scores), generator=draws).split(self.batch):
                if len(rows) == 1 < len(scores):
                    continue  # BatchNorm cannot train on a single vector
                noise = torch.randn(len(rows), self.latent, generator=draws).to(scores.device)
                some = scores[rows.to(scores.device)]
                logits, penalty = rewriter(some, noise)
                loss = (self._loss(logits, some) + self.kl_weight * penalty).mean()
                if decoder is not None:
                    drawn = decoder(self.surrogate.prepare(logits.log_softmax(1)))
                    target = images[rows].to(scores.device)
                    loss = loss - self.inversion_weight * F.mse_loss(drawn, target)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                counts.append(len(rows))
            total = mean_loss(losses, counts, len(scores))
            check_finite(total, epoch, "purifier: autoencoder")
            if watch.is_due():
                ctx.report(epoch + 1, self.epochs, loss=total)
        ctx.note("purifier_loss", total)
        rewriter.eval()

    def _loss(self, logits: Tensor, scores: Tensor) -> Tensor:
        """Reconstruction error of each row, and cross-entropy with the predicted label, (N,).

        The squared distance is that of probabilities in the mode "cvae", and the mean one of logits, the
        constant taken off, in the mode "autoencoder".
        """
        label = F.cross_entropy(logits, scores.argmax(1), reduction="none")
        if self.mode == "cvae":
            error = (logits.softmax(1) - scores).square().sum(1)
        else:
            log_p = scores.clamp_min(_LEAST).log()
            error = (logits.log_softmax(1) - log_p).square().mean(1)
        return error + self.label_weight * label

    def _members(self, data: Labeled, ctx: Context) -> State:
        """The images whose labels are exchanged: a share of the private ones, drawn at random."""
        count = round(self.swap * len(data))
        if count == 0:
            return {}
        images = data.images[torch.randperm(len(data), generator=ctx.generator("members"))[:count]]
        pixels = quantize(images)
        return {"members": pixels if torch.equal(dequantize(pixels), images.cpu()) else images.clone()}


class LabelVae(nn.Module):
    """A variational autoencoder of probabilities, conditioned on their label.

    Args:
        num_classes: length K of a vector.
        how: sizes.
    """

    def __init__(self, num_classes: int, how: Purifier) -> None:
        super().__init__()
        self.latent = how.latent
        self.encode_hidden = nn.Linear(2 * num_classes, how.hidden)
        self.encode = nn.Linear(how.hidden, max(1, 2 * how.latent))
        self.decode_hidden = nn.Linear(how.latent + num_classes, how.hidden)
        self.decode = nn.Linear(how.hidden, num_classes)

    def forward(self, scores: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and the code's divergence from a standard normal one (N,), for scores (N, K).

        Args:
            scores: probabilities.
            noise: (N, latent), standard normal; None takes the code's mean.
        """
        label = torch.zeros_like(scores).scatter(1, top_label(scores), 1.0)
        told = self.encode(F.relu(self.encode_hidden(torch.cat([scores, label], dim=1))))
        mean, log_var = told[:, : self.latent], told[:, self.latent : 2 * self.latent]
        code = mean if noise is None else mean + (0.5 * log_var).exp() * noise
        divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        logits: Tensor = self.decode(F.relu(self.decode_hidden(torch.cat([code, label], dim=1))))
        return logits, divergence


class Autoencoder(nn.Module):
    """A plain autoencoder of log-probabilities, one hidden layer with BatchNorm.

    Args:
        num_classes: length K of a vector.
        hidden: units of the hidden layer.
    """

    def __init__(self, num_classes: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_classes, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Linear(hidden, num_classes),
            nn.BatchNorm1d(num_classes),
        )

    def forward(self, scores: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and a penalty of 0 (N,), for scores (N, K); `noise` is not used."""
        logits: Tensor = self.layers(scores.clamp_min(_LEAST).log())
        return logits, torch.zeros_like(logits[:, 0])


def is_near(images: Tensor, members: Tensor, distance: float) -> Tensor:
    """Whether each of images (N, C, H, W) lies within an L2 distance of one of members (S, C, H, W): (N,).

    Members are bytes or floats in [0, 1]. The nearest one is found by products, whose roundings are larger
    than the distance, and then measured exactly.
    """
    known = members.flatten(1).to(images.device)
    known = known.to(images.dtype) / _WHOLE if known.dtype == torch.uint8 else known
    asked = images.flatten(1)
    far = known.square().sum(1) - 2 * asked @ known.T
    return length(asked - known[far.argmin(1)], "l2").squeeze(1) <= distance
