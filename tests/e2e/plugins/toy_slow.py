"""An attack that says who it is and then works for a minute; for tests."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim


@dataclass(frozen=True, kw_only=True)
class ToySlow(Attack[LabelVictim]):
    """Sleeps in steps of 50 ms, and reports each.

    Args:
        file: path where it leaves the number of its process.
        steps: how many.
    """

    name = "toy_slow"
    access = LabelVictim
    card = Card(title="Toy: a minute")
    file: str = "never"
    steps: int = 1200

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Black images."""
        Path(self.file).write_text(str(os.getpid()), encoding="ascii")
        for step in range(self.steps):
            time.sleep(0.05)
            ctx.report(step + 1, self.steps)
        return Reconstructions.collect(torch.zeros(len(targets), *victim.shape), targets)
