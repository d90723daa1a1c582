"""Defenses by where they act, with a color and a marker for each place: more defenses than hues fit in."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from mibench.report.look import MARKERS, PALETTE, UNDEFENDED

ORDER = ("nothing", "training", "fine-tuning", "output")
_LOOKS = {
    "nothing": (UNDEFENDED, "*"), "training": (PALETTE[0], "o"), "fine-tuning": (PALETTE[3], "s"),
    "output": (PALETTE[2], "^"),
}  # fmt: skip
_FREE = tuple(
    zip(
        (hue for hue in PALETTE if hue not in {color for color, _ in _LOOKS.values()}),
        (sign for sign in MARKERS if sign not in {marker for _, marker in _LOOKS.values()}),
    )
)
"""For compositions, which act at several places."""


@dataclass(frozen=True)
class Group:
    """The defenses that act at one place.

    Args:
        acts: where: nothing, training, fine-tuning, output, or several of them.
        color, marker: of all its defenses.
        members: labels of its defenses in the order given.
    """

    acts: str
    color: str
    marker: str
    members: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a legend or heading calls it."""
        return "no defense" if self.acts == "nothing" else self.acts


def groups(acts: Mapping[str, str]) -> tuple[Group, ...]:
    """The groups of defenses that act somewhere, by label: nothing, single steps, then compositions."""
    others = (act for act in dict.fromkeys(acts.values()) if act not in ORDER)
    looks = _LOOKS | dict(zip(others, itertools.cycle(_FREE)))
    found = ((act, tuple(name for name, own in acts.items() if own == act)) for act in looks)
    return tuple(Group(act, *looks[act], members) for act, members in found if members)


def by_member(acts: Mapping[str, str]) -> dict[str, Group]:
    """The group of every defense."""
    return {name: group for group in groups(acts) for name in group.members}
