"""Attack accuracy by the audit judge: another architecture, trained apart from the judge."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._second import first_places, share


@dataclass(frozen=True, kw_only=True)
class AuditAccuracy(Metric):
    """The audit judge's top-1 accuracy on the reconstructions of protected labels; interval as for `aa`.

    Its level compares with `aa` only as far as the two judges' accuracies on real test images do.
    """

    name = "aa_audit"
    title = "AA (audit)"
    better = "lower"
    percent = True
    needs = frozenset({"audit"})
    card = Card(title="Top-1 attack accuracy by a second judge", paper="arXiv:2505.03519", year=2025)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return share(case, first_places(case, case.audit_logits))
