"""What the records say about a claim: an effect, its interval, and the test that its kind asks for.

People are the unit: a pair is one protected person with and without the defense, mean over the seeds that
protect it; where cells share people and nothing tells these apart, seeds are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mibench.reproduce.layout import JUDGE_ACCURACY, Claim, Column, Kind
from mibench.reproduce.measured import Asked, Cells, Measured, Missing, around
from mibench.statistics import bootstrap_mean, least_sign_flip, mean_change, sign_flips, sign_patterns, t_tail

State = Literal["for", "against", "open", "too few"]
LEAST_SEEDS = 6  # of a sign test: 5 that agree have p = 0.0625
_LARGEST_LOG = 700.0  # exp of more is no float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The outcome of one test.

    Args:
        effect, low, high: in the claim's own direction, above zero where it speaks for the claim; the ends
            are NaN where one unit alone has none.
        unit: of the effect: `points` are fractions of 1.
        num: people, seeds or images that it rests on; a person of several seeds is one.
        of: what `num` counts.
        p: two-sided; None where the interval decides.
        least_p: of perfect agreement on as many; 0 where there is no such floor.
        state: what the interval says where it decides; of tests with a p-value alone the sign of the effect.
        share, share_low, share_high: of an attack that is stopped: its AA with the interval.
        undefended: of an attack that is stopped: its AA without the defense.
    """

    effect: float
    low: float
    high: float
    unit: Literal["points", "times", ""]
    num: int
    of: str
    p: float | None
    least_p: float
    state: State
    share: float = math.nan
    share_low: float = math.nan
    share_high: float = math.nan
    undefended: float = math.nan


def weigh(claim: Claim, cells: Cells) -> Evidence | Missing:
    """The evidence for a claim, or why there is none."""
    return _TESTS[claim.kind](claim, cells)


def least_signs(num: int) -> float:
    """The least p-value of a sign test of so many signs.

    >>> least_signs(5), least_signs(6)
    (0.0625, 0.03125)
    """
    return min(1.0, 2.0 ** (1 - num))


def _lowers(claim: Claim, cells: Cells) -> Evidence | Missing:
    found = _lowered(claim, cells, claim.columns[0])
    return found if isinstance(found, Missing) else _flipped(found)


def _all_lower(claim: Claim, cells: Cells) -> Evidence | Missing:
    """The weakest of several; that each of them holds is rejected where any is (Berger, 1982)."""
    parts = []
    for column in claim.columns:
        found = _lowered(claim, cells, column)
        if isinstance(found, Missing):
            return found
        parts.append(_flipped(found))
    return max(parts, key=lambda one: (one.effect <= 0, one.p or 0.0))


def _lowered(claim: Claim, cells: Cells, column: Column) -> NDArray[np.float64] | Missing:
    """By how much each person's share of hits is lower than in the reference, mean over attacks."""
    gains: list[dict[Asked, float]] = []
    for attack in claim.attacks:
        own, other = cells.shares(attack, column), cells.shares(attack, claim.reference)
        if isinstance(own, Missing):
            return own
        if isinstance(other, Missing):
            return other
        gains.append({one: other[one] - own[one] for one in own.keys() & other.keys()})
    return _over_attacks(gains)


def _order(claim: Claim, cells: Cells) -> Evidence | Missing:
    first, second = (cells.shares(attack, claim.reference) for attack in claim.attacks)
    if isinstance(first, Missing):
        return first
    if isinstance(second, Missing):
        return second
    gains = _over_attacks([{one: first[one] - second[one] for one in first.keys() & second.keys()}])
    return gains if isinstance(gains, Missing) else _flipped(gains)


def _over_attacks(gains: Sequence[dict[Asked, float]]) -> NDArray[np.float64] | Missing:
    """The gain (P,) of each person, mean over attacks, then over the seeds that protect the person."""
    by_person: dict[str, list[float]] = {}
    for seed, label in sorted(set.intersection(*(set(one) for one in gains))):
        by_person.setdefault(label, []).append(float(np.mean([one[seed, label] for one in gains])))
    if not by_person:
        return Missing("no person was attacked in both cells")
    return np.array([np.mean(by_person[label]) for label in sorted(by_person)])


