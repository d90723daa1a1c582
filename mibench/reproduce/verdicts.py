"""Claims judged together: p-values adjusted over their family, and what too few people cannot tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mibench.reproduce.compared import Verdict
from mibench.reproduce.evidence import Evidence, least_flip, weigh
from mibench.reproduce.layout import Claim
from mibench.reproduce.measured import Cells, Missing
from mibench.statistics import holm

LEVEL = 0.05
_MOST_SEEDS = 20  # that an advice may name


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim and whether our records bear it.

    Args:
        claim: what is claimed.
        evidence: what the records say, or why they say nothing.
        verdict: whether they bear it.
        why: the verdict in words.
        p_holm: adjusted over the claims of its family that have a p-value; None for those that have none.
    """

    claim: Claim
    evidence: Evidence | Missing
    verdict: Verdict
    why: str
    p_holm: float | None = None


def judge(claims: Sequence[Claim], cells: Cells) -> list[Judged]:
    """The verdict on each claim, p-values adjusted by Holm's method over those that are told in one breath.

    Claims about single attacks, where another is about all of them, are a family of their own: what the
    table says first must not wait for its details.
    """
    weighed = [(claim, weigh(claim, cells)) for claim in claims]
    seeds = max(1, len(cells.seeds))
    p_values: dict[int, float] = {}
    least: dict[int, float] = {}
    advice = {}
    for is_detail in (False, True):
        tested = {
            index: found
            for index, (claim, found) in enumerate(weighed)
            if isinstance(found, Evidence) and found.p is not None and not claim.disputed
            if claim.is_detail == is_detail
        }
        p_values |= zip(tested, holm(np.array([one.p or 0.0 for one in tested.values()])).tolist())
        least |= zip(tested, holm(np.array([one.least_p for one in tested.values()])).tolist())
        advice[is_detail] = _advice(list(tested.values()), seeds)
    return [
        _judged(claim, found, p_values.get(index), least.get(index, 0.0), advice[claim.is_detail])
        for index, (claim, found) in enumerate(weighed)
    ]


def _judged(
    claim: Claim, found: Evidence | Missing, p_holm: float | None, least: float, advice: str
) -> Judged:
    if claim.disputed:
        return Judged(claim=claim, evidence=found, verdict="not comparable", why=claim.disputed)
    if isinstance(found, Missing):
        return Judged(claim=claim, evidence=found, verdict="not comparable", why=found.why)
    if p_holm is None:
        verdict, why = _by_interval(found)
    elif least >= LEVEL:
        verdict = "not comparable"
        why = (
            f"too few {found.of}: if all {found.num} agreed, p {_p(found.least_p)}, "
            f"after Holm p {_p(least)}. {advice}"
        )
    else:
        verdict, why = _by_p(found, p_holm)
    return Judged(claim=claim, evidence=found, verdict=verdict, why=why, p_holm=p_holm)


def _by_interval(found: Evidence) -> tuple[Verdict, str]:
    if found.state == "for":
        return "match", "the interval bears it"
    if found.state == "open":
        return "differs", "not shown: the interval reaches beyond the limit"
    return "differs", "opposite: the whole interval speaks against it"


def _by_p(found: Evidence, p_holm: float) -> tuple[Verdict, str]:
    if p_holm >= LEVEL:
        return "differs", f"not shown, p {_p(p_holm)} after Holm"
    if found.state == "for":
        return "match", f"p {_p(p_holm)} after Holm"
    return "differs", f"opposite, p {_p(p_holm)} after Holm"


def _advice(evidence: Sequence[Evidence], seeds: int) -> str:
    """How many seeds would let perfect agreement show, as options of the command."""
    for count in range(seeds + 1, _MOST_SEEDS + 1):
        floors = [
            least_flip(one.num * count // seeds)
            if one.of == "people"
            else one.least_p ** (count / seeds)
            for one in evidence
        ]  # fmt: skip
        if floors and max(holm(np.array(floors))) < LEVEL:
            return f"Give more seeds: {' '.join(f'--seed {seed}' for seed in range(count))}."
    return "Take a suite with more protected people."


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
