"""What the records say about a claim: an effect, its interval, and the test that its kind asks for.

People are the unit: a pair is one protected person of one seed with and without the defense.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mibench.reproduce.layout import JUDGE_ACCURACY, Claim, Column, Kind
from mibench.reproduce.measured import Cells, Measured, Missing, Person, Z
from mibench.statistics import bootstrap_mean, mean_change, sign_flip

State = Literal["for", "against", "open"]
_FLIPS = 9999  # sign patterns that `sign_flip` tries at most: its least p-value is 2 / (9999 + 1)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The outcome of one test.

    Args:
        effect, low, high: in the claim's own direction, above zero where it speaks for the claim.
        unit: of the effect: `points` are fractions of 1.
        num: people of all seeds, cells or images that it rests on.
        of: what `num` counts.
        p: two-sided; None where the interval decides.
        least_p: of perfect agreement on as many; 0 where there is no such floor.
        state: what the interval says where it decides; of tests with a p-value the sign of the effect.
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


def weigh(claim: Claim, cells: Cells) -> Evidence | Missing:
    """The evidence for a claim, or why there is none."""
    return _TESTS[claim.kind](claim, cells)


def least_flip(num: int) -> float:
    """The least p-value that a sign-flip test of `num` pairs can give."""
    return 1.0 if num < 2 else max(2.0 / 2**num, 2.0 / (_FLIPS + 1))


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
    gains: list[dict[Person, float]] = []
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


def _over_attacks(gains: Sequence[dict[Person, float]]) -> NDArray[np.float64] | Missing:
    people = sorted(set.intersection(*(set(one) for one in gains)))
    if not people:
        return Missing("no person was attacked in both cells")
    return np.array([np.mean([one[person] for one in gains]) for person in people])


def _flipped(gains: NDArray[np.float64]) -> Evidence:
    low, high = mean_change(gains)
    effect = float(gains.mean())
    return Evidence(
        effect=effect, low=low, high=high, unit="points", num=len(gains), of="people", p=sign_flip(gains),
        least_p=least_flip(len(gains)), state="for" if effect > 0 else "against",
    )  # fmt: skip


def _at_chance(claim: Claim, cells: Cells) -> Evidence | Missing:
    """Holds where the interval of AA holds chance and ends below the undefended AA.

    Without the second condition an interval too wide to tell anything would speak for the claim.
    """
    (attack,), (column,) = claim.attacks, claim.columns
    own, other = (cells.number(attack, one, "aa") for one in (column, claim.reference))
    if isinstance(own, Missing):
        return own
    if isinstance(other, Missing):
        return other
    if other.low <= cells.chance:
        return Missing("the interval of the undefended AA holds chance: nothing to stop, or too few people")
    if own.low <= cells.chance and own.high >= other.value:
        return Missing("the interval holds both chance and the undefended accuracy: too few people")
    state: State = "for" if own.low <= cells.chance else "against"
    gap = [cells.chance - end for end in (own.value, own.high, own.low)]
    return Evidence(
        effect=gap[0], low=gap[1], high=gap[2], unit="points", num=own.count, of="images", p=None,
        least_p=0.0, state=state,
    )  # fmt: skip


def _keeps(claim: Claim, cells: Cells) -> Evidence | Missing:
    drop = _change(claim, cells)
    if isinstance(drop, Missing):
        return drop
    state: State = "for" if -drop.low <= claim.limit else "against" if -drop.high > claim.limit else "open"
    return Evidence(
        effect=drop.value, low=drop.low, high=drop.high, unit="points", num=drop.count, of="images", p=None,
        least_p=0.0, state=state,
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
    of the mean is the mean of the errors.
    """
    parts = []
    for attack in claim.attacks or ("",):
        own = cells.number(attack, claim.columns[0], claim.metric)
        found = _less(own, cells.number(attack, claim.reference, claim.metric))
        if isinstance(found, Missing):
            return found
        parts.append(found)
    value, error = (sum(values) / len(parts) for values in zip(*((one.value, one.error) for one in parts)))
    return Measured(value, value - Z * error, value + Z * error, min(one.count for one in parts), 1)


def _less(own: Measured | Missing, other: Measured | Missing) -> Measured | Missing:
    """The difference of two numbers whose errors are independent."""
    if isinstance(own, Missing):
        return own
    if isinstance(other, Missing):
        return other
    value, error = own.value - other.value, math.hypot(own.error, other.error)
    return Measured(value, value - Z * error, value + Z * error, min(own.count, other.count), own.seeds)


def _by_interval(
    change: Measured | Missing, sign: int, *, unit: Literal["points", ""] = "points"
) -> Evidence | Missing:
    """A two-sided normal test of a change with a standard error."""
    if isinstance(change, Missing):
        return change
    if change.error == 0:
        return Missing("neither number has an interval, so their difference cannot be tested")
    p = math.erfc(abs(change.value) / change.error / math.sqrt(2))
    low, high = sorted((sign * change.low, sign * change.high))
    return Evidence(
        effect=sign * change.value, low=low, high=high, unit=unit, num=change.count, of="images", p=p,
        least_p=0.0, state="for" if sign * change.value > 0 else "against",
    )  # fmt: skip


def _distance(claim: Claim, cells: Cells) -> Evidence | Missing:
    """A sign test over the cells of attacks and seeds: in how many the distance grew."""
    from scipy.stats import binomtest

    grown = []
    for attack in claim.attacks:
        own = cells.by_seed(attack, claim.columns[0], claim.metric)
        other = cells.by_seed(attack, claim.reference, claim.metric)
        if isinstance(own, Missing):
            return own
        if isinstance(other, Missing):
            return other
        grown += [own[seed] / other[seed] for seed in own.keys() & other.keys() if other[seed] > 0]
    moved = [one for one in grown if one != 1]
    if not moved:
        return Missing("no distance differs")
    up = sum(one > 1 for one in moved)
    logs = np.log(np.array(grown))
    low, high = bootstrap_mean(logs)
    return Evidence(
        effect=math.exp(float(logs.mean())) - 1, low=math.exp(low) - 1, high=math.exp(high) - 1, unit="times",
        num=len(moved), of="cells", p=float(binomtest(up, len(moved)).pvalue),
        least_p=min(1.0, 2.0 / 2 ** len(moved)), state="for" if 2 * up > len(moved) else "against",
    )  # fmt: skip


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
