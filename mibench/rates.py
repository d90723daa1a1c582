"""Shares of hits with their intervals, and what a judge counts as a hit."""

from __future__ import annotations

from torch import Tensor

from mibench.metric import Estimate
from mibench.noise import derive_seed
from mibench.plugin import Context
from mibench.statistics import crossed_wilson, grouped_wilson, nested_bootstrap


def rate(hits: Tensor, groups: Tensor, *, scale: float = 1.0) -> Estimate | None:
    """The share of hits with its 95 % interval.

    The interval is Wilson's with as many independent trials as the differences between groups leave; see
    `mibench.statistics.grouped_wilson`.

    Args:
        hits: (N,), bool.
        groups: (N,), int64; which target or model each hit belongs to.
        scale: factor on the share and its interval.

    Returns:
        The estimate; None without hits to count.
    """
    count = len(hits)
    if count == 0:
        return None
    low, high = grouped_wilson(hits.numpy(), groups.numpy())
    return Estimate(scale * int(hits.sum()) / count, scale * low, scale * high, count)


def crossed_rate(hits: Tensor) -> Estimate:
    """The share of hits of several models (or labels) that are all asked about the same images.

    Args:
        hits: (K, N), bool, K and N >= 1.

    Returns:
        The estimate with the interval of `mibench.statistics.crossed_wilson`.
    """
    low, high = crossed_wilson(hits.numpy())
    return Estimate(int(hits.sum()) / hits.numel(), low, high, hits.numel())


def in_top(logits: Tensor, targets: Tensor, *, places: int) -> Tensor:
    """(B,) bool: logits (B, K) put the label of targets (B,) among the first `places`.

    Ties and NaN count against the attack: a judge that says the same of all labels accepts nothing.
    """
    wanted = logits.gather(1, targets[:, None])
    return (~(logits < wanted)).sum(1) <= places


def gain(before: Tensor, after: Tensor, groups: Tensor, ctx: Context) -> Estimate:
    """By how much the share of hits rises from one set of images to another, paired, with a 95 % interval.

    Where every row changes alike the interval is Wilson's, of the share of rows that do (a bootstrap of equal
    values has no width); where none changes it holds both signs.

    Args:
        before: (N,), bool, N >= 1.
        after: (N,), bool; row by row of the same target.
        groups: (N,), int64; which target each row belongs to.
        ctx: gives the seed of the bootstrap (over groups, then rows).
    """
    change = after.double() - before.double()
    count, first = len(change), int(change[0])
    if bool((change != first).any()):
        low, high = nested_bootstrap(change.numpy(), groups.numpy(), seed=derive_seed(ctx.seed, "gain"))
        return Estimate(float(change.mean()), max(-1.0, low), min(1.0, high), count)
    least, most = grouped_wilson(before.new_full((count,), first != 0).numpy(), groups.numpy())
    ends = {1: (least, most), 0: (-most, most), -1: (-most, -least)}
    return Estimate(float(first), *ends[first], count)
