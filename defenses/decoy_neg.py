"""GAN-ID repaired, by us: the push away from the protected label is bounded and strongest where fakes start.

Inversed private images start at q near 1, the victim's probability of the protected label. There the forms
of GAN-ID hardly push: the slope of log q in the label's logit is 1 - q. The printed focal loss, moreover,
raises q below exp(-1 / gamma). Here a private fake is a negative example of the label, with the usual focal
loss -[q^gamma] log(1 - q): its slope is largest at q = 1, it fades as q falls, and it is never below 0. All
else is GAN-ID. No result of this plugin is one of the paper.

Source: the loss is equation 4 of Lin et al., ICCV 2017 (arXiv:1708.02002), for the negative class, with the
weight held constant; the rest is Gong et al., IEEE TIFS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from mibench.plugin import Card

from ._decoy import FLOOR, check_gamma
from ._decoy_losses import PushLoss
from ._fakes import DEVIATIONS, ShadowInversion


@dataclass(frozen=True, kw_only=True)
class DecoyNeg(ShadowInversion):
    """Fine-tuning on inverted decoys with a bounded push, from a generator of the defender's own choice.

    Its other options are those of `ShadowInversion` and `DecoyDefense`.

    Args:
        gamma: focusing exponent of both roles, >= 0; 0 takes log(1 - q) and log r as they are.
        push_limit: see `DecoyDefense`; "none" by default, since this push is bounded.
    """

    # this push moves sure fakes, unlike those of its parents
    strength: ClassVar[str] = "alpha"
    strength_levels: ClassVar[tuple[object, ...]] = (0.03, 0.1, 0.3, 1.0)
    name = "decoy_neg"
    card = Card(
        title="Our repaired version of GAN-ID's decoy: a bounded push (no published method)",
        deviations=(
            "The push is ours, -[q^gamma] log(1 - q); GAN-ID minimizes q^gamma log q, which rests at "
            "q = exp(-1 / gamma) and is what the plugin gan_id runs.",
            "The push has no floor: it is bounded below by 0.",
            *(line for line in DEVIATIONS if line != FLOOR),
        ),
    )

    gamma: float = 2.0
    push_limit: Literal["floor", "chance", "none"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gamma(self.name, self.gamma)

    @property
    def weighting(self) -> tuple[PushLoss, float]:
        """See DecoyDefense.weighting."""
        return "focal_neg", self.gamma
