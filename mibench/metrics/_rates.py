"""Rates with their intervals: the part that all percentages share."""

from __future__ import annotations

import torch

from mibench.metric import Case, Estimate
from mibench.plugin import Context
from mibench.rates import in_top, rate


def judged(case: Case, ctx: Context, *, places: int) -> Estimate | None:
    """Share of the protected labels' reconstructions in the judge's first `places`, grouped by label."""
    rows = case.protected
    return rate(in_top(case.logits, case.got.targets, places=places)[rows], case.got.targets[rows], ctx)


def false_accepts(case: Case, ctx: Context, *, decoys: bool) -> Estimate | None:
    """Share of real public images that the deployed models take for a label that they protect.

    Every protected label counts by itself, so that one model with many labels and many models with one
    compare.

    Args:
        case: the cell.
        ctx: gives the seed of the interval.
        decoys: only the images of each model's decoy person; models without one are left out.
    """
    hits, groups = [], []
    for model in case.victims:
        if decoys and model.decoy is None:
            continue
        answers = case.public_answers(model, model.decoy if decoys else None)
        for label in model.protects:
            hits.append(answers == label)
            groups.append(torch.full_like(answers, label))
    return rate(torch.cat(hits), torch.cat(groups), ctx) if hits else None
