"""What a suite can see: the smallest difference in AA that its paired test finds four times out of five.

The test is that of `mibench.report.paired`: sign flips over people of the difference in AA between a defense
and no defense, with Holm's correction over the defenses of an attack. People are simulated: each has a rate
at which an attack succeeds without a defense, from a beta distribution; the defense multiplies it by one
factor, the same for all. Training anew also moves people by chance: a defended person keeps the rate with a
probability and else draws a fresh one, so that the two rates are correlated by as much as was measured.
Needs no torch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mibench.flags import attacks_people, scene
from mibench.record import Record
from mibench.statistics import least_sign_flip, sign_flips, sign_patterns

Floats = NDArray[np.float64]
ALPHA = 0.05
POWER = 0.8
_RUNS = 600  # simulated experiments: the power has a standard error of 0.016
_STEPS = 8  # halvings: the difference is known to a quarter of a point
_MANY = 60  # people above which the sum of flipped differences is taken as normal


@dataclass(frozen=True)
class People:
    """How well an attack finds people who are not defended.

    Args:
        mean: their AA, in (0, 1).
        spread: standard deviation of their rates, without the noise of few images; of a beta distribution,
            so below sqrt(mean (1 - mean)).
        kept: correlation of a person's rates on two victims, in [0, 1].
    """

    mean: float
    spread: float
    kept: float

    def __post_init__(self) -> None:
        if not 0 < self.mean < 1 or not 0 < self.spread**2 < self.mean * (1 - self.mean):
            raise ValueError(f"power: no beta distribution has mean {self.mean} and spread {self.spread}.")
        if not 0 <= self.kept <= 1:
            raise ValueError(f"power: kept must lie in [0, 1], got {self.kept}.")


MEASURED = People(mean=0.60, spread=0.29, kept=0.85)
"""Mirror on the ten people of the suite `defenses`:

    from mibench.power import measured; from mibench.record import read_records
    measured(read_records("results/defenses/records.jsonl"), "mirror")
