"""Which ranks a defense may have: defenses that cannot be told apart share theirs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mibench.flags import attacks_people
from mibench.record import Record
from mibench.report.escape import plain
from mibench.report.frame import Json, scenes
from mibench.report.paired import Attacked, by_person, people_shares, runs_of, worst_people
from mibench.report.places import attack_label, defense_label
from mibench.statistics import FLIPS, holm, least_sign_flip, sign_flips, sign_patterns

ALPHA = 0.05
_FINER = 4  # the least p-value of all pairs together is to be so many times smaller than ALPHA
Shares = Mapping[Attacked, float]
Line = tuple[str, str, str]
"""Scene, attack and view of a line of the comparison; the worst case has neither attack nor view."""


@dataclass(frozen=True)
class Ranks:
    """The ranks that the defenses of one line may have.

    Args:
        of: by defense the first and the last rank that it may have, rank 1 being the lowest AA.
        tests: number of pairs of defenses that were compared.
        least_p: the smallest p-value after Holm that a pair could have.
    """

    of: Mapping[str, tuple[int, int]]
    tests: int
    least_p: float

    @property
    def is_one_tie(self) -> bool:
        """Whether no two defenses can be told apart."""
        return len(set(self.of.values())) < 2

    def shown(self, defense: str) -> str:
        """A defense's ranks: `3`, or `2` and `5` with a dash between; empty where it was not ranked."""
        return "\N{EN DASH}".join(dict.fromkeys(map(str, self.of.get(defense, ()))))


@dataclass(frozen=True)
class PairTest:
    """A paired comparison of two competitors.

    Args:
        gap: mean over people of the first one's share of hits less the other's, in [-1, 1].
        p: of the sign-flip test.
        p_holm: adjusted over all pairs that are compared together.
        people: on whom both were measured.
    """

    gap: float
    p: float
    p_holm: float
    people: int

    def turned(self) -> PairTest:
        """The same with the two in the other order."""
        return replace(self, gap=-self.gap)


def ranks(records: Iterable[Json | Record]) -> dict[Line, Ranks]:
    """The ranks of the defenses under each attack and in the worst case over attacks.

    Left out are lines with fewer than two defenses, controls, attacks on single images, and records from
    before hits were kept.
    """
    found: dict[Line, Ranks] = {}
    for name, group in scenes(records).items():
        kept = [record for record in group if attacks_people(record)]
        shares: dict[Line, dict[str, dict[Attacked, float]]] = defaultdict(lambda: defaultdict(dict))
        runs: dict[Line, dict[str, list[Hashable]]] = defaultdict(lambda: defaultdict(list))
        for record in kept:
            line = name, attack_label(record), plain(record.get("view", ""), 20)
            shares[line][defense_label(record)].update(people_shares(record))
            for place in (line, (name, "", "")):
                # without keys nothing shows that two runs are one
                runs[place][defense_label(record)].append(runs_of(record) or str(record.get("cell")))
        worst = worst_people(kept)
        shares[name, "", ""] = {plain(defense, 40): dict(by_person) for defense, by_person in worst.items()}
        for line, by_defense in shares.items():
            if len(by_defense) > 1:
                found[line] = rank_ranges(by_defense, runs[line])
    return found


def rank_ranges(shares: Mapping[str, Shares], runs: Mapping[str, Sequence[Hashable]]) -> Ranks:
    """The ranks that fit what the pairwise tests can tell.

    All pairs are compared by sign flips over the people that both were attacked on; Holm corrects over the
    pairs. The first rank is one more than the number of defenses that are better, the last leaves room for
    those that are worse. Defenses with the very same runs are one competitor with several names.

    Args:
        shares: by defense and person the share of hits, in [0, 1].
        runs: by defense what its shares come from; equal lists mean the same runs.
    """
    members, found = _tested(shares, runs)
    better = np.zeros(len(members), dtype=int)
    worse = np.zeros(len(members), dtype=int)
    for (a, b), test in found.items():
        if test.p_holm < ALPHA:
            low, high = (a, b) if test.gap < 0 else (b, a)
            better[high] += len(members[low])
            worse[low] += len(members[high])
    of = {
        name: (1 + int(better[team]), len(shares) - int(worse[team]))
        for team, names in enumerate(members)
        for name in names
    }
    draws = _draws(len(found))
    least = min((least_sign_flip(test.people, draws=draws) for test in found.values()), default=1.0)
    return Ranks({name: of[name] for name in shares}, len(found), min(1.0, len(found) * least))


def pair_tests(
    shares: Mapping[str, Shares], runs: Mapping[str, Sequence[Hashable]]
) -> dict[tuple[str, str], PairTest | None]:
    """The tests behind `rank_ranges` by pair of names, in order; None for two names of the very same runs."""
    members, found = _tested(shares, runs)
    team = {name: index for index, names in enumerate(members) for name in names}
    tests: dict[tuple[str, str], PairTest | None] = {}
    for one, other in combinations(shares, 2):
        a, b = team[one], team[other]
        turned = found[b, a].turned() if (b, a) in found else None
        tests[one, other] = found.get((a, b), turned)
    return tests


def _tested(
    shares: Mapping[str, Shares], runs: Mapping[str, Sequence[Hashable]]
) -> tuple[list[list[str]], dict[tuple[int, int], PairTest]]:
    """The competitors, each with all its names, and the test of every two of them."""
    teams: dict[tuple[Hashable, ...], list[str]] = defaultdict(list)
    for name in shares:
        teams[tuple(sorted(runs[name], key=str))].append(name)
    members = list(teams.values())
    pairs = list(combinations(range(len(members)), 2))
    draws = _draws(len(pairs))
    tests = [_test(shares[members[a][0]], shares[members[b][0]], draws) for a, b in pairs]
    adjusted = holm(np.array([p for _, p, _ in tests]))
    found = {
        pair: PairTest(gap, p, float(p_holm), people)
        for pair, (gap, p, people), p_holm in zip(pairs, tests, adjusted)
    }
    return members, found


def _draws(pairs: int) -> int:
    """Sign patterns to try, so many that Holm's correction for all pairs leaves room below ALPHA."""
    return max(FLIPS, math.ceil(_FINER * pairs / ALPHA))


def _test(one: Shares, other: Shares, draws: int) -> tuple[float, float, int]:
    """The mean difference of two defenses, its p-value by at most `draws` flips, and over how many people."""
    changes = by_person({both: one[both] - other[both] for both in one.keys() & other.keys()})
    if len(changes) < 2:
        return 0.0, 1.0, len(changes)
    (p_value,) = sign_flips(changes[None], sign_patterns(len(changes), draws=draws), draws=draws)
    return float(changes.mean()), float(p_value), len(changes)
