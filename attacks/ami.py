"""AMI: train a decoder that undoes the victim, on public images and their released scores.

The decoder learns to draw a public image from the victim's (truncated) prediction for it. Given the
prediction that was released for a private image, it draws that image; given the prediction "surely y", it
draws what the victim takes for y. No gradients, one query a public image.

Source: Yang, Zhang, Chang and Liang, CCS 2019 (arXiv:1902.08552), and the authors' code
(yziqi/adversarial-model-inversion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Effort, Goal, Reconstructions
from mibench.data.split import quantize
from mibench.inversion import for_each
from mibench.latent import checkpoints
from mibench.nets.classifier import as_channels_last
from mibench.nets.inversion_net import InversionNet, prepare_prediction
from mibench.nets.seeding import seeded
from mibench.noise import repeats
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import Prior
from mibench.training import autocast, check_finite
from mibench.victim import ScoreVictim, freeze

_DECODER = "decoder."
_LEAST_RESIDUAL = 1e-6  # a victim that is sure of all images would give an exact one-hot
_LEAST = torch.finfo(torch.float32).tiny  # keeps the logarithm of a released 0 finite


@dataclass(frozen=True, kw_only=True)
class Ami(Attack[ScoreVictim]):
    """Background-knowledge alignment, for the very image behind a prediction or for what a class looks like.

    With goal="class" a target vector is put in for the prediction. "onehot" and "smoothed" know one vector a
    label, so repeats of a label are the same image and nothing is asked of the victim. "estimated" draws
    `num_candidates` images a label from different public images, "chosen" takes all three kinds together, and
    the repeats of a label take the best, the second best and so on in the victim's eyes (one query a
    candidate, of as many as the allowance pays for; beyond their number they begin again).

    Nothing but the `truncation` largest entries of a prediction is looked at, except by the ranking of public
    images for "estimated" and "chosen": elsewhere a victim that releases so many entries will do.

    Args:
        goal: "class", or "instance": the image behind an eavesdropped prediction.
        truncation: largest entries of a prediction that the decoder sees, >= 0; 0 keeps all, and more than
            there are classes means all. None takes 1 for classes and all for instances.
        target_vector: "onehot"; "estimated", the mean prediction of public images with large p_y;
            "smoothed", the one-hot with some mass left to other classes; "chosen", all of them.
        smoothing: that mass, in [0, 1); None takes the median that public images leave.
        confidence: least p_y of an estimated vector, in [0, 1); a lower one is raised to it.
        num_candidates: vectors estimated for each label, >= 1.
        candidate_images: public images behind an estimated vector, >= 1: the best ones for the first
            candidate, a random half of the best 2 * candidate_images for the others.
        width: channels of the decoder's last hidden map, >= 1.
        epochs: passes over the public images, >= 1.
        batch: images in a step, >= 1.
        lr: learning rate of Adam, > 0.
        betas: of Adam, each in [0, 1).
        amsgrad: Adam with the largest second moment so far.
        requery: ask for the predictions of the public images again in each epoch, as the authors' code does;
            costs queries and changes nothing where the victim repeats itself.
        holdout: share of the public images that choose the epoch, in [0, 1); 0 keeps the last epoch.
    """

    name = "ami"
    version = 2
    aliases = ("alignment",)
    access = ScoreVictim
    card = Card(
        title="Neural Network Inversion in Adversarial Setting via Background Knowledge Alignment",
        paper="arXiv:1902.08552",
        year=2019,
        code="https://github.com/yziqi/adversarial-model-inversion",
        deviations=(
            "The authors' code has no label-targeted mode; target_vector names ways to build a vector.",
            "For classes truncation is 1 by default (theirs: none), so that a one-hot vector lies among the "
            "training vectors; with more entries kept, a one-hot lies 20 times outside their range.",
            "The epoch is chosen on held-out public images; the authors' script uses the private ones.",
            "Predictions are asked for once and kept; theirs are asked for again in each epoch (requery).",
            "Color images in [0, 1] of any size; theirs are gray, 64 px, scaled by pixel over the set.",
        ),
    )

    toy: ClassVar[Settings] = {"width": 8, "epochs": 8, "batch": 16, "lr": 0.005}

    goal: Goal = "class"
    truncation: int | None = None
    target_vector: Literal["onehot", "estimated", "smoothed", "chosen"] = "onehot"
    smoothing: float | None = None
    confidence: float = 0.0
    num_candidates: int = 8
    candidate_images: int = 20
    width: int = 128
    epochs: int = 100
    batch: int = 128
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    amsgrad: bool = True
    requery: bool = False
    holdout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("num_candidates", "candidate_images", "width", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"ami: {name} must be >= 1, got {getattr(self, name)}.")
        if self.truncation is not None and self.truncation < 0:
            raise ValueError(f"ami: truncation must be >= 0, got {self.truncation}.")
        if not self.lr > 0:
            raise ValueError(f"ami: lr must be > 0, got {self.lr}.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"ami: betas must lie in [0, 1), got {list(self.betas)}.")
        for name in ("smoothing", "confidence", "holdout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"ami: {name} must lie in [0, 1), got {value}.")

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The decoder of this victim; asks about each public image once, or once an epoch (`requery`).

        Keys: `decoder.*`, the decoder's state; for classes `vectors`, (candidates, K, K), the predictions
        that stand for each label.
        """
        scores = victim.scores(public).cpu()
        decoder = self._train(scores, victim, public, ctx)
        adapted = {_DECODER + key: value.cpu() for key, value in decoder.state_dict().items()}
        return adapted if self.goal == "instance" else {**adapted, "vectors": self._vectors(scores, ctx)}

    def reconstruct(
        self, victim: ScoreVictim, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        """The decoded prediction of each row; asks nothing more. See Attack.reconstruct."""
        return Reconstructions.collect(self._decode(self._load(prior, victim, ctx), released, ctx), targets)

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The decoded target vector of each row; see Attack.invert and the class."""
        decoder = self._load(prior, victim, ctx)
        labels, rows = torch.unique(targets.cpu(), return_inverse=True)
        count = max(1, victim.steps_within(len(prior["vectors"]), per_step=1))
        vectors = prior["vectors"].cpu()[:count, labels]  # (candidates, labels, K)
        images = self._decode(decoder, vectors.flatten(0, 1), ctx).unflatten(0, vectors.shape[:2])
        if count == 1:
            return Reconstructions.collect(images[0, rows], targets)
        wanted = labels.repeat(count)[:, None]
        hits = victim.scores(images.flatten(0, 1)).cpu().gather(1, wanted).view(count, len(labels))
        rank = repeats(targets)

        def chosen(among: int) -> Tensor:
            order = hits[:among].argsort(dim=0, descending=True, stable=True)
            return order[rank % among, rows]

        tried = [evaluation + 1 for evaluation in checkpoints(count - 1)]
        trail = [chosen(among) for among in tried]
        effort = Effort(
            # the repeats of a label share its candidates
            queries=for_each(torch.tensor(tried) * len(labels), len(targets)),
            images=torch.stack([quantize(images[best, rows]) for best in trail]),
            loss=torch.stack([-hits[best, rows].clamp_min(_LEAST).log() for best in trail]),
            single=quantize(images[0, rows]),
        )
        return Reconstructions.collect(images[trail[-1], rows], targets, hits[trail[-1], rows], effort)

    def prepare(self, scores: Tensor) -> Tensor:
        """What the decoder sees of released scores (N, K): (N, K), see nets.inversion_net."""
        classes = scores.shape[1]
        default = 1 if self.goal == "class" else classes
        kept = default if self.truncation is None else self.truncation or classes
        return prepare_prediction(scores.log(), min(kept, classes))

    def _vectors(self, scores: Tensor, ctx: Context) -> Tensor:
        """Predictions that stand for each label, (candidates, K, K), from those of public images (N, K)."""
        certain = torch.eye(scores.shape[1])
        median = float((1 - scores.amax(1)).median().clamp_min(_LEAST_RESIDUAL))
        rest = median if self.smoothing is None else self.smoothing
        kinds = {"onehot": [certain], "smoothed": [_with_confidence(torch.ones_like(certain), 1 - rest)]}
        if self.target_vector in kinds:
            return torch.stack(kinds[self.target_vector])
        estimated = self._estimate(scores, ctx)
        if self.target_vector == "estimated":
            return torch.stack(estimated)
        return torch.stack([*kinds["onehot"], *kinds["smoothed"], *estimated])

    def _estimate(self, scores: Tensor, ctx: Context) -> list[Tensor]:
        """Mean predictions of the public images most like each label, (K, K) for each candidate."""
        generator = ctx.generator("candidates")
        take = min(self.candidate_images, len(scores))
        ranked = scores.argsort(dim=0, descending=True, stable=True)[: 2 * take].T  # (K, pool)
        means = [_likely_mean(scores, ranked[:, :take])]
        for _ in range(1, self.num_candidates):
            subset = torch.rand(ranked.shape, generator=generator).argsort(1)[:, :take]
            means.append(_likely_mean(scores, ranked.gather(1, subset)))
        own = [mean.diagonal() for mean in means]
        return [
            torch.where((p < self.confidence)[:, None], _with_confidence(mean, self.confidence), mean)
            for mean, p in zip(means, own)
        ]

    def _train(self, scores: Tensor, victim: ScoreVictim, public: Tensor, ctx: Context) -> InversionNet:
        """The decoder of the epoch with the least squared error on the held-out public images."""
        order = torch.randperm(len(public), generator=ctx.generator("holdout"))
        kept = min(round(self.holdout * len(public)), len(public) - 1)  # one image at least to learn from
        held, rows = order[:kept], order[kept:]
        decoder = self._build(victim, ctx)
        optimizer = self._optimizer(decoder)
        generator = ctx.generator("batches")
        prepared, asked, public = self.prepare(scores).to(ctx.device), public, public.to(ctx.device)
        best, least = decoder.state_dict(), torch.inf
        watch = Stopwatch()
        for epoch in range(self.epochs):
            if self.requery and epoch > 0:
                prepared = self.prepare(victim.scores(asked)).to(ctx.device)
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

    def _optimizer(self, decoder: InversionNet) -> torch.optim.Adam:
        first, second = self.betas
        return torch.optim.Adam(decoder.parameters(), self.lr, betas=(first, second), amsgrad=self.amsgrad)

    def _build(self, victim: ScoreVictim, ctx: Context) -> InversionNet:
        channels, size, _ = victim.shape
        classes = victim.num_classes
        with seeded(ctx.generator("decoder")):
            decoder = InversionNet(num_classes=classes, width=self.width, size=size, channels=channels)
        as_channels_last(decoder)
        return decoder.to(ctx.device)

    def _load(self, prior: Prior, victim: ScoreVictim, ctx: Context) -> InversionNet:
        decoder = self._build(victim, ctx)
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


def _likely_mean(scores: Tensor, rows: Tensor) -> Tensor:
    """Mean of the predictions `rows` (K, n) of scores (N, K) for each label, (K, K).

    Images with p_y = 0, below what a victim releases, say nothing about y; where all are so, it is a one-hot.
    """
    classes = scores.shape[1]
    taken = scores[rows]
    says = (taken.gather(2, torch.arange(classes)[:, None, None].expand(-1, rows.shape[1], 1)) > 0).float()
    mean = (taken * says).sum(1) / says.sum(1).clamp_min(1)
    return torch.where(says.sum(1) > 0, mean, torch.eye(classes))


def _with_confidence(vectors: Tensor, confidence: float) -> Tensor:
    """Row y of vectors (K, K) with p_y = `confidence` and the others, in their proportions, the rest."""
    certain = torch.eye(len(vectors))
    others = vectors * (1 - certain)
    return certain * confidence + others / others.sum(1, keepdim=True).clamp_min(_LEAST) * (1 - confidence)
