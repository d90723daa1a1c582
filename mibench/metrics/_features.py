"""The judge's features of what was reconstructed and of what is real, for distances between the two."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.metric import Case, Estimate
from mibench.plugin import Context

from ._means import mean_of


def compared(case: Case) -> tuple[Tensor, Tensor]:
    """Features of the protected labels' reconstructions, (N, D), and of their real images, (M, D).

    Real are the private training images of the labels that occur, so a label attacked less often weighs as
    much among them as any other.
    """
    return case.features[case.protected], case.real_features[0]


def to_own_people(case: Case, ctx: Context, distance: Callable[[Tensor, Tensor], Tensor]) -> Estimate | None:
    """The mean distance of protected labels' reconstructions to their own label's training images.

    The interval resamples labels, then reconstructions.

    Args:
        case: the cell.
        ctx: gives the seed of the interval.
        distance: features (N, D) of one label's reconstructions and (M, D) of its real images, float64 -> a
            number for each reconstruction, (N,).

    Returns:
        The estimate; None without protected reconstructions.
    """
    real, labels = case.real_features
    got, targets = case.features[case.protected], case.got.targets[case.protected]
    values = torch.zeros(len(got), dtype=torch.float64)
    for label in targets.unique():
        rows, own = targets == label, real[labels == label].double()
        values[rows] = torch.cat([distance(part, own) for part in got[rows].double().split(case.max_batch)])
    return mean_of(values, targets, ctx, least=0.0)
