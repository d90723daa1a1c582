"""GAN-D: NetGuard with focal losses, by a defender who has a generator of the attack's architecture.

As printed, the focal loss of the private fakes (equation 7) is not what the text wants: minimizing
q^gamma log q rests at q = exp(-1 / gamma), 0.61 for gamma = 2, from both sides. `focal` chooses between the
printed form, which is the default, and the one that the text tells. Our repaired version is another plugin,
`decoy_neg`.

Source: Gong et al., IEEE TIFS 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.defense import DefenderView
from mibench.gan import WganPrior
from mibench.gan_inversion import InversionGan
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.prior import LatentSpace, PriorSpec

from ._fakes import DEVIATIONS, FocalInversion


@dataclass(frozen=True, kw_only=True)
class GanD(FocalInversion):
    """Fine-tuning on inverted decoys with focal losses, the defender knowing the attack's generator.

    Its other options are those of `FocalInversion`, `ShadowInversion` and `DecoyDefense`.

    Args:
        inversion_steps: generator steps, >= 0, in which a generator of WGAN-GP goes on training against a
            discriminator that knows the victim, as DMI's does, on the defender's public images; 0 leaves it
            as it was trained without the victim. Other generators stay as they are: no attack adapts them so.
    """

    name = "gan_d"
    knows = frozenset({"attack_prior"})
    added = FocalInversion.added | {"inversion_steps"}
    card = Card(
        title="A GAN-Based Defense Framework Against Model Inversion Attacks",
        paper="Gong et al., IEEE TIFS 2023, doi:10.1109/TIFS.2023.3295944",
        year=2023,
        deviations=(
            "An attack without a generative prior meets the substitute generator; the paper has results for "
            "such attacks and does not say which generator it took.",
            "The default is equation 7 as printed; focal='focal_detached' is the text's version of it.",
            "The generator of inversion_steps takes widths, batch and critic steps from the prior, and else "
            "DMI's published settings; the paper does not say what of DMI's GAN the defender trains.",
            *DEVIATIONS,
        ),
    )

    inversion_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.inversion_steps < math.inf:
            raise ValueError(f"gan_d: inversion_steps must be >= 0 and finite, got {self.inversion_steps}.")

    def trains_on(self, spec: PriorSpec) -> bool:
        """See Defense.trains_on."""
        return self.inversion_steps > 0 and isinstance(spec, WganPrior)

    def space(self, spec: PriorSpec, net: Classifier, view: DefenderView, ctx: Context) -> LatentSpace:
        """See ShadowInversion.space. One generator, adapted to the victim, serves both roles of fakes.

        Notes `inversion_steps`: those that were made.
        """
        if not (self.inversion_steps > 0 and isinstance(spec, WganPrior)):
            return super().space(spec, net, view, ctx)
        gan = InversionGan(
            prior=spec,
            steps=self.inversion_steps,
            n_critic=spec.n_critic,
            batch=spec.batch,
            critic_width=spec.critic_width,
        )
        soft = soft_labels(net, view.public.images, ctx)
        adapting = ctx.child("inversion-specific GAN")
        adapted = gan.adapt(dict(view.prior), soft, view.public.images, adapting)
        ctx.note("inversion_steps", self.inversion_steps)
        return gan.space(adapted, view.public.shape, soft.shape[1], ctx)


def soft_labels(net: Classifier, images: Tensor, ctx: Context) -> Tensor:
    """Probabilities (M, K) of a frozen net on images (M, C, H, W), on ctx.device."""
    with torch.no_grad():
        return torch.cat([net(part.to(ctx.device)).softmax(1) for part in images.split(ctx.max_batch)])
