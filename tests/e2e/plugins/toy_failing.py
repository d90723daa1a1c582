"""An attack that raises on one label's images only after asking; for tests."""

from dataclasses import dataclass

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim


@dataclass(frozen=True, kw_only=True)
class ToyFailing(Attack[LabelVictim]):
    """Raises a ZeroDivisionError."""

    name = "toy_failing"
    access = LabelVictim
    card = Card(title="Toy: raises")

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Never returns."""
        raise ZeroDivisionError("toy attack divides by zero")
