"""Claims judged together: p-values adjusted over their family, and what too few people cannot tell."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mibench.reproduce.compared import Verdict
from mibench.reproduce.evidence import LEAST_SEEDS, Evidence, least_signs, weigh
from mibench.reproduce.layout import Claim
from mibench.reproduce.measured import Cells, Missing
from mibench.statistics import holm, least_sign_flip

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


@dataclass(frozen=True)
class _Family:
    """P-values that are told in one breath.

    Args:
        p_holm: by hypothesis.
        least: of perfect agreement, by hypothesis.
        advice: what would help where that is not enough.
    """

    p_holm: Mapping[Hashable, float]
    least: Mapping[Hashable, float]
    advice: str


def judge(claims: Sequence[Claim], cells: Cells) -> list[Judged]:
    """The verdict on each claim, p-values adjusted by Holm's method over those that are told in one breath.

    Claims about single attacks, where another is about all of them, are a family of their own: what the
    table says first must not wait for its details. A hypothesis that two claims share counts once.
    """
    weighed = [(claim, weigh(claim, cells)) for claim in claims]
    families = {
        is_detail: _family(
            {
                _hypothesis(claim): found
                for claim, found in weighed
                if isinstance(found, Evidence) and found.p is not None and not claim.disputed
                if claim.is_detail == is_detail
            },
            cells,
        )
        for is_detail in (False, True)
    }
    return [_judged(claim, found, families[claim.is_detail]) for claim, found in weighed]


def _hypothesis(claim: Claim) -> Hashable:
    """What the claim's test rejects: one drop tests that an attack is lowered and that it is stopped."""
    if claim.kind in {"lowers AA", "at chance"}:
        return claim.columns, claim.reference, claim.attacks
    return claim.id


def _family(tested: Mapping[Hashable, Evidence], cells: Cells) -> _Family:
    found = list(tested.values())
    return _Family(
        dict(zip(tested, holm(np.array([1.0 if one.p is None else one.p for one in found])).tolist())),
        dict(zip(tested, holm(np.array([one.least_p for one in found])).tolist())),
        _advice(found, cells),
    )


def _judged(claim: Claim, found: Evidence | Missing, family: _Family) -> Judged:
    if claim.disputed:
        return Judged(claim=claim, evidence=found, verdict="not comparable", why=claim.disputed)
    if isinstance(found, Missing):
        return Judged(claim=claim, evidence=found, verdict="not comparable", why=found.why)
    if found.p is None:
        verdict, why = _by_interval(found)
        return Judged(claim=claim, evidence=found, verdict=verdict, why=why)
    p_holm = family.p_holm[_hypothesis(claim)]
    least = family.least[_hypothesis(claim)]
    if claim.kind == "at chance":
        verdict, why = _stopped(claim, found, p_holm)
    elif least >= LEVEL:
        verdict = "not comparable"
        why = (
            f"too few {found.of}: if all {found.num} agreed, p {_p(found.least_p)}, "
            f"after Holm p {_p(least)}. {family.advice}"
        )
    else:
        verdict, why = _by_p(found, p_holm)
    return Judged(claim=claim, evidence=found, verdict=verdict, why=why, p_holm=p_holm)


def _by_interval(found: Evidence) -> tuple[Verdict, str]:
    if found.state == "for":
        return "match", "the interval bears it"
    if found.state == "open":
        return "not shown", "the interval reaches beyond the limit"
    if found.state == "too few":
        gives = (
            "1 seed gives 1 independent cell"
            if found.num == 1
            else (f"{found.num} seeds give {found.num} independent cells")
        )
        return "not comparable", f"{gives}; too few, a sign test needs {LEAST_SEEDS}"
    return "differs", "opposite: the whole interval speaks against it"


def _stopped(claim: Claim, found: Evidence, p_holm: float) -> tuple[Verdict, str]:
    """See `mibench.reproduce.evidence` on attacks that do no better than guessing."""
    most, least = f"AA at most {100 * found.share_high:.1f} %", f"AA at least {100 * found.share_low:.1f} %"
    allowed = f"{100 * claim.limit:g} point above chance"
    if found.state == "against":
        return "differs", f"opposite: {least}, more than {allowed}"
    if found.state == "for" and p_holm < LEVEL:
        return "match", f"{most}, p {_p(p_holm)} after Holm"
    if found.state == "for":
        return "not shown", f"{most}, but the drop has p {_p(p_holm)} after Holm"
    if found.share_high >= found.undefended:
        return "not shown", f"{most}, no less than the undefended {100 * found.undefended:.1f} %"
    return "not shown", f"{most}, and measured more than {allowed}"


def _by_p(found: Evidence, p_holm: float) -> tuple[Verdict, str]:
    if p_holm >= LEVEL:
        return "not shown", f"p {_p(p_holm)} after Holm"
    if found.state == "for":
        return "match", f"p {_p(p_holm)} after Holm"
    return "differs", f"opposite, p {_p(p_holm)} after Holm"


def _advice(evidence: Sequence[Evidence], cells: Cells) -> str:
    """How many seeds would let perfect agreement show, as options of the command."""
    seeds = max(1, len(cells.seeds))
    is_growing = seeds == 1 or len(set(cells.protected.values())) > 1
    for count in range(seeds + 1, _MOST_SEEDS + 1):
        floors = [_least(one, count, seeds, is_growing=is_growing) for one in evidence]
        if floors and max(holm(np.array(floors))) < LEVEL:
            return f"Give more seeds: {' '.join(f'--seed {seed}' for seed in range(count))}."
    return "Take a suite with more protected people."


def _least(one: Evidence, count: int, seeds: int, *, is_growing: bool) -> float:
    """The least p-value of a test with `count` seeds in place of `seeds`; all may protect the same people."""
    if one.of == "people":
        return least_sign_flip(one.num * count // seeds if is_growing else one.num)
    return least_signs(count) if one.of == "seeds" else one.least_p


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
