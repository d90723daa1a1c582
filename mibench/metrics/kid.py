"""Kernel distance between reconstructions and the real images of the same people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mibench.metric import Case, Estimate, Metric
from mibench.plugin import Card, Context

from ._features import compared

_ROWS = 1024  # of a kernel matrix held at once, which may have subset_size columns


@dataclass(frozen=True, kw_only=True)
class KernelDistance(Metric):
    """Squared maximum mean discrepancy of protected labels' reconstructions and their training images.

    The unbiased estimate with the kernel (x . y / D + 1)^3 of the judge's D penultimate features, in float64,
    averaged over random subsets; with as many images as `subset_size` or fewer there is one subset,
    all of them. Unlike `fid` it has no bias that depends on n, so it may lie below 0. No interval: a
    bootstrap repeats images, whose kernel with themselves is large. None below two images.

    Args:
        subset_size: images of a subset, of reconstructions and of real ones each, >= 2.
        subsets: how many subsets are averaged, >= 1.
    """

    name = "kid"
    title = "KID"
    better = "higher"
    card = Card(
        title="Demystifying MMD GANs",
        paper="arXiv:1801.01401",
        year=2018,
        deviations=(
            "The judge's features; the paper's are Inception's.",
            "As computed; others print it times 100 or 1000.",
        ),
    )
    subset_size: int = 1000
    subsets: int = 100

    def __post_init__(self) -> None:
        if self.subset_size < 2 or self.subsets < 1:
            raise ValueError(
                f"kid: subset_size must be >= 2 and subsets >= 1, got {self.subset_size} and {self.subsets}."
            )

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The distance; `count` is the number of reconstructions."""
        got, real = (cloud.double() for cloud in compared(case))
        if min(len(got), len(real)) < 2:
            return None
        if max(len(got), len(real)) <= self.subset_size:
            value = squared_discrepancy(got, real)
        else:
            value = self._over_subsets(_in_order(got), _in_order(real), ctx)
        return Estimate(value, value, value, len(got))

    def _over_subsets(self, got: Tensor, real: Tensor, ctx: Context) -> float:
        """The mean over random subsets."""
        generator = ctx.generator("subsets")
        total = 0.0
        for _ in range(self.subsets):
            drawn = [
                cloud[torch.randperm(len(cloud), generator=generator)[: self.subset_size]]
                for cloud in (got, real)
            ]
            total += squared_discrepancy(*drawn)
        return total / self.subsets


def squared_discrepancy(a: Tensor, b: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy of clouds (N, D) and (M, D), N and M >= 2.

    The mean kernel of two different points of a, plus that of b, less twice that of a point of each.
    Source: Gretton et al., JMLR 13 (2012), equation 3; the kernel: Binkowski et al., ICLR 2018, section 4.
    """
    within = sum((_sum(x, x) - float(_kernel_diagonal(x).sum())) / (len(x) * (len(x) - 1)) for x in (a, b))
    return within - 2 * _sum(a, b) / (len(a) * len(b))


def _sum(a: Tensor, b: Tensor) -> float:
    """The sum of the kernel over all pairs of a point of a (N, D) and one of b (M, D)."""
    return float(sum((part @ b.T / b.shape[1] + 1).pow(3).sum() for part in a.split(_ROWS)))


def _kernel_diagonal(x: Tensor) -> Tensor:
    """The kernel of each of x (N, D) with itself: (N,)."""
    return (x.square().mean(1) + 1).pow(3)


def _in_order(points: Tensor) -> Tensor:
    """Rows in an order that hangs on their values alone, so that the images' order changes no subset."""
    return points[torch.from_numpy(np.lexsort(points.T.numpy()))]