"""


@dataclass(frozen=True)
class Sight:
    """What a paired comparison can see.

    Args:
        rivals: defenses that are compared, among which Holm corrects.
        least_p: the smallest p-value after Holm that so many people can give.
        difference: the smallest mean difference in AA that is found with a chance of POWER, in (0, mean];
            None where even an attack that finds nobody any more would not be told from no defense.
    """

    rivals: int
    least_p: float
    difference: float | None

    @property
    def text(self) -> str:
        """The difference in words."""
        if self.difference is not None:
            return f"{100 * self.difference:.0f} points among {self.rivals}"
        if self.least_p >= ALPHA:
            return f"none among {self.rivals} (the least p after Holm is {self.least_p:.2g})"
        return f"none among {self.rivals} (not even AA 0)"


def smallest_difference(people: int, images: int, rivals: int, who: People = MEASURED) -> Sight:
    """What can be seen, by simulation; equal arguments give equal numbers.

    Args:
        people: pairs of the test, >= 1; somebody in several seeds is one.
        images: reconstructions of each person in all seeds, >= 1.
        rivals: comparisons that Holm corrects for, >= 1.
        who: how well the attack does without a defense.
    """
    least = 1.0 if people == 1 else min(1.0, least_sign_flip(people) * rivals)
    if least >= ALPHA:
        return Sight(rivals, least, None)
    trial = _Trial(people, images, who)
    low, high = 0.0, 1.0
    if trial.power(high, rivals) < POWER:
        return Sight(rivals, least, None)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if trial.power(middle, rivals) >= POWER else (middle, high)
    return Sight(rivals, least, high * who.mean)


def sight_line(people: int, images: int, rivals: Iterable[int], who: People = MEASURED) -> str:
    """One line on what a suite can see, for each number of rivals that its attacks have.

    Args:
        people: protected persons of all seeds.
        images: reconstructions of each person in all seeds.
        rivals: how many defenses are compared with no defense under each attack; zeros are left out.
        who: see `smallest_difference`.
    """
    counts = sorted({count for count in rivals if count > 0})
    if not counts:
        return "Nothing is compared: there is no defense beside an undefended victim."
    seen = "; ".join(smallest_difference(people, images, count, who).text for count in counts)
    size = f"{people} {'person' if people == 1 else 'people'} \N{MULTIPLICATION SIGN} {images} images"
    return (
        f"Smallest AA difference to no defense that {size} can show "
        f"({POWER:.0%} power, p < {ALPHA} after Holm among the defenses): {seen}."
    )


def measured(records: Iterable[Record], attack: str) -> People:
    """Mean, spread and correlation of an attack's success on people, from records.

    The variance of counts of hits is that of the people's rates and that of drawing few images; the second
    is taken off (moments of the beta-binomial distribution). The correlation is the median over the defenses
    that act on training, each with its own spread.

    Args:
        records: of one suite.
        attack: its label.

    Raises:
        ValueError: the attack has no undefended record, or no training defense beside it; a person has one
            image, or there is one person; nobody differs from anybody else by more than few images do.
    """
    shares: dict[str, dict[str, float]] = defaultdict(dict)
    images = 0
    for record in records:
        acts = record.defense["acts"]
        if record.attack["label"] != attack or not attacks_people(vars(record)):
            continue
        if acts not in {"nothing", "training"}:
            continue
        for label, hits in record.hits.items():
            name = "" if acts == "nothing" else record.defense["label"]
            shares[name][f"{scene(vars(record))} {label}"] = hits.count("1") / len(hits)
            images = len(hits)
    if len(shares) < 2 or "" not in shares:
        raise ValueError(f"power: '{attack}' was not measured on no defense and on one that trains anew.")
    plain = shares.pop("")
    people = sorted(plain)
    own = np.array([plain[one] for one in people])
    if images < 2 or len(people) < 2:
        raise ValueError(
            f"power: '{attack}' was measured on {len(people)} people, {images} images each. Give records of "
            "two people or more with two images or more each: fewer do not tell spread from noise."
        )
    mean, spread = _moments(own, images)
    kept = []
    for other in shares.values():
        rates = np.array([other[one] for one in people])
        width = spread * _moments(rates, images)[1]
        if width > 0:
            kept.append(float(np.cov(own, rates)[0, 1]) / width)
    if not kept:
        raise ValueError(
            f"power: under '{attack}' the people differ by no more than chance, without a defense or with "
            "each, so no correlation can be told. Give records of more people or images."
        )
    return People(mean, spread, float(np.clip(np.median(kept), 0, 1)))


def _moments(shares: Floats, images: int) -> tuple[float, float]:
    """Mean and standard deviation of the rates behind shares of hits among so many images."""
    mean = float(shares.mean())
    noise = mean * (1 - mean) / images
    return mean, math.sqrt(max(0.0, (float(shares.var(ddof=1)) - noise) / (1 - 1 / images)))


class _Trial:
    """Simulated experiments: what was drawn stays, so that power changes with the defense alone."""

    def __init__(self, people: int, images: int, who: People) -> None:
        random = np.random.default_rng(0)
        total = who.mean * (1 - who.mean) / who.spread**2 - 1  # a + b of the beta distribution
        size = (_RUNS, people)
        rates, fresh = random.beta(who.mean * total, (1 - who.mean) * total, size=(2, *size))
        self.images = images
        self.plain: Floats = random.binomial(images, rates, size) / images
        self.rates: Floats = np.where(random.random(size) < who.kept, rates, fresh)
        self.signs = sign_patterns(people) if people <= _MANY else None

    def power(self, share: float, rivals: int) -> float:
        """The chance of p < ALPHA after Holm where a defense takes this share of every rate, in [0, 1]."""
        random = np.random.default_rng(1)
        defended = random.binomial(self.images, (1 - share) * self.rates) / self.images
        return float((self.p_values(self.plain - defended) * rivals < ALPHA).mean())

    def p_values(self, differences: Floats) -> Floats:
        """Two-sided p-values of the sign-flip test, (R,), for differences (R, N)."""
        reached = np.abs(differences.sum(1))
        if self.signs is None:
            size = np.sqrt((differences**2).sum(1))
            ratio = np.divide(reached, size, out=np.zeros_like(size), where=size > 0)
            return np.array([math.erfc(one / math.sqrt(2)) for one in ratio])
        return sign_flips(differences, self.signs)
