"""Negative label smoothing: the net is paid for saying even less than nothing about the other labels.

Positive smoothing spreads a little probability over the other labels and so tells an attack the way to a
class. A negative factor does the reverse: probabilities become extreme and their gradients vanish. Attacks
whose losses do not saturate, such as a max-margin loss, still find a way.

The loss has no lower bound: the gap between the logits grows for as long as one trains. Hence the schedule,
the falling learning rate of the recipe, and the optional limit.

Source: Struppek et al., ICLR 2024 (arXiv:2310.06549), and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class NegativeLabelSmoothing(Defense):
    """Cross-entropy against labels smoothed by a negative factor, after a warm-up without smoothing.

    The authors' alpha: -0.05 (FaceScrub and CelebA, 224 px); later works also took -0.1 and -0.005.

    Args:
        alpha: smoothing factor, in [-1, 1); below 0 it defends, above 0 it helps attacks, and 0 trains as
            if there were no defense. It takes the place of the recipe's label_smoothing.
        schedule: "jump", the authors' ramp, which rises as if towards the last epoch and then jumps to
            alpha; "linear", which reaches alpha at the end of the ramp; "constant", alpha from the start.
        warmup: share of the epochs without smoothing, in [0, 1].
        ramp: share of the epochs of the ramp after it, in [0, 1].
        limit: largest -log p of a label that the smoothing rewards, in nats, > 0; None sets none.
        recipe: training in the place of the suite's; None takes that. The authors: Adam, 1e-3, 100 epochs,
            batch 128, a tenth of the rate from epochs 75 and 90 on.
    """

    name = "negative_ls"
    aliases = ("neg_ls",)
    acts = "training"
    strength: ClassVar[str] = "alpha"
    strength_levels: ClassVar[tuple[object, ...]] = (-0.005, -0.01, -0.05, -0.1)
    card = Card(
        title="Be Careful What You Smooth For: Label Smoothing Can Be a Privacy Shield but Also a Catalyst "
        "for Model Inversion Attacks",
        paper="arXiv:2310.06549",
        year=2024,
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        deviations=(
            "It trains with the suite's recipe, as the undefended victim does; the schedule's epochs are "
            "the authors' shares of it.",
        ),
    )
    neutral: ClassVar[Settings | None] = {"alpha": 0.0}

    alpha: float = -0.05
    schedule: Literal["jump", "linear", "constant"] = "jump"
    warmup: float = 0.5
    ramp: float = 0.25
    limit: float | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if not -1 <= self.alpha < 1:
            raise ValueError(f"negative_ls: alpha must lie in [-1, 1), got {self.alpha}.")
        for name in ("warmup", "ramp"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"negative_ls: {name} must lie in [0, 1], got {getattr(self, name)}.")
        if self.warmup + self.ramp > 1:
            raise ValueError(
                f"negative_ls: warmup and ramp are shares of one training, got {self.warmup} and {self.ramp}."
                " Lower one of them."
            )
        if self.limit is not None and not self.limit > 0:
            raise ValueError(f"negative_ls: limit must be > 0 or left out, got {self.limit}.")

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained with negative smoothing; see Defense.train.

        Raises:
            TrainingError: the training diverged.
        """
        recipe = self.recipe or view.recipe
        loss = None if self.alpha == 0 else self._scheduled(recipe, len(view.private_train))
        return fit(net, view.private_train, ctx, recipe=recipe, loss=loss)

    def alpha_at(self, epoch: int, epochs: int) -> float:
        """Smoothing factor of an epoch, counted from 0, of a training of so many."""
        start = round(self.warmup * epochs)
        end = round((self.warmup + self.ramp) * epochs)
        if self.schedule == "constant" or epoch >= end:
            return self.alpha
        if epoch < start:
            return 0.0
        length = (epochs if self.schedule == "jump" else end) - start
        return self.alpha * (epoch + 1 - start) / length

    def loss(self, logits: Tensor, y: Tensor, alpha: float) -> Tensor:
        """Mean of (1 - alpha) (-log p_y) + alpha mean_k(-log p_k) of logits (N, K), in nats (scalar)."""
        surprise = -logits.float().log_softmax(1)
        own = surprise.gather(1, y[:, None]).squeeze(1)
        others = surprise if self.limit is None else surprise.clamp_max(self.limit)
        return ((1 - alpha) * own + alpha * others.mean(1)).mean()

    def _scheduled(self, recipe: Recipe, images: int) -> Callable[[Classifier, Tensor, Tensor], Tensor]:
        """A loss that counts its steps and so knows the epoch; the training calls it once a step."""
        in_epoch = recipe.steps(images) // recipe.epochs
        steps = count()

        def loss(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            alpha = self.alpha_at(next(steps) // in_epoch, recipe.epochs)
            logits = net(x)
            return F.cross_entropy(logits, y) if alpha == 0 else self.loss(logits, y, alpha)

        return loss