def _flipped(gains: NDArray[np.float64]) -> Evidence:
    low, high = mean_change(gains)
    effect = float(gains.mean())
    (p_value,) = sign_flips(gains[None], sign_patterns(len(gains)))
    return Evidence(
        effect=effect, low=low, high=high, unit="points", num=len(gains), of="people", p=float(p_value),
        least_p=least_sign_flip(len(gains)), state="for" if effect > 0 else "against",
    )  # fmt: skip


def _at_chance(claim: Claim, cells: Cells) -> Evidence | Missing:
    """That an attack is down to guessing: by the value of AA, its interval, and the drop person by person.

    `for` where AA is at most `limit` above chance and its interval ends below the undefended AA: an interval
    that reaches down to chance alone is no evidence, few people have one whatever happens. `against` where
    the whole interval lies more than `limit` above chance, and more than one person is found: a single one
    may look like what the attack makes of everybody. The p-value is that of the drop, as for a defense that
    lowers AA.
    """
    (attack,), (column,) = claim.attacks, claim.columns
    own, other = (cells.number(attack, one, "aa") for one in (column, claim.reference))
    if isinstance(own, Missing):
        return own
    if isinstance(other, Missing):
        return other
    drop = _lowered(claim, cells, column)
    if isinstance(drop, Missing):
        return drop
    bound = cells.chance + claim.limit
    if other.value <= bound:
        return Missing("the undefended attack does no better than guessing: nothing to stop")
    is_stopped = own.value <= bound and own.high < other.value
    shares = cells.shares(attack, column)
    num_found = 0 if isinstance(shares, Missing) else sum(share > 0 for share in shares.values())
    is_above = own.low > bound and num_found > 1
    state: State = "against" if is_above else "for" if is_stopped else "open"
    return replace(
        _flipped(drop), effect=cells.chance - own.value, low=cells.chance - own.high,
        high=cells.chance - own.low, state=state, share=own.value, share_low=own.low, share_high=own.high,
        undefended=other.value,
    )  # fmt: skip


def _keeps(claim: Claim, cells: Cells) -> Evidence | Missing:
    drop = _change(claim, cells)
    if isinstance(drop, Missing):
        return drop
    state: State = "for" if -drop.low <= claim.limit else "against" if -drop.high > claim.limit else "open"
    return Evidence(
        effect=drop.value, low=max(-1.0, drop.low), high=min(1.0, drop.high), unit="points", num=drop.count,
        of="images", p=None, least_p=0.0, state=state,
    )  # fmt: skip


def _raises(claim: Claim, cells: Cells) -> Evidence | Missing:
    return _by_interval(_change(claim, cells), 1)


def _costs(claim: Claim, cells: Cells) -> Evidence | Missing:
    return _by_interval(_change(claim, cells), -1)


def _error(claim: Claim, cells: Cells) -> Evidence | Missing:
    return _by_interval(_change(claim, cells), 1, unit="")


def _judge(claim: Claim, cells: Cells) -> Evidence | Missing:
    judge = cells.number("", claim.columns[0], JUDGE_ACCURACY)
    victim = cells.number("", claim.reference, claim.metric)
    return _by_interval(_less(judge, victim), 1)


def _change(claim: Claim, cells: Cells) -> Measured | Missing:
    """By how much a metric lies above the reference, mean over attacks.

    The cells of several attacks may share one model, so their errors are taken as fully dependent: the error
    of the mean is the mean of the errors, with the fewest degrees of freedom.
    """
    parts = []
    for attack in claim.attacks or ("",):
        own = cells.number(attack, claim.columns[0], claim.metric)
        found = _less(own, cells.number(attack, claim.reference, claim.metric))
        if isinstance(found, Missing):
            return found
        parts.append(found)
    value, error = (sum(values) / len(parts) for values in zip(*((one.value, one.error) for one in parts)))
    freedom, count = (min(values) for values in zip(*((one.freedom, one.count) for one in parts)))
    return around(value, error, count=int(count), seeds=parts[0].seeds, freedom=freedom)


