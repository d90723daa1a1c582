"""An attack that kills the process it runs in; for tests."""

import os
import signal
from dataclasses import dataclass

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim


@dataclass(frozen=True, kw_only=True)
class ToyFatal(Attack[LabelVictim]):
    """Kills its process, as the kernel does when memory runs out."""

    name = "toy_fatal"
    access = LabelVictim
    card = Card(title="Toy: out of memory")

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Never returns."""
        os.kill(os.getpid(), signal.SIGKILL)
        return Reconstructions.collect(targets.new_zeros(0), targets)
