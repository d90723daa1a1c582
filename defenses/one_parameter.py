"""A confidence vector drawn anew between its neighbors' ranks: the order of the classes is all that is left.

The scores, sorted, split the range of probabilities into one interval each. In every interval the exponential
mechanism of differential privacy draws a value, nearer to the score the larger the budget; then the vector
is normalized. The order of the classes, and with it the accuracy, stays; whoever needs no more than ranks or
labels is not hindered.

Source: One Parameter Defense, IEEE TIFS 2022 (arXiv:2203.06580), of which the abstract could be read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.noise import hash_uniform
from mibench.plugin import Card, Context, Settings

from ._simplex import Key, Reshaped, Streams, keep_label, note_distortion, top_label


@dataclass(frozen=True, kw_only=True)
class OneParameter(Defense):
    """The exponential mechanism on a grid in the interval of each rank.

    Args:
        epsilon: privacy budget, >= 0: 0 draws evenly from each interval; None switches the defense off.
        levels: values of the grid in each interval, >= 1; 1 takes its middle.
        key: what the draw hangs on: the "image", or the released "vector" rounded to 0.001.
        fresh: draw anew for every query.
    """

    name = "one_parameter"
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="One parameter defense: defending against data inference attacks via differential privacy",
        paper="arXiv:2203.06580",
        year=2022,
        deviations=(
            "Only the abstract could be read; intervals and grid are our reconstruction.",
            "The budget holds for one score as if it could move by 1; no guarantee for images is claimed.",
            "The draw hangs on the image, so that repeats do not average it out; `fresh` draws anew.",
        ),
    )

    neutral: ClassVar[Settings | None] = {"epsilon": None}
    strength: ClassVar[str] = "epsilon"
    strength_levels: ClassVar[tuple[object, ...]] = (10.0, 1.0, 0.1)

    epsilon: float | None = 1.0
    levels: int = 16
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.epsilon is not None and not self.epsilon >= 0:
            raise ValueError(f"one_parameter: epsilon must be >= 0, got {self.epsilon}.")
        if self.levels < 1:
            raise ValueError(f"one_parameter: levels must be >= 1, got {self.levels}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats take off noise that is drawn anew, other views noise that is keyed; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """No state; the distortion goes on record, see `note_distortion`."""
        if self.epsilon is not None:
            note_distortion(self, net, {}, view, ctx)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net whose scores are drawn anew; see Defense."""
        if self.epsilon is None:
            return Released(net)
        streams = Streams(ctx, key=self.key, fresh=self.fresh)
        return Reshaped(net, lambda scores, x: self.redraw(scores, streams.of(scores, x)))

    def redraw(self, scores: Tensor, keys: Tensor) -> Tensor:
        """Probabilities (N, K) in the order of scores (N, K).

        The chance of a value v near the score s falls with exp(-epsilon |v - s| / 2), the exponential
        mechanism for a score that may move by 1.

        Args:
            scores: of the victim.
            keys: (N,), int64, one stream for each row.
        """
        ordered, index = scores.sort(dim=1, descending=True, stable=True)
        between = (ordered[:, :-1] + ordered[:, 1:]) / 2
        upper = torch.cat([torch.ones_like(ordered[:, :1]), between], dim=1)
        lower = torch.cat([between, torch.zeros_like(ordered[:, :1])], dim=1)
        # the middles of equal parts: two intervals have an end, but no value of the grid in common
        parts = (torch.arange(self.levels, device=scores.device) + 0.5) / self.levels
        grid = lower[..., None] + (upper - lower)[..., None] * parts
        budget = 0.0 if self.epsilon is None else self.epsilon
        chances = (-0.5 * budget * (grid - ordered[..., None]).abs()).softmax(2).cumsum(2)
        drawn = (chances < hash_uniform(keys, scores.shape[1])[..., None]).sum(2, keepdim=True)
        values = grid.gather(2, drawn.clamp_max(self.levels - 1)).squeeze(2)
        moved = torch.empty_like(scores).scatter(1, index, values)
        return keep_label(moved / moved.sum(1, keepdim=True), top_label(scores))
