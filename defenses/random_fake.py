"""Random fakes: NetGuard's fine-tuning on real images in place of inverted ones, the paper's own baseline.

Real training images of the protected label are pushed away from it, real images of the decoy are pulled
towards it. The loss thus asks the victim to unlearn the protected person, whose accuracy the paper gives as
zero: read it as a control. alpha = 0 only plants the decoy and is the fairer baseline.

Source: Gong et al., IEEE TIFS 2023, table III.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context

from ._decoy import DEVIATIONS, DecoyDefense, FakeLoss, Fakes


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
        if not 0 <= self.gamma < math.inf:
            raise ValueError(f"random_fake: gamma must be >= 0 and finite, got {self.gamma}.")

    @property
    def weighting(self) -> tuple[FakeLoss, float]:
        """See DecoyDefense.weighting."""
        return self.loss, 0.0 if self.loss == "ce" else self.gamma

    @property
    def hold(self) -> float:
        """See DecoyDefense.hold."""
        return self.ewc_weight if self.with_ewc else 0.0

    def make_fakes(self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context) -> Fakes:
        """Real images of both people; see DecoyDefense.make_fakes."""
        return Fakes(
            self.sample(view.private_train, target, ctx.generator("private fakes")).to(ctx.device),
            self.sample(view.public, decoy, ctx.generator("public fakes")).to(ctx.device),
        )

    def sample(self, data: Labeled, label: int, generator: torch.Generator) -> Tensor:
        """Up to num_fakes images of a label (n, C, H, W), drawn without replacement."""
        images = data.of(label).images
        return images[torch.randperm(len(images), generator=generator)[: self.num_fakes]]
