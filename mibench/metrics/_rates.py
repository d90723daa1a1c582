"""Rates with their intervals: the part that all percentages share."""

from __future__ import annotations

import torch

from mibench.metric import Case, Estimate
from mibench.rates import crossed_rate, in_top, rate


def judged(case: Case, *, places: int) -> Estimate | None:
    """Share of the protected labels' reconstructions in the judge's first `places`, grouped by label."""
    rows = case.protected
    return rate(in_top(case.logits, case.got.targets, places=places)[rows], case.got.targets[rows])


def false_accepts(case: Case, *, decoys: bool) -> Estimate | None:
    """Share of real public images that the deployed models take for a label that they protect.

    Every protected label counts by itself, so that one model with many labels and many models with one
    compare. All labels are held against the same public images, and each decoy against its own.

    Args:
        case: the cell.
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
    if not hits:
        return None
    return rate(torch.cat(hits), torch.cat(groups)) if decoys else crossed_rate(torch.stack(hits))
