"""Two-stage training: with the last stage's skip connections first, then without them.

The net of `rolss`, but it finds its way with the shortcuts before they go, which costs less accuracy than
never having had them. What meets `rolss` meets this too.

Source: Koh et al., ECCV 2024 (arXiv:2409.01696), TTS: 5 epochs with the shortcuts, then 95 without.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Card, Context
from mibench.training import Recipe, fit

from ._skips import lacks_skips, scaled, set_scale

Loss = Callable[[Classifier, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Tts(Defense):
    """The net of `rolss` after a training that begins with the identity shortcuts of the last stage.

    Shortcuts that project or subsample stay throughout. A net whose last stage has no other is refused.

    Args:
        share: part of the recipe's steps that is trained with the shortcuts, in [0, 1); the less, the
            stronger the defense. 0 is `rolss`. The authors: 5 of 100 epochs.
    """

    name = "tts"
    acts = "training"
    strength: ClassVar[str] = "share"
    strength_levels: ClassVar[tuple[object, ...]] = (0.5, 0.2, 0.05)
    card = Card(
        title="On the Vulnerability of Skip Connections to Model Inversion Attacks",
        paper="arXiv:2409.01696",
        year=2024,
        deviations=(
            "The stages are shares of the suite's recipe, and one learning-rate schedule spans both.",
            "Shortcuts that concatenate, as in DenseNet, are left out, since no net here has them.",
        ),
    )

    share: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"tts: share must lie in [0, 1), got {self.share}.")

    def misfit(self, net: NetSpec) -> str:
        """Why it cannot act on a net without an identity shortcut in the last stage; see Defense."""
        return lacks_skips(net)

    def prepare(self, net: Classifier) -> Classifier:
        """A copy of the net as it is released, without these shortcuts; ValueError where it has none."""
        return scaled(net, 0.0, where=self.name)

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net trained in two stages, without the shortcuts at the end; see Defense.train.

        Notes on the record: `tts_steps`, the steps with shortcuts.

        Raises:
            ValueError: the net has no identity shortcut in its last stage.
            TrainingError: the training diverged.
        """
        steps = round(self.share * view.recipe.steps(len(view.private_train)))
        ctx.note("tts_steps", steps)
        fit(net, view.private_train, ctx, recipe=view.recipe, loss=self.loss(view.recipe, steps))
        set_scale(net, 0.0, where=self.name)  # a large share may round to all steps
        return net

    def loss(self, recipe: Recipe, steps: int) -> Loss:
        """The recipe's loss, which sets the net's shortcuts before each step: there for `steps` of them."""
        count = itertools.count()

        def objective(net: Classifier, x: Tensor, y: Tensor) -> Tensor:
            set_scale(net, 1.0 if next(count) < steps else 0.0, where=self.name)
            return recipe.loss(net, x, y)

        return objective
