"""Who leaks: for each protected person how well attacks do, and how the risk is spread over people.

A mean over people hides the few that every attack finds. Risk is told in the worst case over attacks, and on
the worst tenth of people; who is worst is decided on one half of a person's images and scored on the other,
since the largest of noisy shares is too large (see `mibench.report.worst`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mibench.flags import Floats, attacks_people, best_of, halves, scene, shared_labels
from mibench.record import Record
from mibench.report.escape import markdown
from mibench.report.frame import Json, part, scenes
from mibench.report.places import attack_label, defense_label
from mibench.report.worst import comparable
from mibench.statistics import bootstrap_mean, grouped_wilson, wilson

MIN_PEOPLE = 5
EXPOSED = 0.5  # of a person's reconstructions: the share from which on a person counts as exposed
TAIL = 0.1
_READING = (
    "A person is a protected label of one seed. Worst case: the best attack on each person, chosen on half "
    "of the images and scored on the other half. Worst tenth: the mean of the most exposed tenth of people, "
    "who are chosen on one half too. Exposed: the share of people of whom half of the reconstructions or "
    "more are recognized, in the worst case [95 % interval, people in groups of seeds]. Mean attack: the "
    "mean over attacks [95 % interval: bootstrap over people; Wilson's where all are alike]. Only attacks "
    "that all defenses met count. Percentages."
)


@dataclass(frozen=True)
class Exposure:
    """The people of one scene under one defense.

    Args:
        scene: see `mibench.report.frame`.
        defense: its label.
        acts: where it acts.
        attacks: number of attacks, the same for all defenses of the scene.
        people: (P,), protected labels, one for each seed.
        seeds: (P,).
        judged: (2, P), what the best attack seems to reach on one half of a person's images.
        scored: (2, P), what that attack reaches on the other half.
        mean: (P,), the share of hits, mean over attacks.
    """

    scene: str
    defense: str
    acts: str
    attacks: int
    people: tuple[str, ...]
    seeds: tuple[int, ...]
    judged: Floats = field(repr=False)
    scored: Floats = field(repr=False)
    mean: Floats = field(repr=False)

    @property
    def worst(self) -> Floats:
        """The share of hits of the best attack on each person, (P,), in [0, 1]."""
        shares: Floats = self.scored.mean(0)
        return shares

    @property
    def exposed(self) -> tuple[float, float, float]:
        """The share of people that are exposed, and its interval."""
        is_exposed = self.worst >= EXPOSED
        _, groups = np.unique(np.array(self.people), return_inverse=True)
        return float(is_exposed.mean()), *grouped_wilson(is_exposed, groups)

    @property
    def mean_interval(self) -> tuple[float, float]:
        """The interval of the mean of `mean`, in [0, 1]; where all are alike, Wilson's over the people."""
        if np.ptp(self.mean) == 0:  # a bootstrap of equal values has no width
            count = len(set(self.people))
            return wilson(round(float(self.mean[0]) * count), count)
        low, high = bootstrap_mean(self.mean)
        return max(0.0, low), min(1.0, high)

    @property
    def worst_tenth(self) -> float:
        """The mean share of hits on the most exposed tenth of people, in [0, 1]."""
        return float(np.mean([tail_mean(judged, scored) for judged, scored in zip(self.judged, self.scored)]))


def tail_mean(judged: Floats, scored: Floats) -> float:
    """The mean score of the tenth of people, at least one, who are judged worst; ties count by shares.

    Args:
        judged: (P,), by which people are chosen.
        scored: (P,), from other images.
    """
    count = math.ceil(TAIL * len(judged))
    edge = np.sort(judged)[-count]
    above, at = judged > edge, judged == edge
    weights = above + at * (count - above.sum()) / at.sum()
    return float((weights * scored).sum() / count)


