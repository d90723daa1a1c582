"""Labels alone: every vector of one label is the same, so it tells nothing but the label.

A control: no output-time defense that keeps labels can give away less. What is left to a black-box attacker
are attacks that need no more than labels. A confidence below 1 is a constant, and hides as much.

Source: a classic control without a paper of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings

from ._simplex import Reshaped, keep_label, note_distortion, top_label


@dataclass(frozen=True, kw_only=True)
class LabelOnly(Defense):
    """One fixed vector for each label.

    Args:
        confidence: probability of the label, in (0, 1]; the others share the rest in equal parts. The label
            leads in any case.
        weight: share of this vector in what is released, in [0, 1]; the rest is the victim's own vector, so
            0 switches the defense off.
    """

    name = "label_only"
    acts = "output"
    keeps_label = True
    card = Card(title="The predicted label alone, or a fixed confidence")

    neutral: ClassVar[Settings | None] = {"weight": 0.0}
    strength: ClassVar[str] = "weight"
    strength_levels: ClassVar[tuple[object, ...]] = (0.25, 0.5, 0.75, 1.0)

    confidence: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.confidence <= 1:
            raise ValueError(f"label_only: confidence must lie in (0, 1], got {self.confidence}.")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"label_only: weight must lie in [0, 1], got {self.weight}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.weight > 0:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net that releases its labels; see Defense."""
        if self.weight == 0:
            return Released(net)
        return Reshaped(net, lambda scores, _: self.blunt(scores))

    def blunt(self, scores: Tensor) -> Tensor:
        """Probabilities (N, K) that hang on the label, at `weight` = 1 on nothing else."""
        label = top_label(scores)
        rest = (1 - self.confidence) / (scores.shape[1] - 1)
        fixed = torch.full_like(scores, rest).scatter(1, label, self.confidence)
        return keep_label(torch.lerp(scores, fixed, self.weight), label)
