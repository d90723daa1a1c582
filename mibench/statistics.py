"""Intervals of rates and means; needs no torch, so that reports may use them too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
    from scipy.stats import binomtest  # half a second to import

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


def bootstrap_mean(values: NDArray[np.float64], *, draws: int = 2000) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of values (N,), N >= 1; the same for the same values.

    Source: Efron, Annals of Statistics 7 (1979).
    """
    random = np.random.default_rng(0)
    means = values[random.integers(len(values), size=(draws, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def sign_flip(differences: NDArray[np.float64], *, draws: int = 9999) -> float:
    """The two-sided p-value of paired differences (N,), N >= 1, having a mean of zero.

    Under the null hypothesis each difference is as likely to have either sign. All sign patterns are tried
    where there are at most `draws` of them, else `draws` random ones; so the least p-value for N pairs is
    2 / 2^N. Source: Fisher, The Design of Experiments (1935), section 21.

    >>> sign_flip(np.array([0.5, 0.25, 0.75, 1.0]))
    0.125
    """
    from scipy.stats import permutation_test

    if len(differences) == 1 or not differences.any():
        return 1.0
    found = permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=draws,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values (N,) adjusted to be read together: with 5 % chance at most any below 0.05 is a false alarm.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
