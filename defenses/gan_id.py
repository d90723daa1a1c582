"""GAN-ID: GAN-D by a defender who does not know the attack's generator and trains a substitute.

Source: Gong et al., IEEE TIFS 2023. The paper's substitute is a Wasserstein GAN (also a conditional GAN and
InfoGAN); how its critic is constrained is not said, and a gradient penalty is what we take. Our repaired
version of its loss is another plugin, `decoy_neg`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mibench.plugin import Card

from ._fakes import DEVIATIONS, FocalInversion


@dataclass(frozen=True, kw_only=True)
class GanId(FocalInversion):
    """Fine-tuning on inverted decoys with focal losses, from a generator of the defender's own choice.

    Its options are those of `FocalInversion`, `ShadowInversion` and `DecoyDefense`.
    """

    name = "gan_id"
    card = Card(
        title="A GAN-Based Defense Framework Against Model Inversion Attacks",
        paper="Gong et al., IEEE TIFS 2023, doi:10.1109/TIFS.2023.3295944",
        year=2023,
        deviations=(
            "The substitute is a Wasserstein GAN with gradient penalty; the paper cites Banach WGAN and does "
            "not say how the critic is constrained.",
            "The paper gives no nets of the conditional GAN and InfoGAN: both are DCGANs here.",
            "The default is equation 7 as printed; focal='focal_detached' is the text's version of it.",
            *DEVIATIONS,
        ),
    )
