"""The worst case over attacks: what each protected person has to fear from whoever attacks best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from mibench.key import canonical
from mibench.report.frame import Json, part
from mibench.statistics import bootstrap_mean, wilson

WORST = "worst case"


def worst_cases(records: Sequence[Json]) -> list[Json]:
    """One record for each defense that several attacks met, as if the best attack of each label were one.

    Its AA is the mean over protected labels of the largest share of hits over attacks (controls left out), in
    any white-box view; the interval resamples labels. The judge chooses the attack, so an attacker can do no
    better with these attacks. Records from before shares were kept by label give none.
    """
    groups: dict[str, list[Json]] = defaultdict(list)
    for record in records:
        attack = part(record, "attack")
        if record.get("status") == "ok" and not attack.get("control") and record.get("by_target"):
            groups[_scene(record)].append(record)
    return [_worst(group) for group in groups.values() if len({_label(one) for one in group}) > 1]


def _worst(group: list[Json]) -> Json:
    """The first record of a group, with the worst case in place of its attack and estimates."""
    labels = sorted(group[0]["by_target"])
    shares = np.array([max(one["by_target"].get(label, 0.0) for one in group) for label in labels])
    count = int((part(group[0], "estimates").get("aa") or {}).get("count") or len(labels))
    mean = float(shares.mean())
    if len(labels) == 1 or mean in (0.0, 1.0):  # a bootstrap of equal values has no width
        low, high = wilson(round(mean * count), count)
    else:
        low, high = bootstrap_mean(shares)
    kept: dict[str, Any] = {**group[0], "cell": "", "view": "any", "flags": (), "queries": {}}
    kept["attack"] = {"label": WORST, "name": WORST, "access": "any", "control": False, "params": {}}
    kept["estimates"] = {"aa": {"value": mean, "low": low, "high": high, "count": count}}
    return kept


def _label(record: Json) -> str:
    return str(part(record, "attack").get("label"))


def _scene(record: Json) -> str:
    """What must be equal for attacks to be compared."""
    data, defense = part(record, "data"), part(record, "defense")
    names = (record.get("suite"), data.get("digest"), record.get("victim_net"), record.get("seed"))
    return canonical([*names, defense.get("label")])
