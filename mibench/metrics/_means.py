"""Means over reconstructions with their intervals: the part that all averaged distances share."""

from __future__ import annotations

import math

from torch import Tensor

from mibench.metric import Estimate
from mibench.noise import derive_seed
from mibench.plugin import Context
from mibench.statistics import nested_bootstrap


def mean_of(values: Tensor, groups: Tensor, ctx: Context, *, least: float = -math.inf) -> Estimate | None:
    """The mean of values (N,) with its 95 % interval, which resamples groups, then values.

    Args:
        values: (N,), float64.
        groups: (N,), int64; which label each value belongs to.
        ctx: gives the seed of the interval.
        least: no value can be below it, so the interval ends there; with few groups Student's t reaches on.

    Returns:
        The estimate; None without values.
    """
    if len(values) == 0:
        return None
    low, high = nested_bootstrap(values.numpy(), groups.numpy(), seed=derive_seed(ctx.seed, "interval"))
    value = float(values.mean())
    # means of equal values differ by rounding
    return Estimate(value, max(least, min(low, value)), max(high, value), len(values))
