"""Random noise of a given norm on the released vector: what a defense that aims its noise must beat.

A control, and the one that a paper on aimed perturbations has to show: the same distance from the victim's
vector and the same kept label, in a random direction. Set `norm` and `budget` to what the other defense puts
on record (`<name>_l1`, `<name>_linf`).

Source: a control without a paper of its own; asked for by LPA (arXiv:2412.07575) and its like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.noise import hash_normal
from mibench.plugin import Card, Context, Settings

from ._simplex import (
    Key,
    Norm,
    Reshaped,
    Streams,
    keep_label,
    length,
    note_distortion,
    project_far,
    top_label,
    within,
)

_TRIES = 12  # doublings of the noise before it is taken as it is


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Defense):
    """Gaussian noise, projected to the simplex and scaled to a norm; the label stays.

    Args:
        budget: norm of the change, >= 0; 0 switches the defense off. A vector that noise cannot move so far
            on the simplex is moved as far as it goes.
        norm: "inf", "l1" or "l2".
        key: what the noise hangs on: the "image", or the released "vector" rounded to 0.001.
        fresh: draw the noise anew for every query.
    """

    name = "random_noise"
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"keyed_noise"})
    card = Card(title="Random noise of equal norm on the released vector")

    neutral: ClassVar[Settings | None] = {"budget": 0.0}
    strength: ClassVar[str] = "budget"
    strength_levels: ClassVar[tuple[object, ...]] = (0.1, 0.2, 0.5, 1.0)

    budget: float = 0.2
    norm: Norm = "l1"
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.budget >= 0:
            raise ValueError(f"random_noise: budget must be >= 0, got {self.budget}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats take off noise that is drawn anew, other views noise that is keyed; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.budget > 0:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with noisy release; see Defense."""
        if self.budget == 0:
            return Released(net)
        streams = Streams(ctx, key=self.key, fresh=self.fresh)
        return Reshaped(net, lambda scores, x: self.disturb(scores, streams.of(scores, x)))

    def disturb(self, scores: Tensor, keys: Tensor) -> Tensor:
        """Probabilities (N, K) at distance `budget` of scores (N, K).

        Args:
            scores: of the victim.
            keys: (N,), int64, one stream for each row.
        """
        label = top_label(scores)
        noise = hash_normal(keys, scores.shape[1])
        noise = noise / length(noise, self.norm)
        moved, size = scores, torch.full_like(noise[:, :1], self.budget)
        for _ in range(_TRIES):  # the projection takes a part of the noise off again
            moved = keep_label(project_far(scores + size * noise), label)
            size = torch.where(length(moved - scores, self.norm) < self.budget, 2 * size, size)
        return within(moved, scores, self.budget, self.norm)
