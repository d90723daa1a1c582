"""AMI: train a decoder that undoes the victim, on public images and their released scores.

The decoder learns to draw a public image from the victim's (truncated) prediction for it; asked for the
prediction "surely y", it draws what the victim takes for y. No gradients, one query a public image.

Source: Yang, Zhang, Chang and Liang, CCS 2019 (arXiv:1902.08552), and the authors' code
(yziqi/adversarial-model-inversion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.nets.classifier import as_channels_last
from mibench.nets.inversion_net import InversionNet, prepare_prediction
from mibench.nets.seeding import seeded
from mibench.noise import repeats
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import Prior
from mibench.training import autocast, check_finite
from mibench.victim import ScoreVictim, freeze

_DECODER = "decoder."
_BETAS = (0.5, 0.999)  # the authors' train_inversion.py
_LEAST_RESIDUAL = 1e-6  # a victim that is sure of all images would give an exact one-hot


@dataclass(frozen=True, kw_only=True)
class Ami(Attack[ScoreVictim]):
    """Label-targeted background-knowledge alignment.

    A label's target vector is put in for the prediction. "onehot" and "smoothed" know one vector a label,
    so repeats of a label are the same image and nothing is asked of the victim. "estimated" draws
    `num_candidates` images a label from different public images, and the repeats of a label take the best,
    the second best and so on in the victim's eyes (one query a candidate; beyond `num_candidates` they begin
    again).

    Args:
        truncation: largest entries of a prediction that the decoder sees, >= 0; 0 keeps all, and more than
            there are classes means all.
        target_vector: "onehot"; "estimated", the mean prediction of public images with large p_y;
            "smoothed", the one-hot with the median mass that public images leave to other classes.
        num_candidates: vectors estimated for each label, >= 1.
        candidate_images: public images behind an estimated vector, >= 1: the best ones for the first
            candidate, a random half of the best 2 * candidate_images for the others.
        width: channels of the decoder's last hidden map, >= 1.
        epochs: passes over the public images, >= 1.
        batch: images in a step, >= 1.
        lr: learning rate of Adam (AMSGrad), > 0.
        holdout: share of the public images that choose the epoch, in [0, 1); 0 keeps the last epoch.
    """

    name = "ami"
    aliases = ("alignment",)
    access = ScoreVictim
    card = Card(
        title="Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment",
        paper="arXiv:1902.08552",
        year=2019,
        code="https://github.com/yziqi/adversarial-model-inversion",
        deviations=(
            "The authors' code has no label-targeted mode; target_vector names three ways to build one.",
            "truncation is 1 by default (theirs: none), so that a one-hot vector lies among the training "
            "vectors; with more entries kept, a one-hot lies 20 times outside their range.",
            "The epoch is chosen on held-out public images; the authors' script uses the private ones.",
            "Predictions are asked for once and kept; theirs are asked for again in each epoch.",
            "Color images in [0, 1] of any size; theirs are gray, 64 px, scaled by pixel over the set.",
        ),
    )

    toy: ClassVar[Settings] = {"width": 8, "epochs": 8, "batch": 16, "lr": 0.005}

    truncation: int = 1
    target_vector: Literal["onehot", "estimated", "smoothed"] = "onehot"
    num_candidates: int = 8
    candidate_images: int = 20
    width: int = 128
    epochs: int = 100
    batch: int = 128
    lr: float = 2e-4
    holdout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_candidates", "candidate_images", "width", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"ami: {name} must be >= 1, got {getattr(self, name)}.")
        if self.truncation < 0:
            raise ValueError(f"ami: truncation must be >= 0, got {self.truncation}.")
        if not self.lr > 0:
            raise ValueError(f"ami: lr must be > 0, got {self.lr}.")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"ami: holdout must lie in [0, 1), got {self.holdout}.")

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The decoder of this victim; asks about each public image once.

        Keys: `decoder.*`, the decoder's state; `residual`, the median of 1 - max p, a scalar; and for
        target_vector="estimated" `vectors`, (num_candidates, K, K) mean predictions.
        """
        scores = victim.scores(public).cpu()
        prepared = self.prepare(scores)
        decoder = self._train(prepared, public, ctx)
        adapted = {_DECODER + key: value.cpu() for key, value in decoder.state_dict().items()}
        adapted["residual"] = (1 - scores.amax(1)).median()
        if self.target_vector == "estimated":
            adapted["vectors"] = self._estimate(scores, ctx)
        return adapted

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The decoded target vector of each row; see Attack.invert and the class."""
        decoder = self._load(prior, victim, ctx)
        if self.target_vector != "estimated":
            sure = self._sure_vectors(victim.num_classes, prior)[targets.cpu()]
            return Reconstructions.collect(self._decode(decoder, sure, ctx), targets)
        labels, rows = torch.unique(targets.cpu(), return_inverse=True)
        vectors = prior["vectors"].cpu()[:, labels]  # (candidates, labels, K)
        images = self._decode(decoder, vectors.flatten(0, 1), ctx)
        wanted = labels.repeat(len(vectors))[:, None]
        hits = victim.scores(images).cpu().gather(1, wanted).view(len(vectors), len(labels))
        order = hits.argsort(dim=0, descending=True, stable=True)
        chosen = order[repeats(targets) % len(vectors), rows]
        images = images.view(len(vectors), len(labels), *images.shape[1:])
        return Reconstructions.collect(images[chosen, rows], targets, hits[chosen, rows])

    def prepare(self, scores: Tensor) -> Tensor:
        """What the decoder sees of released scores (N, K): (N, K), see nets.inversion_net."""
        classes = scores.shape[1]
        return prepare_prediction(scores.log(), min(self.truncation or classes, classes))

    def _sure_vectors(self, classes: int, prior: Prior) -> Tensor:
        """The prediction "surely y" of each label y, (K, K)."""
        if self.target_vector == "onehot":
            return torch.eye(classes)
        rest = float(prior["residual"].clamp_min(_LEAST_RESIDUAL))
        return torch.eye(classes) * (1 - rest - rest / (classes - 1)) + rest / (classes - 1)

    def _estimate(self, scores: Tensor, ctx: Context) -> Tensor:
        """Mean predictions of the public images most like each label, (candidates, K, K)."""
        generator = ctx.generator("candidates")
        take = min(self.candidate_images, len(scores))
        ranked = scores.argsort(dim=0, descending=True, stable=True)[: 2 * take].T  # (K, pool)
        means = [scores[ranked[:, :take]].mean(1)]
        for _ in range(1, self.num_candidates):
            subset = torch.rand(ranked.shape, generator=generator).argsort(1)[:, :take]
            means.append(scores[ranked.gather(1, subset)].mean(1))
        return torch.stack(means)

    def _train(self, prepared: Tensor, public: Tensor, ctx: Context) -> InversionNet:
        """The decoder of the epoch with the least squared error on the held-out public images."""
        order = torch.randperm(len(public), generator=ctx.generator("holdout"))
        kept = min(round(self.holdout * len(public)), len(public) - 1)  # one image at least to learn from
        held, rows = order[:kept], order[kept:]
        decoder = self._build(prepared.shape[1], public.shape[1], public.shape[2], ctx)
        optimizer = torch.optim.Adam(decoder.parameters(), lr=self.lr, betas=_BETAS, amsgrad=True)
        generator = ctx.generator("batches")
        prepared, public = prepared.to(ctx.device), public.to(ctx.device)
        best, least = decoder.state_dict(), torch.inf
        watch = Stopwatch()
        for epoch in range(self.epochs):
            decoder.train()
            for part in rows[torch.randperm(len(rows), generator=generator)].split(self.batch):
                optimizer.zero_grad(set_to_none=True)
                with autocast(ctx.device):
                    loss = F.mse_loss(decoder(prepared[part]).float(), public[part])
                loss.backward()
                optimizer.step()
                if watch.is_due():
                    ctx.report(epoch, self.epochs, loss=float(loss.detach()))
            check_finite(float(loss.detach()), epoch, "ami: decoder")
            error = self._error(decoder, prepared[held], public[held], ctx) if kept else 0.0
            if error < least or not kept:
                best, least = {k: v.clone() for k, v in decoder.state_dict().items()}, error
            ctx.report(epoch + 1, self.epochs, loss=float(loss.detach()), held_out=error)
        decoder.load_state_dict(best)
        return decoder

    def _error(self, decoder: InversionNet, prepared: Tensor, images: Tensor, ctx: Context) -> float:
        """Mean squared pixel error on the held-out public images."""
        decoder.eval()
        parts = zip(prepared.split(ctx.max_batch), images.split(ctx.max_batch))
        with torch.no_grad():
            return sum(float((decoder(v) - x).square().sum()) for v, x in parts) / images.numel()

    def _build(self, classes: int, channels: int, size: int, ctx: Context) -> InversionNet:
        with seeded(ctx.generator("decoder")):
            decoder = InversionNet(num_classes=classes, width=self.width, size=size, channels=channels)
        as_channels_last(decoder)
        return decoder.to(ctx.device)

    def _load(self, prior: Prior, victim: ScoreVictim, ctx: Context) -> InversionNet:
        channels, size, _ = victim.shape
        decoder = self._build(victim.num_classes, channels, size, ctx)
        state = {
            key.removeprefix(_DECODER): value for key, value in prior.items() if key.startswith(_DECODER)
        }
        decoder.load_state_dict(state)
        freeze(decoder)
        return decoder

    def _decode(self, decoder: InversionNet, scores: Tensor, ctx: Context) -> Tensor:
        """Images of predictions (N, K), on the CPU; eval mode, so rows do not meet."""
        with torch.no_grad():
            parts = [decoder(part.to(ctx.device)).cpu() for part in self.prepare(scores).split(ctx.max_batch)]
        return torch.cat(parts)
