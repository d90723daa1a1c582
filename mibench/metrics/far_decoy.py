"""False accepts of the decoy: real images of the decoy person that the model takes for the protected one."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._rates import false_accepts


@dataclass(frozen=True, kw_only=True)
class FalseAcceptDecoy(Metric):
    """Share of the decoy person's real public images that the deployed model labels as the protected one.

    Decoy defenses (NetGuard, GAN-D, GAN-ID) teach the model this mistake. The images are the defender's, who
    chose the decoy among them. None without a decoy. The interval counts protected labels.
    """

    name = "far_decoy"
    title = "FAR (decoy)"
    better = "lower"
    percent = True
    card = Card(title="False accept rate of the decoy person")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The rate; see Metric.measure."""
        return false_accepts(case, decoys=True)
