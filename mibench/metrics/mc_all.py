"""Accuracy of the deployed, defended victim on the private test images: what the defense costs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context
from mibench.rates import crossed_rate


@dataclass(frozen=True, kw_only=True)
class McAll(Metric):
    """Share of all private test images that the deployed model labels right.

    With several models (one a protected label) the mean over models, all of them asked about the same images;
    the interval counts both. With one model it is Wilson's. `count` is the number of answers.
    """

    name = "mc_all"
    title = "MC (all)"
    better = "higher"
    percent = True
    card = Card(title="Classification accuracy of the defended model on all labels")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        test = case.private_test
        return crossed_rate(torch.stack([case.test_answers(model) == test.labels for model in case.victims]))
