"""Intervals, and the distance between two clouds of points: the statistics that metrics share."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor

LEVEL = 0.95
_MAX_DRAWN = 2_000_000  # numbers drawn at once in a bootstrap: 16 MB


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate by Wilson's score method.

    Source: Wilson, JASA 22 (1927). It keeps a positive width at 0 and 1, where a bootstrap has none.

    Args:
        successes: number of hits, in [0, count].
        count: number of independent trials, >= 1.

    Returns:
        Lower and upper end, in [0, 1].

    >>> [round(end, 3) for end in wilson(0, 10)]
    [0.0, 0.278]
    """
    interval = binomtest(successes, count).proportion_ci(confidence_level=LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def nested_bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, seed: int, draws: int = 2000
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of grouped values, by a bootstrap of two stages.

    Each draw takes as many groups as there are, with replacement, and within each taken group as many
    values as it has, with replacement; its statistic is the mean of all values taken. The order of the
    values does not matter. Source: Davison and Hinkley, Bootstrap Methods and their Application (1997),
    section 3.8. The interval is too wide where groups do not differ, and too narrow below about 10 groups
    that do; see `tests/unit/test_statistics.py` for measured coverages.

    Args:
        values: (N,), N >= 1.
        groups: (N,), which group (target, model) each value belongs to.
        seed: of the draws.
        draws: number of bootstrap draws, >= 1.

    Returns:
        Lower and upper end.
    """
    ordered = values[np.lexsort((values, groups))]
    _, sizes = np.unique(groups, return_counts=True)
    starts = np.cumsum(sizes) - sizes
    longest = int(sizes.max())
    random = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    chunk = max(1, _MAX_DRAWN // (len(sizes) * longest))
    for first in range(0, draws, chunk):
        rows = min(chunk, draws - first)
        taken = random.integers(len(sizes), size=(rows, len(sizes)))
        size = sizes[taken][..., None]
        within = np.floor(random.random((rows, len(sizes), longest)) * size).astype(np.int64)
        drawn = ordered[starts[taken][..., None] + within]
        inside = np.arange(longest) < size
        means.append((drawn * inside).sum((1, 2)) / inside.sum((1, 2)))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between the Gaussians with the means and sample covariances of two clouds.

    |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a^1/2 S_b S_a^1/2)^1/2, in float64, S with divisor N - 1.
    Source: Dowson and Landau, J. Multivariate Anal. 12 (1982); as the FID: Heusel et al., NeurIPS 2017.

    With S = R^T R, where R is the triangular factor of the centered points / sqrt(N - 1), the last trace is
    the sum of the singular values of R_a R_b^T. That needs no square root of a singular matrix, whose
    rounding (about 1e-8 for each null direction) a decomposition of S_a^1/2 S_b S_a^1/2 would add up.

    Args:
        a: (N, D), N >= 2.
        b: (M, D), M >= 2.

    Raises:
        ValueError: fewer than two points in a cloud.

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
    9.0
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: a covariance needs two points, got {len(a)} and {len(b)}.")
    x, y = a.double(), b.double()
    r, s = _factor(x), _factor(y)
    cross = torch.linalg.svdvals(r @ s.T).sum()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    distance = apart + r.square().sum() + s.square().sum() - 2 * cross
    return max(0.0, float(distance))  # rounding takes equal clouds a hair below 0


def _factor(points: Tensor) -> Tensor:
    """Triangular R, (min(N, D), D), with R^T R the sample covariance of points (N, D)."""
    centered = (points - points.mean(0)) / (len(points) - 1) ** 0.5
    factor: Tensor = torch.linalg.qr(centered, mode="r")[1]
    return factor
