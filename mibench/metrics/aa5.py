"""Top-5 attack accuracy: the judge puts the right person among its five first guesses."""

from __future__ import annotations

from dataclasses import dataclass

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._rates import judged


@dataclass(frozen=True, kw_only=True)
class AttackAccuracyTop5(Metric):
    """The judge's top-5 accuracy on the reconstructions of protected labels; interval as for `aa`."""

    name = "aa5"
    title = "AA5"
    better = "lower"
    percent = True
    card = Card(title="Top-5 attack accuracy", paper="arXiv:1911.07135", year=2020)

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        return judged(case, places=5)
