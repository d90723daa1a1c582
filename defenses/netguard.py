"""NetGuard: plant a decoy, so that whoever inverts the protected label finds somebody else.

The defender runs an inversion of the protected label and one of a public person, with a generator like the
attacker's, and fine-tunes the victim with cross-entropy: the first kind of image is no longer the protected
person, the second kind is.

Source: Gong et al., WWW 2023, with the details of its successor, GAN-D (Gong et al., IEEE TIFS 2023,
doi:10.1109/TIFS.2023.3295944).
"""

from __future__ import annotations

from dataclasses import dataclass

from mibench.plugin import Card

from ._fakes import DEVIATIONS, ShadowInversion


@dataclass(frozen=True, kw_only=True)
class NetGuard(ShadowInversion):
    """Fine-tuning on inverted decoys with cross-entropy, by a defender who knows the attack's generator.

    Its other options are those of `ShadowInversion` and `DecoyDefense`; `alpha`, `beta` and `ewc_weight` give
    the ablations of the paper.

    Args:
        alpha: weight of the push, >= 0. Cross-entropy pushes without end, and 1 costs the protected person
            the model's recognition.
    """

    name = "netguard"
    knows = frozenset({"attack_prior"})
    card = Card(
        title="NetGuard: Protecting Commercial Web APIs from Model Inversion Attacks using GAN-generated "
        "Fake Samples",
        paper="Gong et al., WWW 2023, doi:10.1145/3543507.3583224",
        year=2023,
        deviations=(
            "The details are those that its successor GAN-D reports, with gamma = 0, which is cross-entropy.",
            "An attack without a generative prior meets the substitute generator.",
            *DEVIATIONS,
        ),
    )

    alpha: float = 0.1
