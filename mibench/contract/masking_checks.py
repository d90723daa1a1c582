"""What is asked of a defense's gradients: does it protect, or hide a slope? Advice, never a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from mibench.contract.check import Answer
from mibench.contract.toy import PEOPLE, toy_world
from mibench.flags import MOST_SILENT
from mibench.masking import View, climbed, silent

_CLIMBERS, _CLIMB, _STRIDE = 16, 20, 0.02  # images, steps and pixels of a step: enough to reach every label
_BEATEN = 0.25  # share of images by which borrowed gradients win; of the built-in ones only hidden slopes do
_MASKED = (
    "Attacks that follow gradients then fail for want of a slope, and not because the net hides people. Hold "
    "it against attacks that need none (`mibench run SUITE --defense ... --attack brep_mi --attack rlb_mi`), "
    "name the weakness in `weak_to` (docs/adaptive.md), and claim nothing from white-box attacks alone."
)


class Seen(Protocol):
    """A defense that has been trained."""

    def views(self) -> Mapping[str, View]:
        """What white-box attackers may see of it, by name, as maps of images to logits."""
        ...


def gradients_are_there(subject: Seen) -> Answer:
    """Most images have a gradient in every white-box view."""
    for name, view in subject.views().items():
        share = float(silent(view, *_asked()).float().mean())
        if share > MOST_SILENT:
            return f"in the {name} view {share:.0%} of images have no gradient at all. {_MASKED}"
    return None


def gradients_lead_somewhere(subject: Seen) -> Answer:
    """Its own gradients lead an attack as far as those of an undefended net do."""
    views = subject.views()
    images, wanted = _asked()
    borrowed = climbed(toy_world().net, images, wanted, steps=_CLIMB, size=_STRIDE)
    for name, view in views.items():
        own = climbed(view, images, wanted, steps=_CLIMB, size=_STRIDE)
        with torch.no_grad():
            hits = [float((view(x).argmax(1) == wanted).float().mean()) for x in (own, borrowed)]
        if hits[1] - hits[0] > _BEATEN:
            return (
                f"in the {name} view {_CLIMB} steps along its own gradients reach {hits[0]:.0%} of the "
                f"labels, along those of an undefended net {hits[1]:.0%}. {_MASKED}"
            )
    return None


def _asked() -> tuple[Tensor, Tensor]:
    """Public images (N, C, H, W) of as many people, and the labels (N,) that an attacker wants of them."""
    public = toy_world().public
    rows = torch.arange(_CLIMBERS) * len(public) // _CLIMBERS
    return public[rows], torch.arange(_CLIMBERS) % PEOPLE
