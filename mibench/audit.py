"""Signs that a judge accepts images that show nobody, or misses people; drawn from hits, without torch.

An attack accuracy is only as good as its judge, and judges accept images that no person would
(arXiv:2505.03519). Two questions are asked here: do second opinions confirm the judge's successes as often
as they know real images, and do images that show nobody get more than chance?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mibench.flags import MIN_LABELS
from mibench.statistics import nested_bootstrap

Json = Mapping[str, Any]
JUDGES_DISAGREE = "judges_disagree"
JUDGE_MISSES = "judge_misses"
CONTROL_ABOVE_CHANCE = "control_above_chance"
# a reconstruction is never as good as a photo; half leaves room for that, and what fools one judge alone is
# confirmed about as often as by chance
_LEAST_CONFIRMED = 0.5
# controls whose images are made without any picture of a person that the judge could take for the target
_NOBODY = ("mean_face", "untrained_prior")


def disagrees(hits: Mapping[str, str], second: Mapping[str, str], accuracy: float) -> bool:
    """Whether a second opinion confirms clearly fewer of the judge's successes than it should.

    An honest success shows the person, and a second opinion of accuracy q knows a share of about q of such
    images. The flag is raised where, by the 95 % interval over labels, then images, the judge's successes are
    confirmed less than half as often: the lower end of the mean of q / 2 * hit - hit * confirmed is above 0.
    Failures of the judge weigh nothing, and a second opinion that knows nobody (q near chance) flags nothing.

    Args:
        hits: by protected label a 0 or 1 for each of its images, as text: the judge takes it for the label.
        second: the same of the second opinion, for the same images in the same order.
        accuracy: of the second opinion on real test images, in [0, 1].

    Returns:
        True where they disagree; False with fewer than MIN_LABELS labels, whose intervals are too narrow.
    """
    if len(hits) < MIN_LABELS:
        return False
    pairs = [
        (place, one == "1", other == "1")
        for place, label in enumerate(sorted(hits))
        for one, other in zip(hits[label], second[label], strict=True)
    ]
    values = np.array([hit * (_LEAST_CONFIRMED * accuracy - confirmed) for _, hit, confirmed in pairs])
    low, _ = nested_bootstrap(values, np.array([place for place, _, _ in pairs]), seed=0)
    return low > 0


def misses(hits: Mapping[str, str], seconds: Sequence[Mapping[str, str]]) -> bool:
    """Whether all second opinions together see the person clearly more often than the judge does.

    Then AA is too low, and a defense looks better than it is. An image counts as seen where every one of at
    least two second opinions takes it for the label; the flag is raised where the 95 % interval, over labels,
    then images, of the mean of seen - hit lies above 0.

    Args:
        hits: see `disagrees`.
        seconds: of each second opinion, for the same images in the same order.

    Returns:
        True where the judge misses people; False with fewer than MIN_LABELS labels or two second opinions.
    """
    if len(hits) < MIN_LABELS or len(seconds) < 2:
        return False
    values, places = [], []
    for place, label in enumerate(sorted(hits)):
        for own, *others in zip(hits[label], *(second[label] for second in seconds), strict=True):
            values.append(float(all(one == "1" for one in others)) - float(own == "1"))
            places.append(place)
    return nested_bootstrap(np.array(values), np.array(places), seed=0)[0] > 0


def judge_flags(hits: Json, seconds: Mapping[str, Json], accuracies: Mapping[str, float]) -> tuple[str, ...]:
    """`judges_disagree` where one of several second opinions does, `judge_misses` where all see more.

    Args:
        hits: the judge's.
        seconds: those of each second opinion by its name.
        accuracies: of each on real test images.
    """
    found = any(disagrees(hits, second, accuracies[name]) for name, second in seconds.items())
    flags = (JUDGES_DISAGREE,) if found else ()
    return (*flags, JUDGE_MISSES) if misses(hits, list(seconds.values())) else flags


def control_flags(attack: Json, estimates: Json, hits: Json, chance: float) -> tuple[str, ...]:
    """`control_above_chance` where a control that shows nobody has an AA above chance by its interval.

    Hits of one label alone do not count: an image of nobody is always like somebody, and a control that draws
    the same image for every label hits that person by luck.

    Args:
        attack: the record's.
        estimates: the record's.
        hits: by protected label, see Record.
        chance: accuracy of guessing, in [0, 1].
    """
    aa = estimates.get("aa")
    if attack["name"] not in _NOBODY or aa is None:
        return ()
    found = sum("1" in bits for bits in hits.values())
    return (CONTROL_ABOVE_CHANCE,) if found > 1 and aa["low"] > chance else ()
