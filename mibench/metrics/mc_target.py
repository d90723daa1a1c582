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

    Each model is asked about the labels that it protects. Intervals as for `mc_all`. None where no test image
    shows a protected person.
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
        hits = []
        labels = case.private_test.labels
        for model in case.victims:
            shown = torch.isin(labels, torch.tensor(model.protects))
            if bool(shown.any()):
                hits.append((case.test_answers(model) == labels)[shown])
        if not hits:
            return None
        sizes = torch.tensor([len(part) for part in hits])
        return rate(torch.cat(hits), torch.arange(len(hits)).repeat_interleave(sizes))
