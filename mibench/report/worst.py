"""The worst case over attacks: what each protected person has to fear from whoever attacks best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mibench.flags import Floats, attacks_people, best_of, halves, scene, shared_labels
from mibench.report.frame import Json, part
from mibench.statistics import bootstrap_mean, wilson

WORST = "worst case"
"""How the label of the line begins; the number of attacks follows."""


def worst_cases(records: Sequence[Json]) -> list[Json]:
    """One record for each defense that several attacks met, as if the best attack of each label were one.

    Defenses of one scene are held against the same attacks: those that were measured on every defense that
    two or more attacks met, in any white-box view. Left out are controls, attacks on single images (they
    hold private predictions), and records from before hits were kept. Labels need two images or more.
    """
    scenes: dict[str, dict[str, list[Json]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if attacks_people(record):
            scenes[scene(record)][str(part(record, "defense").get("label"))].append(record)
    return [worst for by_defense in scenes.values() for worst in _of_scene(list(by_defense.values()))]


def worst_shares(even: Floats, odd: Floats) -> Floats:
    """The share of hits of the best of A attacks on each of L labels, (L,), without bias from the choice.

    The largest of several noisy shares is too large. So the attack is chosen on one half of the images and
    scored on the other, both ways round, and the two are averaged (cross-fitting; Chernozhukov et al.,
    Econometrics Journal 21 (2018), arXiv:1608.00060).

    Args:
        even: (A, L), shares of hits over the even images.
        odd: (A, L), over the odd ones.
    """
    mean: Floats = (best_of(even, odd) + best_of(odd, even)) / 2
    return mean


def worst_by_label(records: Sequence[Json]) -> dict[str, dict[str, float]]:
    """By defense and protected label the share of hits of the best attack, for records of one scene.

    Which attacks and labels count is decided as in `worst_cases`; empty where nothing can be compared.
    """
    by_defense: dict[str, list[Json]] = defaultdict(list)
    for record in records:
        if attacks_people(record):
            by_defense[str(part(record, "defense").get("label"))].append(record)
    groups, labels, _ = comparable(list(by_defense.values()))
    found = {}
    for group in groups:
        shares = worst_shares(*halves(group, labels)).tolist()
        found[str(part(group[0], "defense").get("label"))] = dict(zip(labels, shares))
    return found


def _of_scene(groups: list[list[Json]]) -> list[Json]:
    """The worst cases of the defenses of one scene, from the records of each."""
    groups, labels, num_attacks = comparable(groups)
    return [_worst(group, labels, num_attacks) for group in groups]


def comparable(groups: list[list[Json]]) -> tuple[list[list[Json]], list[str], int]:
    """The records of each defense by the attacks that all met, the labels that all attacked, and how many."""
    groups = [group for group in groups if len({_label(one) for one in group}) > 1]
    if not groups:
        return [], [], 0
    attacks = set.intersection(*({_label(one) for one in group} for group in groups))
    groups = [[one for one in group if _label(one) in attacks] for group in groups]
    labels = shared_labels([one for group in groups for one in group]) if len(attacks) > 1 else []
    return (groups if labels else []), labels, len(attacks)


def _worst(group: list[Json], labels: Sequence[str], num_attacks: int) -> Json:
    """The first record of a group, with the worst case in place of its attack and estimates."""
    shares = worst_shares(*halves(group, labels))
    count = sum(len(group[0]["hits"][label]) for label in labels)
    mean = float(shares.mean())
    if np.ptp(shares) == 0:  # a bootstrap of equal values has no width
        low, high = wilson(round(mean * len(labels)), len(labels))
    else:
        low, high = np.clip(bootstrap_mean(shares), 0.0, 1.0).tolist()
    name = f"{WORST} of {num_attacks} attacks"
    kept: dict[str, Any] = {**group[0], "cell": "", "view": "any", "flags": (), "queries": {}}
    kept["attack"] = {"label": name, "name": WORST, "access": "any", "control": False, "params": {}}
    kept["estimates"] = {"aa": {"value": mean, "low": low, "high": high, "count": count}}
    return kept


def _label(record: Json) -> str:
    return str(part(record, "attack").get("label"))