def exposures(records: Iterable[Json | Record]) -> list[Exposure]:
    """The people of every scene under every defense; scenes of fewer than MIN_PEOPLE people are left out.

    Which attacks and labels count is decided as in `mibench.report.worst`; where no two attacks met all
    defenses, one is enough.
    """
    found = []
    for name, group in scenes(records).items():
        parts: dict[str, list[Exposure]] = defaultdict(list)
        by_seed: dict[str, list[Json]] = defaultdict(list)
        for record in group:
            if attacks_people(record):
                by_seed[scene(record)].append(record)
        for members in by_seed.values():
            for one in _of_seed(name, members):
                parts[one.defense].append(one)
        found += [one for several in parts.values() if len((one := _joined(several)).people) >= MIN_PEOPLE]
    return found


def risk_frame(found: Sequence[Exposure]) -> pd.DataFrame:
    """One row a person, seed and defense; fractions in [0, 1]."""
    return pd.DataFrame(
        {
            "scene": one.scene,
            "defense": one.defense,
            "person": person,
            "seed": seed,
            "attacks": one.attacks,
            "aa_worst": worst,
            "aa_mean": mean,
        }
        for one in found
        for person, seed, worst, mean in zip(one.people, one.seeds, one.worst.tolist(), one.mean.tolist())
    )


def to_markdown(found: Sequence[Exposure]) -> str:
    """A pipe table a scene, one line a defense, then how to read it."""
    parts = []
    for name in dict.fromkeys(one.scene for one in found):
        members = [one for one in found if one.scene == name]
        lines = [
            "| Defense | People | Worst case | Worst tenth | Exposed | Mean attack |",
            "|---|---:|---:|---:|---:|---:|",
            *map(_line, members),
        ]
        attacks = members[0].attacks
        count = f"{attacks} attack" + "s" * (attacks != 1)
        parts.append(f"**{markdown(name)}**, {count}\n\n" + "\n".join(lines))
    return "\n\n".join([*parts, markdown(_READING)]) + "\n"


def _line(one: Exposure) -> str:
    share, low, high = one.exposed
    cells = (
        markdown(one.defense),
        str(len(one.people)),
        _percent(float(one.worst.mean())),
        _percent(one.worst_tenth),
        f"{_percent(share)} [{_percent(low)} to {_percent(high)}]",
        f"{_percent(float(one.mean.mean()))} [{' to '.join(map(_percent, one.mean_interval))}]",
    )
    return f"| {' | '.join(cells)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _of_seed(name: str, records: Sequence[Json]) -> list[Exposure]:
    """The exposures of each defense in one seed."""
    by_defense: dict[str, list[Json]] = defaultdict(list)
    for record in records:
        by_defense[defense_label(record)].append(record)
    groups, labels, attacks = _met(list(by_defense.values()))
    found = []
    for group in groups:
        even, odd = halves(group, labels)
        first = group[0]
        found.append(
            Exposure(
                name,
                defense_label(first),
                str(part(first, "defense").get("acts")),
                attacks,
                tuple(labels),
                (int(first.get("seed", 0)),) * len(labels),
                np.stack([even.max(0), odd.max(0)]),
                np.stack([best_of(even, odd), best_of(odd, even)]),
                (even.mean(0) + odd.mean(0)) / 2,
            )
        )
    return found


def _met(groups: list[list[Json]]) -> tuple[list[list[Json]], list[str], int]:
    """The records of each defense by the attacks that all met, the labels that all attacked, and how many."""
    several, labels, count = comparable(groups)
    if labels or not groups:
        return several, labels, count
    attacks = set.intersection(*({attack_label(one) for one in group} for group in groups))
    groups = [[one for one in group if attack_label(one) in attacks] for group in groups]
    labels = shared_labels([one for group in groups for one in group]) if attacks else []
    return (groups if labels else []), labels, len(attacks)


def _joined(parts: Sequence[Exposure]) -> Exposure:
    """The same defense over several seeds."""
    first = parts[0]
    return Exposure(
        first.scene,
        first.defense,
        first.acts,
        first.attacks,
        tuple(person for one in parts for person in one.people),
        tuple(seed for one in parts for seed in one.seeds),
        np.concatenate([one.judged for one in parts], axis=1),
        np.concatenate([one.scored for one in parts], axis=1),
        np.concatenate([one.mean for one in parts]),
    )
