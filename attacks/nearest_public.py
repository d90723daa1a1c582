"""Negative control: the public image that the victim likes best for a target.

Nothing is reconstructed: it is a stranger's photograph. Yet it can win against real attacks, which
says how much a table's attack accuracy owes to look-alikes among the public images.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.noise import repeats
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import ScoreVictim

from ._nearest import rank_public, ranked_public


@dataclass(frozen=True, kw_only=True)
class NearestPublic(Attack[ScoreVictim]):
    """The public images with the highest released p_y; repeats of a target take the next ones.

    Args:
        images_per_label: images kept for each label, >= 1; further repeats begin again with the first.
    """

    name = "nearest_public"
    access = ScoreVictim
    control = True
    card = Card(title="Control: the public image with the highest released score")

    images_per_label: int = 8

    def __post_init__(self) -> None:
        if self.images_per_label < 1:
            raise ValueError(f"nearest_public: images_per_label must be >= 1, got {self.images_per_label}.")

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The best images of each label; asks about each public image once. See `rank_public`."""
        return rank_public(victim, public, keep=self.images_per_label)

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The kept images of each target, best first; asks nothing more of the victim."""
        labels = targets.cpu()
        images, scores = ranked_public(prior, labels, repeats(labels))
        return Reconstructions.collect(images, targets, scores)
