"""Intervals of rates and means; needs no torch, so that reports may use them too."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
FLIPS = 9999  # sign patterns that a sign-flip test tries at most
_ROUNDING = 1e-12  # of a variance, relative to the squares that it sums: equal shares differ by as much
_NORMAL = 1.959963984540054  # where the normal distribution function reaches (1 + LEVEL) / 2, in float64
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
    z, rate = t_quantile(), successes / count
    scale = 2 * (count + z * z)
    middle = (2 * count * rate + z * z) / scale
    half = z / scale * math.sqrt(4 * count * rate * (1 - rate) + z * z)
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == count else middle + half


def grouped_wilson(hits: NDArray[np.bool_], groups: NDArray[np.int64]) -> tuple[float, float]:
    """The 95 % interval of a rate whose hits come in groups (targets, models), by Wilson's method.

    People differ more than chance would have it, so images of one person are not independent trials. Wilson's
    equation takes the number of independent trials that would give the variance seen between groups,
    p (1 - p) / v with the linearized variance v of a ratio, and the quantile of Student's t for the number of
    groups. Where all hits are alike there is no variance to see, and each group counts as one trial. One
    group has Wilson's plain interval over its images.

    The percentiles of a bootstrap over groups, then images, held the truth in 72 to 99 % of simulations where
    this one held it in 88 to 99 %, the bootstrap worst where few people are found at all
    (`tests/unit/test_intervals.py`): it knows neither the t quantile nor that images are counted twice.
    Source: Kish, Survey Sampling (1965), section 8.2, for the effective number; Korn and Graubard, Survey
    Methodology 24 (1998), for its use in intervals of proportions; Wilson, JASA 22 (1927).

    Args:
        hits: (N,), N >= 1.
        groups: (N,), which group each hit belongs to.

    Returns:
        Lower and upper end, in [0, 1].

    >>> low, high = grouped_wilson(np.array([True, True, True, True, False, False]), np.arange(6) // 2)
    >>> round(low, 2), round(high, 2)
    (0.04, 0.99)
    """
    labels, member = np.unique(groups, return_inverse=True)
    count, num_groups = len(hits), len(labels)
    if num_groups == 1:
        return wilson(int(hits.sum()), count)
    if hits.all() or not hits.any():
        return wilson(num_groups * int(hits[0]), num_groups)
    share = float(hits.mean())
    variance = _variance_of_mean(hits.astype(np.float64), member)
    # shares that are equal by luck leave the images themselves
    trials = share * (1 - share) / variance if variance > 0 else count
    return _wilson_of(share, trials, t_quantile(num_groups - 1))


def crossed_wilson(hits: NDArray[np.bool_]) -> tuple[float, float]:
    """The 95 % interval of a rate of several models that are all asked about the same images.

    Another draw of models and another draw of images would both move the rate, so their variances add; each
    has its own degrees of freedom, joined by Satterthwaite's rule. Then as grouped_wilson. One model, or hits
    that are all alike, have Wilson's plain interval over the images.
    Source: Cameron, Gelbach and Miller, Journal of Business & Economic Statistics 29 (2011), for variances of
    two clusterings, whose small common part is left in here; Satterthwaite, Biometrics Bulletin 2 (1946).

    Args:
        hits: (K, N), of K models on the same N images, K and N >= 1.

    Returns:
        Lower and upper end, in [0, 1].
    """
    models, images = hits.shape
    share = float(hits.mean())
    if models == 1 or share in (0.0, 1.0) or images == 1:
        return wilson(int(hits[0].sum()), images)
    parts = [float(hits.mean(axis).var(ddof=1) / hits.shape[1 - axis]) for axis in (1, 0)]
    variance = sum(parts)
    if variance <= 0:
        return wilson(int(hits[0].sum()), images)
    freedom = variance**2 / (parts[0] ** 2 / (models - 1) + parts[1] ** 2 / (images - 1))
    return _wilson_of(share, share * (1 - share) / variance, t_quantile(freedom))


@lru_cache(maxsize=1024)
def t_quantile(freedom: float = math.inf) -> float:
    """Student's t that the upper end of a 95 % interval reaches; the normal quantile without bound.

    >>> [round(t_quantile(one), 3) for one in (1, 10, math.inf)]
    [12.706, 2.228, 1.96]
    """
    if math.isinf(freedom):
        return _NORMAL
    from scipy.special import stdtrit  # a quarter of a second to import; scipy.stats would take twice as long

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def t_tail(reach: float, freedom: float = math.inf) -> float:
    """The chance that Student's t, or without bound of freedom a normal number, lies above `reach`.

    >>> round(t_tail(2.228, 10), 3), round(t_tail(1.96), 3)
    (0.025, 0.025)
    """
    from scipy.special import ndtr, stdtr

    return float(ndtr(-reach) if math.isinf(freedom) else stdtr(freedom, -reach))


def _wilson_of(share: float, trials: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a share of so many trials, by the quantile z."""
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def _variance_of_mean(values: NDArray[np.float64], member: NDArray[np.int64]) -> float:
    """The linearized variance of the mean of values (N,) whose groups are drawn; at least two groups.

    Source: Cochran, Sampling Techniques (1977), section 6.3, of a ratio of group totals to group sizes.
    """
    count, num_groups = len(values), int(member.max()) + 1
    order = np.lexsort((values, member))  # sums of the same numbers in another order differ by rounding
    excess = np.bincount(member[order], values[order] - np.sort(values).mean(), num_groups)
    squares = float(np.sort(excess**2).sum())
    if squares <= _ROUNDING * count * float(np.sort(values**2).sum()):
        return 0.0
    return num_groups / (num_groups - 1) * squares / count**2


def nested_bootstrap(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, seed: int, draws: int = 2000
) -> tuple[float, float]:
    """The 95 % interval of the mean of grouped values, by a bootstrap over groups, then values.

    Each draw takes as many groups as there are, with replacement, and within each taken group as many
    values as it has, with replacement; its statistic is the mean of all values taken. The spread of the draws
    around the mean is then brought from its own variance, which counts the variance within groups twice and
    is (G - 1) / G of that between G groups, to the unbiased one, and from the normal quantile to Student's t
    with G - 1 degrees of freedom; the percentiles keep the skewness. The order of the values does not matter.
    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), sections 2.4 and 3.8.

    Args:
        values: (N,), N >= 1.
        groups: (N,), which group (target, model) each value belongs to.
        seed: of the draws.
        draws: number of bootstrap draws, >= 1.

    Returns:
        Lower and upper end; equal where all values are.
    """
    means = _nested_means(values, groups, seed=seed, draws=draws)
    mean, member = float(np.sort(values).mean()), np.unique(groups, return_inverse=True)[1]
    units = int(member.max()) + 1
    if units == 1:
        units, member = len(values), np.arange(len(values))
    if units == 1 or means.std() == 0:
        return mean, mean
    # groups that are equal by luck leave the variance within them as the only one
    spread = _variance_of_mean(values, member) or float(means.var())
    return _stretched(mean, means, spread, units)


def _nested_means(
    values: NDArray[np.float64], groups: NDArray[np.int64], *, seed: int, draws: int
) -> NDArray[np.float64]:
    """(draws,) means of values drawn group by group; see nested_bootstrap."""
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
    return np.concatenate(means)


def _stretched(mean: float, means: NDArray[np.float64], variance: float, units: int) -> tuple[float, float]:
    """Percentiles of means, stretched around `mean` to a variance and to Student's t of `units` draws."""
    top = (1 + LEVEL) / 2
    factor = (variance / float(means.var())) ** 0.5 * (t_quantile(units - 1) / t_quantile())
    low, high = np.quantile(means, [1 - top, top])
    return mean + factor * (float(low) - mean), mean + factor * (float(high) - mean)


def bootstrap_mean(values: NDArray[np.float64], *, draws: int = 2000) -> tuple[float, float]:
    """The 95 % interval of the mean of values (N,), N >= 1; the same for the same values.

    Percentiles of a bootstrap, stretched to the unbiased variance and Student's t, see nested_bootstrap;
    both ends are the mean where all values are equal. Source: Efron, Annals of Statistics 7 (1979).
    """
    mean, num = float(values.mean()), len(values)
    if num == 1 or values.std() == 0:
        return mean, mean
    means = values[_redrawn(num, draws)].mean(1)
    return _stretched(mean, means, float(values.var(ddof=1)) / num, num)


@lru_cache(maxsize=8)
def _redrawn(num: int, draws: int) -> NDArray[np.int64]:
    """Which of N values each bootstrap takes, (draws, N), always the same; tables ask thousands of times."""
    rows = np.random.default_rng(0).integers(num, size=(draws, num))
    rows.flags.writeable = False
    return rows


def mean_change(changes: NDArray[np.float64]) -> tuple[float, float]:
    """The 95 % interval of the mean of changes (N,) of shares, N >= 1, each in [-1, 1], one a person.

    That of bootstrap_mean within [-1, 1]. Changes that are all alike are no certainty: as many people as may
    yet differ, by Wilson's interval of 0 of N, could differ by 1.

    >>> [round(end, 2) for end in mean_change(np.zeros(10))]
    [-0.28, 0.28]
    """
    if changes.std() == 0:
        mean, doubt = float(changes[0]), wilson(0, len(changes))[1]
        low, high = mean - doubt, mean + doubt
    else:
        low, high = bootstrap_mean(changes)
    return max(-1.0, low), min(1.0, high)


def sign_flip(differences: NDArray[np.float64], *, draws: int = FLIPS) -> float:
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


def least_sign_flip(pairs: int, *, draws: int = FLIPS) -> float:
    """The smallest p-value that sign flips of so many pairs can give, where all of them agree.

    >>> least_sign_flip(5), least_sign_flip(100)
    (0.0625, 0.0002)
    """
    if pairs < 2:
        return 1.0
    return 2 / 2**pairs if 2**pairs <= draws else 2 / (draws + 1)


def sign_patterns(pairs: int, *, draws: int = FLIPS) -> NDArray[np.float32]:
    """The signs (S, pairs), +1 or -1, that `sign_flip` tries: all where there are at most `draws` of them."""
    if 2**pairs <= draws:
        bits = np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
    else:
        bits = np.random.default_rng(0).integers(2, size=(draws, pairs))
    return (2 * bits - 1).astype(np.float32)


def sign_flips(
    differences: NDArray[np.float64], patterns: NDArray[np.float32], *, draws: int = FLIPS
) -> NDArray[np.float64]:
    """The p-values (R,) of `sign_flip` for rows of differences (R, N), a hundred times as fast.

    Where not all patterns are tried, others are drawn than there.

    Args:
        differences: (R, N), of shares of images, so that different sums are 1e-4 apart or more.
        patterns: see `sign_patterns`, for N pairs.
        draws: the number of patterns, if not all of them.
    """
    reached = np.abs(differences.sum(1))
    flipped = patterns @ differences.T.astype(np.float32)
    count = (flipped >= reached - 5e-5).sum(0)
    is_all = len(patterns) < draws or len(patterns) == 2 ** differences.shape[1]
    tail = count / len(patterns) if is_all else (count + 1) / (len(patterns) + 1)
    p_values: NDArray[np.float64] = np.minimum(2 * tail, 1.0)
    return p_values


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
