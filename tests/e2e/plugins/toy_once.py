"""An attack that kills its first process and then works; for tests."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import ScoreVictim


@dataclass(frozen=True, kw_only=True)
class ToyOnce(Attack[ScoreVictim]):
    """Kills its process unless a file is there, which it leaves first.

    Args:
        file: path of it.
    """

    name = "toy_once"
    access = ScoreVictim
    card = Card(title="Toy: killed once")
    file: str = "never"

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Noise, where it is not killed."""
        if not Path(self.file).exists():
            Path(self.file).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Reconstructions.collect(ctx.noise(targets).normal("images", *victim.shape), targets)
