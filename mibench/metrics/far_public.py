"""False accepts of strangers: real public images that the model takes for a protected person."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._rates import false_accepts


@dataclass(frozen=True, kw_only=True)
class FalseAcceptPublic(Metric):
    """Share of all the defender's public images that the deployed model gives to a protected label.

    The mean over protected labels. The model must name somebody, so an undefended one has about 1 / K;
    what a decoy defense adds to that is its price. The interval counts both labels and images.
    """

    name = "far_public"
    title = "FAR (public)"
    better = "lower"
    percent = True
    asks_public = True
    card = Card(title="False accept rate of people that the model was never taught")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The rate; see Metric.measure."""
        return false_accepts(case, decoys=False)
