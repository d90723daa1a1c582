"""A toy attack that writes down the predictions that it eavesdropped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Attack, Goal, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import ScoreVictim


@dataclass(frozen=True, kw_only=True)
class ToyListening(Attack[ScoreVictim]):
    """The first pixels of each image are the released probabilities; of a class they are all 0.

    Args:
        goal: "instance" or "class".
    """

    name = "toy_listening"
    access = ScoreVictim
    card = Card(title="Toy: predictions as pixels")

    goal: Goal = "instance"

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Black images."""
        return Reconstructions.collect(torch.zeros(len(targets), *victim.shape), targets)

    def reconstruct(
        self, victim: ScoreVictim, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        """Black images with one probability a pixel in their first row."""
        images = torch.zeros(len(targets), *victim.shape)
        images[:, 0, 0, : released.shape[1]] = released
        return Reconstructions.collect(images, targets)
