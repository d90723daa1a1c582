"""Attack accuracy: how often the judge takes a reconstruction for the person that it should show."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._rates import judged


@dataclass(frozen=True, kw_only=True)
class AttackAccuracy(Metric):
    """The judge's top-1 accuracy on the reconstructions of protected labels.

    The interval counts labels, see `mibench.rates.rate`; one label has Wilson's. A high value is no proof:
    the judge also accepts images that show nobody (arXiv:2505.03519), so read it beside `aa_null`, the audit
    and the pictures.
    """

    name = "aa"
    title = "AA"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy", paper="arXiv:1911.07135", year=2020)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return judged(case, places=1)
