"""Attack accuracy on every attacked label, the bystanders included."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context
from mibench.rates import in_top, rate


@dataclass(frozen=True, kw_only=True)
class AttackAccuracyAll(Metric):
    """The judge's top-1 accuracy on all reconstructions, protected or not; interval as for `aa`.

    A defense of one label leaves the others as they were: then this lies far above `aa`.
    """

    name = "aa_all"
    title = "AA (all labels)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy over every attacked label")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return rate(in_top(case.logits, case.got.targets, places=1), case.got.targets)