def _less(own: Measured | Missing, other: Measured | Missing) -> Measured | Missing:
    """The difference of two numbers whose errors are independent, with Satterthwaite's degrees of freedom."""
    if isinstance(own, Missing):
        return own
    if isinstance(other, Missing):
        return other
    value, error = own.value - other.value, math.hypot(own.error, other.error)
    parts = sum(one.error**4 / one.freedom for one in (own, other))
    freedom = error**4 / parts if parts > 0 else math.inf
    return around(value, error, count=min(own.count, other.count), seeds=own.seeds, freedom=freedom)


def _by_interval(
    change: Measured | Missing, sign: int, *, unit: Literal["points", ""] = "points"
) -> Evidence | Missing:
    """A two-sided test of a change with a standard error: Student's t, normal without bound of freedom."""
    if isinstance(change, Missing):
        return change
    if change.error == 0:
        return Missing("neither number has an interval, so their difference cannot be tested")
    p = 2 * t_tail(abs(change.value) / change.error, change.freedom)
    low, high = sorted((sign * change.low, sign * change.high))
    if unit == "points":
        low, high = max(-1.0, low), min(1.0, high)
    return Evidence(
        effect=sign * change.value, low=low, high=high, unit=unit, num=change.count, of="images", p=p,
        least_p=0.0, state="for" if sign * change.value > 0 else "against",
    )  # fmt: skip


def _distance(claim: Claim, cells: Cells) -> Evidence | Missing:
    """A sign test over seeds: in how many the distance grew, by the mean of its logarithm over attacks.

    Attacks of one seed share victim and people, and distances are not on record by person, so that seeds are
    all that is independent. Too few of them have no p-value, and no part in the table's family.
    """
    logs = _grown(claim, cells)
    if isinstance(logs, Missing):
        return logs
    num, up, mean = len(logs), int((logs > 0).sum()), float(logs.mean())
    low, high = bootstrap_mean(logs) if num > 1 else (math.nan, math.nan)
    effect, low, high = (math.expm1(min(one, _LARGEST_LOG)) for one in (mean, low, high))
    p = _sign_test(up, num) if num >= LEAST_SEEDS else None
    state: State = "too few" if p is None else "for" if 2 * up > num else "against"
    return Evidence(
        effect=effect, low=low, high=high, unit="times", num=num, of="seeds", p=p, least_p=least_signs(num),
        state=state,
    )  # fmt: skip


def _sign_test(ups: int, num: int) -> float:
    from scipy.stats import binomtest  # half a second to import

    return float(binomtest(ups, num).pvalue)


def _grown(claim: Claim, cells: Cells) -> NDArray[np.float64] | Missing:
    """The logarithm (S,) of the ratio of distances of each seed, mean over attacks; none of them is 0."""
    by_seed: dict[int, list[float]] = {}
    for attack in claim.attacks:
        own = cells.by_seed(attack, claim.columns[0], claim.metric)
        other = cells.by_seed(attack, claim.reference, claim.metric)
        if isinstance(own, Missing):
            return own
        if isinstance(other, Missing):
            return other
        for seed in own.keys() & other.keys():
            if min(own[seed], other[seed]) > 0:
                by_seed.setdefault(seed, []).append(math.log(own[seed] / other[seed]))
    logs = np.array([np.mean(by_seed[seed]) for seed in sorted(by_seed)])
    return logs[logs != 0] if logs.any() else Missing("no distance differs")


_TESTS: dict[Kind, Callable[[Claim, Cells], Evidence | Missing]] = {
    "lowers AA": _lowers,
    "all lower AA": _all_lower,
    "at chance": _at_chance,
    "keeps accuracy": _keeps,
    "costs accuracy": _costs,
    "raises accuracy": _raises,
    "attack order": _order,
    "raises distance": _distance,
    "raises error": _error,
    "judge above victim": _judge,
}
