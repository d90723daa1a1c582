"""Rates with their intervals: the part that all percentages share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mibench.metric import Case, Estimate
from mibench.noise import derive_seed
from mibench.plugin import Context
from mibench.statistics import nested_bootstrap, wilson


def rate(hits: Tensor, groups: Tensor, ctx: Context, *, scale: float = 1.0) -> Estimate | None:
    """The share of hits with its 95 % interval.

    One group, or hits that are all alike, take Wilson's interval (a bootstrap of equal values has no width);
    several groups take the nested bootstrap over groups, then hits.

    Args:
        hits: (N,), bool.
        groups: (N,), int64; which target or model each hit belongs to.
        ctx: gives the seed of the bootstrap.
        scale: factor on the share and its interval.

    Returns:
        The estimate; None without hits to count.
    """
    count = len(hits)
    if count == 0:
        return None
    successes = int(hits.sum())
    if successes in (0, count) or len(groups.unique()) == 1:
        low, high = wilson(successes, count)
    else:
        seed = derive_seed(ctx.seed, "interval")
        low, high = nested_bootstrap(hits.numpy().astype(np.float64), groups.numpy(), seed=seed)
    return Estimate(scale * successes / count, scale * low, scale * high, count)


def in_top(case: Case, places: int) -> Tensor:
    """(B,) bool: the judge puts the target among its `places` first labels.

    Ties and NaN count against the attack: a judge that says the same of all labels accepts nothing.
    """
    wanted = case.logits.gather(1, case.got.targets[:, None])
    return (~(case.logits < wanted)).sum(1) <= places


def judged(case: Case, ctx: Context, *, places: int) -> Estimate | None:
    """Share of the protected labels' reconstructions in the judge's first `places`, grouped by label."""
    rows = case.protected
    return rate(in_top(case, places)[rows], case.got.targets[rows], ctx)


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
        public = case.defender_public
        if decoys:
            if model.decoy is None:
                continue
            public = public.of(model.decoy)
        answers = model.victim.labels(public.images)
        for label in model.protects:
            hits.append(answers == label)
            groups.append(torch.full_like(answers, label))
    return rate(torch.cat(hits), torch.cat(groups), ctx) if hits else None
