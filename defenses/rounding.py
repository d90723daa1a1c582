"""Rounded probabilities: small differences between answers, which lead a black-box search, vanish.

The oldest defense of the field and a control for every other one. Who holds the weights is not hindered, and
who asks about many small changes of an image finds the digits again. `step = 10 ** -d` keeps d digits.

Source: Fredrikson, Jha and Ristenpart, CCS 2015, who round the confidences of a face classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings

from ._simplex import Reshaped, note_distortion, top_label

_FINEST = 1e-6  # float32 counts up to 2^24 steps one by one


@dataclass(frozen=True, kw_only=True)
class Rounding(Defense):
    """Probabilities rounded to multiples of a step; the label keeps the largest one.

    Args:
        step: what probabilities are multiples of before they are normalized, in [1e-6, 1], or 0, which
            switches it off. A finer one would be finer than float32, and the label might not lead.
    """

    name = "rounding"
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"rounding"})
    card = Card(
        title="Model inversion attacks that exploit confidence information and basic countermeasures",
        paper="CCS 2015",
        year=2015,
        deviations=(
            "Rounded vectors are divided by their sum, because only probabilities are released here.",
            "A label that ties after rounding gets as many steps more as it needs to lead by one.",
            "The default step is ours, from the range that the paper tries.",
        ),
    )

    neutral: ClassVar[Settings | None] = {"step": 0.0}
    strength: ClassVar[str] = "step"
    strength_levels: ClassVar[tuple[object, ...]] = (0.001, 0.01, 0.05, 0.1)

    step: float = 0.05

    def __post_init__(self) -> None:
        if not (self.step == 0 or _FINEST <= self.step <= 1):
            raise ValueError(f"rounding: step must be 0 or lie in [{_FINEST}, 1], got {self.step}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.step > 0:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with rounded release; see Defense."""
        if self.step == 0:
            return Released(net)
        return Reshaped(net, lambda scores, _: self.normalized(self.steps_of(scores)))

    def steps_of(self, scores: Tensor) -> Tensor:
        """How many steps each of scores (N, K) has, whole float32 numbers; the label leads by one."""
        label = top_label(scores)
        steps = (scores / self.step).round()
        others = steps.scatter(1, label, -torch.inf).amax(1, keepdim=True)
        lead = steps.gather(1, label) - others
        return steps.scatter_add(1, label, (1 - lead).clamp_min(0))

    def normalized(self, steps: Tensor) -> Tensor:
        """Probabilities (N, K) in proportion to numbers of steps (N, K), of which each row has one."""
        return steps / steps.sum(1, keepdim=True)
