"""Only the largest probabilities are released; the others are 0.

A control: it takes the long tail of a prediction away, which tells an inversion network much about the
image, and keeps what a search for one label reads.

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

from ._simplex import Reshaped, keep_label, note_distortion, top_label


@dataclass(frozen=True, kw_only=True)
class TopK(Defense):
    """The k largest probabilities, normalized; the label keeps the largest one.

    Args:
        k: how many are released, >= 0; 0 and more than there are release all of them.
    """

    name = "top_k"
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"rounding"})
    card = Card(
        title="Membership inference attacks against machine learning models",
        paper="arXiv:1610.05820",
        year=2017,
        deviations=("What is released is divided by its sum, because only probabilities are released here.",),
    )

    neutral: ClassVar[Settings | None] = {"k": 0}
    strength: ClassVar[str] = "k"
    strength_levels: ClassVar[tuple[object, ...]] = (10, 5, 3, 1)

    k: int = 3

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError(f"top_k: k must be >= 0, got {self.k}.")

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.k > 0:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net that releases its k largest probabilities; see Defense."""
        if self.k == 0:
            return Released(net)
        return Reshaped(net, lambda scores, _: self.cut(scores))

    def cut(self, scores: Tensor) -> Tensor:
        """Probabilities (N, K) of which at most k are not 0."""
        if self.k >= scores.shape[1]:
            return scores
        label = top_label(scores)
        # the label is among them also where others tie with it
        index = scores.scatter(1, label, torch.inf).topk(self.k, dim=1).indices
        kept = torch.zeros_like(scores).scatter(1, index, scores.gather(1, index))
        return keep_label(kept / kept.sum(1, keepdim=True), label)
