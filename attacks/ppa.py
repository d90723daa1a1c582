"""PPA: start a style generator's search at the victim's favorite faces, and keep what survives random views.

Any style generator of faces will do. Its truncated images, each with its mirror image, are scored once by the
victim; the best start searches that look at a random crop in every step and descend the Poincare distance,
which does not saturate. Of several ends the one that the victim recognizes most steadily under strong crops,
stretches and mirroring is reported: details that only fool the victim do not survive those.

Source: Struppek et al., ICML 2022 (arXiv:2201.12179), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mibench.attack import Reconstructions
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._robust import TOY, StyleSearch


@dataclass(frozen=True, kw_only=True)
class Ppa(StyleSearch):
    """Plug & Play attack: Adam on w, seen through random crops; its options are those of the search."""

    name = "ppa"
    access = WhiteBoxVictim
    card = Card(
        title="Plug & Play Attacks: Towards Robust and Flexible Model Inversion Attacks",
        paper="Struppek et al., ICML 2022, arXiv:2201.12179",
        year=2022,
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images, so that its "
            "images need no crop of the center before the victim sees them",
            "presamples are scored as the search starts, with all layers truncated; the authors' scores are "
            "those of images whose first 8 layers are",
            "each reconstruction is the most robust of its own candidates, so that rows are independent; the "
            "authors keep the 50 most robust of a label's 200",
            "crops are drawn for each image, not one for a batch",
            "the Poincare distance is cut off where a prediction lies on the rim of the ball",
        ),
    )

    toy: ClassVar[Settings] = {**TOY, "candidates": 2}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        return self.search_styles(victim, self.styles(prior, victim, ctx), prior["starts"], targets, ctx)
