"""Negative control: the mean public face, whatever the target.

An attack that does not beat it has told nothing about anybody; it scores what the judge sees in nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim


@dataclass(frozen=True, kw_only=True)
class MeanFace(Attack[LabelVictim]):
    """The mean of the public images for every target; asks nothing of the victim."""

    name = "mean_face"
    access = LabelVictim
    control = True
    card = Card(title="Control: the mean public face")

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """The mean public face, (C, H, W)."""
        return {"mean": public.mean(0)}

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The mean public face once for each target."""
        return Reconstructions.collect(prior["mean"].expand(len(targets), *victim.shape), targets)
