"""Random fakes: NetGuard's fine-tuning on real images in place of inverted ones, the paper's own baseline.

Real training images of the protected label are pushed away from it, real images of the decoy are pulled
towards it. The loss thus asks the victim to unlearn the protected person, whose accuracy the paper gives as
zero: read it as a control. alpha = 0 only plants the decoy and is the fairer baseline; another one is
`netguard` with decoy_images = "real", which pushes inversed images away and pulls real ones.

Source: Gong et al., IEEE TIFS 2023, table III.
"""

from __future__ import annotations

from dataclasses import dataclass

from mibench.defense import DefenderView
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context

from ._decoy import DEVIATIONS, Auto, DecoyDefense, check_gamma
from ._decoy_images import Fakes, sample
from ._decoy_losses import FakeLoss


@dataclass(frozen=True, kw_only=True)
class RandomFake(DecoyDefense):
    """Fine-tuning on real images of the protected label and of a decoy; other options: DecoyDefense.

    Args:
        loss: of the private images: "ce", or one of GAN-D's focal losses.
        gamma: focusing exponent of the focal losses, >= 0; "ce" has none.
        replay_fraction: see DecoyDefense; 0 by default, since replay would teach again what is pushed away.
        with_ewc: hold the old weights by `ewc_weight`; False lets them go. The paper does not say.
    """

    name = "random_fake"
    card = Card(
        title="Random fake samples (baseline of GAN-D)",
        paper="Gong et al., IEEE TIFS 2023, doi:10.1109/TIFS.2023.3295944",
        year=2023,
        deviations=(
            "Cross-entropy is the default: the GAN-D values beside it in the paper's table are those of that "
            "loss.",
            "The paper gives neither the number of images nor whether the weights are held.",
            *DEVIATIONS,
        ),
    )

    loss: FakeLoss = "ce"
    gamma: float = 2.0
    with_ewc: bool = True
    replay_fraction: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gamma(self.name, self.gamma)
        if self.ewc_weight == "auto" and not self.with_ewc:
            raise ValueError(
                "random_fake: with_ewc is False, ewc_weight 'auto'. Hold the weights, or give 0."
            )

    @property
    def weighting(self) -> tuple[FakeLoss, float]:
        """See DecoyDefense.weighting."""
        return self.loss, 0.0 if self.loss == "ce" else self.gamma

    @property
    def hold(self) -> float | Auto:
        """See DecoyDefense.hold."""
        return self.ewc_weight if self.with_ewc else 0.0

    def make_fakes(self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context) -> Fakes:
        """Real images of both people; see DecoyDefense.make_fakes."""
        private = sample(view.private_train, target, self.num_fakes, ctx.generator("private fakes"))
        public = sample(view.public, decoy, self.num_fakes, ctx.generator("public fakes"))
        return Fakes(private.to(ctx.device), public.to(ctx.device))
