"""Accuracy of the deployed, defended victim on the people that it protects."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context
from mibench.rates import rate


@dataclass(frozen=True, kw_only=True)
class McTarget(Metric):
    """Share of the protected labels' private test images that the deployed model labels right.

    Each model is asked about the labels that it protects; the interval counts labels, as that of `aa`. None
    where no test image shows a protected person.
    """

    name = "mc_target"
    title = "MC (target)"
    better = "higher"
    percent = True
    card = Card(
        title="Classification accuracy of the defended model on the protected label",
        deviations=("All test images of the label; the TIFS 2023 tables have two, hence 0, 50 or 100 %.",),
    )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        labels = case.private_test.labels
        shown = [torch.isin(labels, torch.tensor(model.protects)) for model in case.victims]
        hits = [(case.test_answers(model) == labels)[own] for model, own in zip(case.victims, shown)]
        return rate(torch.cat(hits), torch.cat([labels[own] for own in shown]))
