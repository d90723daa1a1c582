"""What an attacker who knows the defense does beside the attack itself: options that compose with any attack.

Sources: expectation over transformation, Athalye et al., ICML 2018 (arXiv:1802.00420); distilled students,
Nguyen et al., CVPR 2023 and NeurIPS 2023. How a defense is met best is said on its class, `Defense.weak_to`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from mibench.augment import Views
from mibench.distil import Student
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

Weakness = Literal["decoys", "fresh_noise", "keyed_noise", "rounding"]
Access = Literal["white-box", "score", "label"]
_LEVELS: dict[Access, type[LabelVictim]] = {
    "white-box": WhiteBoxVictim,
    "score": ScoreVictim,
    "label": LabelVictim,
}
_LOOKS = 8  # views or repeats that "auto" averages: noise falls to a third
_JITTER = Views(scale=(0.85, 1.0), turn=5.0)
_PUSH = 20.0  # logits that "auto" takes off for a look-alike of a basin that was found before


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Options of an attacker who knows the defense; the defaults change nothing.

    Args:
        repeats: times that each image is asked about, >= 1; averages out noise that is drawn anew.
        views: jittered looks at each image whose answers are averaged, >= 1; averages out noise that hangs
            on the image, and brings back what rounding took. The looks are the same for all images.
        view: the jitter of a look.
        combine: how scores or logits are put together; the median withstands heavy-tailed noise. Votes are
            counted either way.
        labels_only: use the labels alone and never the scores: each look is a vote. A victim that tells
            labels alone is asked so in any case.
        fill_zeros: put half of the smallest positive score in for zeros, which rounding leaves.
        student: attack a net distilled from the victim's answers on public images, and not the victim.
        student_access: what the student is distilled from; the attack needs no more access than that.
        avoid_rounds: times that the attack is run again for each label, pushed away from what it found for
            that label before, >= 0; the last run counts, also where it is worse. Repeats of a label share
            what was found. Needs a white-box attack. Steps around a planted decoy.
        avoid_weight: logits taken off an image whose features point where earlier finds of its label do.
    """

    repeats: int = 1
    views: int = 1
    view: Views = _JITTER
    combine: Literal["mean", "median"] = "mean"
    labels_only: bool = False
    fill_zeros: bool = False
    student: Student | None = None
    student_access: Access = "white-box"
    avoid_rounds: int = 0
    avoid_weight: float = _PUSH
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("views", 1), ("avoid_rounds", 0), ("avoid_weight", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"adaptive: {name} must be >= {least}, got {getattr(self, name)}.")
        if self.avoid_rounds > 0 and self.student is not None and self.student_access == "label":
            raise ValueError("adaptive: a student of labels has no planted basins to avoid. Leave one out.")
        idle = (
            ("view", self.view != _JITTER and self.views == 1, "views > 1"),
            ("combine", self.combine != "mean" and self.repeats * self.views == 1, "repeats or views > 1"),
            ("student_access", self.student_access != "white-box" and self.student is None, "a student"),
            ("avoid_weight", self.avoid_weight != _PUSH and self.avoid_rounds == 0, "avoid_rounds > 0"),
        )
        for name, is_idle, needed in idle:
            if is_idle:
                raise ValueError(
                    f"adaptive: {name} does nothing without {needed}. Give that, or leave it out."
                )

    @property
    def is_looking(self) -> bool:
        """Whether answers are put together from several, or changed at all."""
        return self.repeats * self.views > 1 or self.labels_only or self.fill_zeros

    def access_of(self, access: type[LabelVictim]) -> type[LabelVictim]:
        """The access that an attack of this access needs with these options."""
        return access if self.student is None else _LEVELS[self.student_access]


def automatic(
    weak_to: frozenset[Weakness], access: type[LabelVictim], *, acts: str, view: str
) -> Adaptive | None:
    """The options that a defense's weaknesses call for, for an attack of some access; None for none.

    Looks are paid for, so they are taken only where they meet something: a white-box attack in the stripped
    view reads what lies before an output step, and needs them only for noise that is drawn inside the net.

    Args:
        weak_to: `Defense.weaknesses`.
        access: of the attack.
        acts: `Defense.acts`.
        view: what the attack sees: "stripped", "deployed" or "black-box".
    """
    is_white = issubclass(access, WhiteBoxVictim)
    is_met = not is_white or acts != "output" or view == "deployed"
    chosen: dict[str, object] = {}
    if is_met and "fresh_noise" in weak_to:
        chosen["repeats"] = _LOOKS
    if is_met and weak_to & {"keyed_noise", "rounding"}:
        chosen["views"] = _LOOKS
    if not is_white and "rounding" in weak_to:  # logits have no zeros to fill
        chosen["fill_zeros"] = True
    if is_white and "decoys" in weak_to:
        chosen["avoid_rounds"] = 1
    return Adaptive(**chosen) if chosen else None  # type: ignore[arg-type]  # values fit the names above
