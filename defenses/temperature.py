"""Softened probabilities: logits are divided by a temperature before they are released.

A control: it takes nothing away. Labels and their order stay, and who knows the temperature T gets the
victim's logits back, but for a constant, as T times the logarithm of what is released. It shows which attacks
hang on the scale of their answers. Below 1 it sharpens, and small probabilities then fall to 0.

Source: Shokri et al., IEEE S&P 2017 (arXiv:1610.05820), as a measure against membership inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Settings

from ._simplex import keep_label, note_distortion

_LEAD = 1e-6  # of a label that float32 made equal to another one


@dataclass(frozen=True, kw_only=True)
class Temperature(Defense):
    """Softmax of the logits divided by the temperature; the label keeps the largest probability.

    Args:
        temperature: divisor T of the logits, > 0; 1 switches the defense off, and the source tries 5 and 20.
    """

    name = "temperature"
    acts = "output"
    keeps_label = True
    card = Card(
        title="Membership inference attacks against machine learning models",
        paper="arXiv:1610.05820",
        year=2017,
        deviations=(
            "A label whose probability equals another one in float32 is given a lead of a millionth.",
        ),
    )

    neutral: ClassVar[Settings | None] = {"temperature": 1.0}
    strength: ClassVar[str] = "temperature"
    strength_levels: ClassVar[tuple[object, ...]] = (2.0, 5.0, 20.0)

    temperature: float = 5.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature: temperature must be finite and > 0, got {self.temperature}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.temperature != 1:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with softened release, differentiable; see Defense."""
        return Released(net) if self.temperature == 1 else _Softened(net, self)

    def soften(self, logits: Tensor) -> Tensor:
        """Probabilities (N, K), float32, of logits (N, K); differentiable."""
        # the largest logit is taken off first: a division by a small temperature would overflow
        raised = logits - logits.amax(1, keepdim=True).detach()
        soft = (raised / self.temperature).softmax(1)
        with torch.no_grad():
            repair = keep_label(soft, logits.argmax(1, keepdim=True), margin=_LEAD) - soft
        return soft + repair


class _Softened(nn.Module):
    """The victim with softened release."""

    def __init__(self, net: Classifier, how: Temperature) -> None:
        super().__init__()
        self.net = net
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, K) of images x (N, C, H, W)."""
        return self.how.soften(self.net(x))
