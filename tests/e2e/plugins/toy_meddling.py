"""An attack that changes its victim; for tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim


@dataclass(frozen=True, kw_only=True)
class ToyMeddling(Attack[WhiteBoxVictim]):
    """Adds one to a weight of the victim."""

    name = "toy_meddling"
    access = WhiteBoxVictim
    card = Card(title="Toy: changes its victim")

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Gray images, and a changed victim."""
        with torch.no_grad():
            next(victim.net.parameters()).add_(1)
        return Reconstructions.collect(torch.full((len(targets), *victim.shape), 0.5), targets)
