"""Scaling of the last stage's skip connections: `rolss` by degrees.

Shortcuts carry an attack's gradient around the blocks of the last stage. Weakened instead of removed, they
cost less accuracy and leave the attack more. What meets `rolss` meets this too.

Source: Koh et al., ECCV 2024 (arXiv:2409.01696), SSF: z' = g(z) + k z in the blocks of the last stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mibench.defense import Defense
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Card, Settings

from ._skips import lacks_skips, scaled


@dataclass(frozen=True, kw_only=True)
class Ssf(Defense):
    """The net with weak identity shortcuts in its last stage, in training and after.

    Shortcuts that project or subsample stay as they are. A net whose last stage has no other is refused.

    Args:
        k: what is kept of each shortcut, in [0, 1]; the less, the stronger the defense. 0 is `rolss`, 1
            switches it off. The authors: 0.2, and 0.01 for shortcuts that concatenate.
    """

    name = "ssf"
    acts = "training"
    strength: ClassVar[str] = "k"
    strength_levels: ClassVar[tuple[object, ...]] = (0.8, 0.5, 0.2, 0.01)
    card = Card(
        title="On the Vulnerability of Skip Connections to Model Inversion Attacks",
        paper="arXiv:2409.01696",
        year=2024,
        deviations=(
            "It trains with the suite's recipe, from scratch as the undefended victim does.",
            "Shortcuts that concatenate, as in DenseNet, are left out, since no net here has them.",
        ),
    )
    neutral: ClassVar[Settings | None] = {"k": 1.0}

    k: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.k <= 1:
            raise ValueError(f"ssf: k must lie in [0, 1], got {self.k}.")

    def misfit(self, net: NetSpec) -> str:
        """Why it cannot act on a net without an identity shortcut in the last stage; see Defense."""
        return lacks_skips(net)

    def prepare(self, net: Classifier) -> Classifier:
        """A copy of the net with these shortcuts scaled; ValueError where it has none."""
        return scaled(net, self.k, where=self.name)
