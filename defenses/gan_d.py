"""GAN-D: NetGuard with focal losses, by a defender who has a generator of the attack's architecture.

As printed, the focal loss of the private fakes (equation 7) is not what the text wants: minimizing
q^gamma log q rests at q = exp(-1 / gamma), 0.61 for gamma = 2, from both sides. `focal` chooses between the
printed form, which is the default, and the one that the text tells. Our repaired version is another plugin,
`decoy_neg`.

Source: Gong et al., IEEE TIFS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

from mibench.plugin import Card

from ._fakes import DEVIATIONS, FocalInversion


@dataclass(frozen=True, kw_only=True)
class GanD(FocalInversion):
    """Fine-tuning on inverted decoys with focal losses, the defender knowing the attack's generator.

    Its options are those of `FocalInversion`, `ShadowInversion` and `DecoyDefense`.
    """

    name = "gan_d"
    knows = frozenset({"attack_prior"})
    card = Card(
        title="A GAN-Based Defense Framework Against Model Inversion Attacks",
        paper="Gong et al., IEEE TIFS 2023, doi:10.1109/TIFS.2023.3295944",
        year=2023,
        deviations=(
            "An attack without a generative prior meets the substitute generator; the paper has results for "
            "such attacks and does not say which generator it took.",
            "The default is equation 7 as printed; focal='focal_detached' is the text's version of it.",
            *DEVIATIONS,
        ),
    )
