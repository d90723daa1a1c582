"""The attack accuracy that wrong labels would get: a negative control of the judge and of the images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context
from mibench.rates import rate


@dataclass(frozen=True, kw_only=True)
class AttackAccuracyNull(Metric):
    """The judge's top-1 accuracy on protected labels' reconstructions after the labels are exchanged.

    Every label is exchanged for another protected one. In a random derangement of T labels each other label
    is as likely, so the expected accuracy is the share of images that the judge gives to *another* protected
    label, over T - 1; it is computed exactly, without drawing one. With one protected label the others are
    all that the judge knows. Images that show the right people score about 0, images of nobody in particular
    about chance.
    """

    name = "aa_null"
    title = "AA (shuffled)"
    better = "lower"
    percent = True
    card = Card(title="Top-1 attack accuracy against exchanged labels")

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The accuracy; see Metric.measure."""
        targets = case.got.targets[case.protected]
        guesses = case.logits[case.protected].argmax(1)
        labels = targets.unique()
        if len(labels) == 1:
            labels = torch.arange(case.logits.shape[1])
        hits = torch.isin(guesses, labels) & (guesses != targets)
        return rate(hits, targets, scale=1 / max(1, len(labels) - 1))
