"""Agreement: how many of the judge's successes the audit judge confirms."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._second import first_places, share


@dataclass(frozen=True, kw_only=True)
class Agreement(Metric):
    """Share of the judge's successes on protected labels that the audit judge gives to the label as well.

    Real images of the right people have about the audit judge's own accuracy, images that fool the judge
    alone about chance. `count` is the number of successes; None where there is none. The interval
    counts labels.
    """

    name = "agreement"
    title = "Agreement"
    better = "lower"
    percent = True
    needs = frozenset({"audit"})
    card = Card(title="Successes that a second judge confirms", paper="arXiv:2505.03519", year=2025)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The share; see Metric.measure."""
        successes = first_places(case, case.logits)
        return share(case, first_places(case, case.audit_logits), among=successes)
