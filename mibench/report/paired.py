"""Defenses against no defense, person by person: the same attack on the same labels of the same seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mibench.flags import Floats, attacks_people, person, scene
from mibench.record import Record
from mibench.report.escape import markdown
from mibench.report.frame import Json, latest, part
from mibench.report.worst import WORST, worst_by_label
from mibench.statistics import LEVEL, holm, mean_change, sign_flip

_READING = (
    "Difference: AA of the defense less AA of no defense, in points, mean over people; below zero the "
    "defense helps. A pair is one protected person, attacked the same way with and without the defense; who "
    f"is protected in several seeds counts once. [{LEVEL:.0%} interval: bootstrap over pairs, with Student's "
    "t]; p: sign-flip test of no difference; p (Holm): adjusted for all defenses of an attack. Left out: "
    "output steps that an attack does not meet, which are the run of no defense."
)

Attacked = tuple[str, str]
"""A person, and the seed in which she was attacked."""


@dataclass(frozen=True)
class Difference:
    """A defense against no defense under one attack.

    Args:
        attack: label and view of the attack.
        defense: label of the defense.
        pairs: people that both were attacked on.
        aa: mean share of hits with the defense, in [0, 1].
        reference: the same without it.
        low, high: ends of the interval of aa - reference.
        p: of the sign-flip test.
        p_holm: adjusted over the defenses of the attack.
    """

    attack: str
    defense: str
    pairs: int
    aa: float
    reference: float
    low: float
    high: float
    p: float
    p_holm: float = 1.0

    @property
    def difference(self) -> float:
        """The mean difference, in [-1, 1]."""
        return self.aa - self.reference


def differences(records: Iterable[Json | Record]) -> list[Difference]:
    """Every defense against no defense, attack by attack, and in the worst case over attacks.

    Records of controls, of attacks on single images and from before hits were kept are left out. So is what
    no undefended record stands beside, and what is the very run of one: an attack that does not meet an
    output step, as white-box attacks in the stripped view.
    """
    groups: dict[str, dict[str, dict[Attacked, float]]] = defaultdict(lambda: defaultdict(dict))
    kept = [record for record in latest(records) if attacks_people(record)]
    plain = {runs for one in kept if _is_undefended(one) and (runs := runs_of(one))}
    for name, group in _rows(kept).items():
        for record in group:
            if _is_undefended(record) or runs_of(record) not in plain:
                groups[name][_defense(record)].update(people_shares(record))
    for defense, shares in worst_people(kept).items():
        groups[WORST][defense] = shares
    undefended = {_defense(one) for one in kept if _is_undefended(one)}
    return [found for name, group in groups.items() for found in _against(name, group, undefended)]


def paired_frame(found: Sequence[Difference]) -> pd.DataFrame:
    """One row a difference; fractions in [0, 1]."""
    return pd.DataFrame(
        {
            "attack": one.attack,
            "defense": one.defense,
            "pairs": one.pairs,
            "aa": one.aa,
            "aa_none": one.reference,
            "difference": one.difference,
            "low": one.low,
            "high": one.high,
            "p": one.p,
            "p_holm": one.p_holm,
        }
        for one in found
    )


def to_markdown(found: Sequence[Difference]) -> str:
    """A pipe table, then how to read it."""
    lines = [
        "| Attack | Defense | People | AA none | AA | Difference | p | p (Holm) |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        interval = f"{_points(one.difference)} [{_points(one.low)} to {_points(one.high)}]"
        rates = f"{100 * one.reference:.1f} | {100 * one.aa:.1f}"
        names = f"{markdown(one.attack)} | {markdown(one.defense)}"
        lines.append(f"| {names} | {one.pairs} | {rates} | {interval} | {one.p:.3f} | {one.p_holm:.3f} |")
    return "\n".join([*lines, "", markdown(_READING), ""])


def _points(value: float) -> str:
    shown = f"{100 * value:+.1f}"
    return "0.0" if float(shown) == 0 else shown.replace("-", "\N{MINUS SIGN}")


def _rows(records: Sequence[Json]) -> dict[str, list[Json]]:
    """Records by attack and view."""
    rows: dict[str, list[Json]] = defaultdict(list)
    views: dict[str, set[str]] = defaultdict(set)
    for record in records:
        views[_attack(record)].add(str(record.get("view")))
    for record in records:
        name = _attack(record)
        rows[f"{name} ({record.get('view')})" if len(views[name]) > 1 else name].append(record)
    return rows


def people_shares(record: Json) -> dict[Attacked, float]:
    """The share of hits of each protected person of the record's seed."""
    return {person(record, label): _mean(hits) for label, hits in record["hits"].items() if hits}


def by_person(values: Mapping[Attacked, float]) -> Floats:
    """(P,) the mean of each person's values over seeds: who is attacked in two seeds is still one person."""
    found: dict[str, list[float]] = defaultdict(list)
    for who, _seed in sorted(values):
        found[who].append(values[who, _seed])
    return np.array([np.mean(own) for own in found.values()], dtype=np.float64)


def worst_people(records: Sequence[Json]) -> dict[str, dict[Attacked, float]]:
    """By defense, the share of hits of the best attack on each person."""
    found: dict[str, dict[Attacked, float]] = defaultdict(dict)
    scenes: dict[str, list[Json]] = defaultdict(list)
    for record in records:
        scenes[scene(record)].append(record)
    for group in scenes.values():
        for defense, shares in worst_by_label(group).items():
            found[defense].update({person(group[0], label): share for label, share in shares.items()})
    return found


def _against(attack: str, group: dict[str, dict[Attacked, float]], undefended: set[str]) -> list[Difference]:
    """The differences of one attack, with p-values adjusted over its defenses."""
    baseline = next((name for name in group if name in undefended), None)
    if baseline is None:
        return []
    raw = [
        one
        for defense, shares in group.items()
        if defense != baseline and (one := _difference(attack, defense, shares, group[baseline]))
    ]
    adjusted = holm(np.array([one.p for one in raw]))
    return [replace(one, p_holm=float(p)) for one, p in zip(raw, adjusted)]


def _difference(
    attack: str, defense: str, shares: dict[Attacked, float], reference: dict[Attacked, float]
) -> Difference | None:
    both = shares.keys() & reference.keys()
    if not both:
        return None
    own, other = (by_person({one: side[one] for one in both}) for side in (shares, reference))
    low, high = mean_change(own - other)
    return Difference(
        attack,
        defense,
        len(own),
        float(own.mean()),
        float(other.mean()),
        low,
        high,
        sign_flip(own - other),
    )


def runs_of(record: Json) -> tuple[str, ...]:
    """Keys of the inversions behind a record; empty where it names none."""
    models = part(record, "keys").get("models") or ()
    return tuple(str(model.get("invert")) for model in models)


def _is_undefended(record: Json) -> bool:
    return part(record, "defense").get("acts") == "nothing"


def _mean(hits: str) -> float:
    return hits.count("1") / len(hits)


def _attack(record: Json) -> str:
    return str(part(record, "attack").get("label"))


def _defense(record: Json) -> str:
    return str(part(record, "defense").get("label"))
