"""Removal of the last stage's skip connections: an attack's gradient loses its shortest way to the image.

A shortcut carries gradients around a block, which trains deep nets and serves inversion alike. Those of the
last stage serve it most, and the net does with little loss without them. Who queries alone, or attacks a
student with shortcuts that is distilled from the net, does not meet the missing gradients.

Source: Koh et al., ECCV 2024 (arXiv:2409.01696), RoLSS: z' = g(z) in the blocks of the last stage.
"""

from __future__ import annotations

from dataclasses import dataclass

from mibench.defense import Defense
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Card

from ._skips import lacks_skips, scaled


@dataclass(frozen=True, kw_only=True)
class RoLSS(Defense):
    """The net without the identity shortcuts of its last stage, in training and after.

    Shortcuts that project or subsample stay: without them a block would not change its shape. A net whose
    last stage has no other is refused, as VGG is. `ssf` weakens the shortcuts instead, and `tts` trains a
    little with them first; with them a net that is hard to train without loses less.
    """

    name = "rolss"
    acts = "training"
    card = Card(
        title="On the Vulnerability of Skip Connections to Model Inversion Attacks",
        paper="arXiv:2409.01696",
        year=2024,
        deviations=(
            "It trains with the suite's recipe, from scratch as the undefended victim does.",
            "Shortcuts that concatenate, as in DenseNet, are left out, since no net here has them.",
        ),
    )

    def misfit(self, net: NetSpec) -> str:
        """Why it cannot act on a net without an identity shortcut in the last stage; see Defense."""
        return lacks_skips(net)

    def prepare(self, net: Classifier) -> Classifier:
        """A copy of the net without these shortcuts; ValueError where it has none."""
        return scaled(net, 0.0, where=self.name)
