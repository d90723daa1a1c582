"""Where the fakes of the NetGuard family come from: the defender inverts the victim and a public classifier.

Source: Gong et al., IEEE TIFS 2023, equations 5 and 6: latents of a public generator descend on
realism + z_label_weight * label loss, and of each row the iterate with the least label loss is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.defense import DefenderView
from mibench.errors import MibenchError
from mibench.gan import WganPrior
from mibench.latent import Search, pick_best, search_latents
from mibench.nets.classifier import Classifier
from mibench.plugin import Context, Settings
from mibench.prior import DrawnSpace, LabeledSpace, LatentSpace, PriorSpec
from mibench.substitute import Substitute, spelled

from ._decoy import DEVIATIONS as _DEVIATIONS
from ._decoy import DecoyDefense, check_gamma, confidence
from ._decoy_images import Fakes, sample
from ._decoy_losses import FakeLoss, Focal

# what no inversion of the family has from its paper
DEVIATIONS = (
    "Clean training images join in by default (replay_fraction = 1), as the text has it: at an equal loss of "
    "accuracy the decoy sits deeper than with elastic weight consolidation alone.",
    "Realism is the prior's own: -log D, or minus the score of a Wasserstein critic, which has no -log D.",
    "A conditional GAN is told the decoy's label; no label fits private fakes, which search mixtures of all.",
    "InfoGAN's categorical code is drawn; of several draws the one with the least label loss is kept.",
    "Latents stay in the region that the prior's attack searches, and the decoy's loss has the realism term "
    "that the text leaves out and its next sentence puts in.",
    *_DEVIATIONS,
)


@dataclass(frozen=True, kw_only=True)
class ShadowInversion(DecoyDefense):
    """Fakes by inverting the victim for the protected label and the public classifier for the decoy.

    Args:
        substitute: the defender's generator where the attack's is unknown or the attack has none: a table
            whose `kind` is "wgan_gp", which may be left out, "wgan_clip", "cgan" or "infogan".
        z_steps: gradient steps of the search for fakes, >= 0.
        z_lr: Adam's learning rate of that search, > 0.
        z_label_weight: weight of the label loss beside realism, >= 0.
        label_loss: "ce", equation 5; or "mse_onehot", the mean squared difference of the probabilities and
            the one-hot label, which the paper's text tells.
        decoy_images: "inversed" fakes of the decoy, as in the paper; or "real" images of that person beside
            inversed private ones, which lies between the paper and its baseline `random_fake`.
    """

    needs = frozenset({"prior", "public_net"})
    added = DecoyDefense.added | {"decoy_images"}
    toy: ClassVar[Settings] = {
        **DecoyDefense.toy,
        "substitute": {
            "latent_dim": 8,
            "width": 4,
            "critic_width": 4,
            "steps": 4,
            "n_critic": 1,
            "batch": 8,
        },
        "z_steps": 3,
    }

    substitute: Substitute = field(default_factory=WganPrior)
    z_steps: int = 120
    z_lr: float = 0.02
    z_label_weight: float = 100.0
    label_loss: Literal["ce", "mse_onehot"] = "ce"
    decoy_images: Literal["inversed", "real"] = "inversed"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("z_steps", "z_label_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{self.name}: {name} must be >= 0 and finite, got {getattr(self, name)}.")
        if not 0 < self.z_lr < math.inf:
            raise ValueError(f"{self.name}: z_lr must be > 0 and finite, got {self.z_lr}.")

    def params(self) -> dict[str, Any]:
        """All fields as JSON values; the substitute names its kind where it is not the default one."""
        return {**super().params(), "substitute": spelled(self.substitute)}

    def substitute_prior(self) -> PriorSpec:
        """The field `substitute`; see Defense.substitute_prior."""
        return self.substitute

    def make_fakes(self, net: Classifier, view: DefenderView, target: int, decoy: int, ctx: Context) -> Fakes:
        """Inversions of both classifiers; see DecoyDefense.make_fakes.

        Notes `fake_confidence_public`: mean probability of the decoy by the public classifier.

        Raises:
            MibenchError: the view lacks the prior or the public classifier.
        """
        if view.prior_spec is None or view.public_net is None:
            missing = "prior" if view.prior_spec is None else "classifier of public people"
            raise MibenchError(f"defense '{self.name}': there is no {missing}. Put it into the view.")
        space = self.space(view.prior_spec, net, view, ctx)
        known = space.of_label(decoy) if isinstance(space, LabeledSpace) else space
        judge = view.public_net.to(ctx.device)
        # own seeds, since label 3 of the public classifier is another person than label 3 of the victim
        private, _ = self.invert(net, space, target, ctx.child("private fakes"))
        if self.decoy_images == "real":
            drawn = sample(view.public, decoy, self.num_fakes, ctx.generator("public fakes"))
            public = drawn.to(ctx.device)
        else:
            public, _ = self.invert(judge, known, decoy, ctx.child(f"public fakes for {target}"))
        sure = confidence(judge, public, decoy)
        ctx.note("fake_confidence_public", sure)
        return Fakes(private, public, sure)

    def space(self, spec: PriorSpec, net: Classifier, view: DefenderView, ctx: Context) -> LatentSpace:
        """The defender's generator as a space to search in; `net` is the frozen victim."""
        return spec.load(dict(view.prior), view.private_train.shape, ctx)

    def invert(self, net: Classifier, space: LatentSpace, label: int, ctx: Context) -> tuple[Tensor, Tensor]:
        """Fakes (num_fakes, C, H, W) of a frozen net's label, and their label losses (num_fakes,).

        A space that draws a part of its latents starts several times for each fake; the best one is kept.
        """
        search = Search(steps=self.z_steps, lr=self.z_lr)
        noise = ctx.noise(torch.full((self.num_fakes,), label))
        draws = space.draws if isinstance(space, DrawnSpace) else 1

        def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
            images = space.decode(latents)
            loss = self.label_losses(net(images), label)
            return realism_of(space, latents, images) + self.z_label_weight * loss, loss

        images, losses = [], []
        for rows in torch.arange(self.num_fakes).split(max(1, ctx.max_batch // draws)):
            start = space.start(noise[rows] if draws == 1 else noise[rows].repeat(draws))
            latents, loss = search_latents(start, objective, search, ctx, project=space.project)
            best = pick_best(loss, draws)
            with torch.no_grad():
                images.append(space.decode(latents[best]))
            losses.append(loss[best])
        return torch.cat(images), torch.cat(losses)

    def label_losses(self, logits: Tensor, label: int) -> Tensor:
        """Loss (N,) of logits (N, K) that falls as they speak for `label`."""
        wanted = torch.full((len(logits),), label, device=logits.device)
        if self.label_loss == "ce":
            return F.cross_entropy(logits, wanted, reduction="none")
        return (logits.softmax(1) - F.one_hot(wanted, logits.shape[1])).square().mean(1)


def realism_of(space: LatentSpace, latents: Tensor, images: Tensor) -> Tensor:
    """Realism loss (B,) of the images of latents; a critic that asks for labels is told those they mix."""
    if isinstance(space, LabeledSpace):
        return space.realism_of(latents, images)
    return space.realism(images)


@dataclass(frozen=True, kw_only=True)
class FocalInversion(ShadowInversion):
    """ShadowInversion with the focal losses of GAN-D and GAN-ID.

    Args:
        focal: "focal_literal", equation 7 as printed, which pulls q to exp(-1 / gamma) from both sides; or
            "focal_detached", which takes q^gamma for a constant weight, as the text tells it.
        gamma: focusing exponent, >= 0; 0 is the cross-entropy version.
    """

    focal: Focal = "focal_literal"
    gamma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gamma(self.name, self.gamma)

    @property
    def weighting(self) -> tuple[FakeLoss, float]:
        """See DecoyDefense.weighting."""
        return self.focal, self.gamma
