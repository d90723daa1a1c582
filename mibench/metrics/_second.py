"""What a second opinion says of the judge's successes: the part that all metrics of the audit share."""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.metric import Case, Estimate
from mibench.rates import in_top, rate


def first_places(case: Case, *opinions: Tensor) -> Tensor:
    """(B,) bool: every opinion (B, K), larger for what is likelier, puts the targeted label first."""
    found = [in_top(opinion, case.got.targets, places=1) for opinion in opinions]
    return torch.stack(found).all(0)


def share(case: Case, hits: Tensor, *, among: Tensor | None = None) -> Estimate | None:
    """The share of hits (B,) among the protected labels' reconstructions, grouped by label.

    Args:
        case: the cell.
        hits: (B,) bool.
        among: (B,) bool, which reconstructions count; None takes all.
    """
    rows = case.protected if among is None else case.protected & among
    return rate(hits[rows], case.got.targets[rows])
