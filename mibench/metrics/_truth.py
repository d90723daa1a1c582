"""Reconstructions beside the very images behind them: the part that all pairwise distances share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mibench.metric import Case, Estimate
from mibench.plugin import Context

from ._means import mean_of


def averaged(
    case: Case, ctx: Context, distance: Callable[[Tensor, Tensor], Tensor], *, least: float = -math.inf
) -> Estimate | None:
    """The mean distance of protected labels' reconstructions to their true images, with its 95 % interval.

    The interval resamples labels, then images.

    Args:
        case: the cell.
        ctx: gives the seed of the interval.
        distance: two batches of images (N, C, H, W), float64 in [0, 1] -> a number for each pair, (N,).
        least: no distance can be below it, see `mean_of`.

    Returns:
        The estimate; None where the attack had the goal "class", so that there is no true image.
    """
    rows = case.protected
    if case.truth is None or not bool(rows.any()):
        return None
    pairs = zip(case.got.images[rows].split(case.max_batch), case.truth[rows].split(case.max_batch))
    values = torch.cat([distance(got.double(), true.double()) for got, true in pairs])
    return mean_of(values, case.got.targets[rows], ctx, least=least)


def squared_error(got: Tensor, true: Tensor) -> Tensor:
    """Mean squared pixel difference of each pair of images (N, C, H, W): (N,)."""
    return (got - true).square().mean((1, 2, 3))
