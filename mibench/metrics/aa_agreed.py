"""The attack accuracy that survives the audit: both judges say the targeted person."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._second import first_places, share


@dataclass(frozen=True, kw_only=True)
class AgreedAccuracy(Metric):
    """Share of protected labels' reconstructions that both judges give to the label; interval as for `aa`.

    It is at most `aa` and at most `aa_audit`.
    """

    name = "aa_agreed"
    title = "AA (agreed)"
    better = "lower"
    percent = True
    needs = frozenset({"audit"})
    card = Card(title="Top-1 attack accuracy on which two judges agree", paper="arXiv:2505.03519", year=2025)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return share(case, first_places(case, case.logits, case.audit_logits))
