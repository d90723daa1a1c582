"""A white-box attack with a generative prior, one gradient step; for tests."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.noise import Noise
from mibench.plugin import Card, Context
from mibench.prior import LatentSpace, Prior, PriorSpec, Shape
from mibench.victim import WhiteBoxVictim


class _Around:
    """Images around a mean; the latent is a shade of gray."""

    dim = 1

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def start(self, noise: Noise) -> Tensor:
        return noise.normal("start", 1)

    def decode(self, latents: Tensor) -> Tensor:
        return (self.mean + 0.1 * latents[:, :, None, None]).clamp(0, 1)

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1, 1)

    def realism(self, images: Tensor) -> Tensor:
        return (images - self.mean).square().mean((1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class ToyPrior(PriorSpec):
    """The mean image, darkened."""

    kind: ClassVar[str] = "toy_mean"
    dark: float = 0.0

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """The mean of the public images."""
        return {"mean": public.mean(0) * (1 - self.dark)}

    def load(self, prior: Prior, shape: Shape, ctx: Context) -> LatentSpace:
        """Images around the mean."""
        return _Around(prior["mean"].to(ctx.device))


@dataclass(frozen=True, kw_only=True)
class ToyGradient(Attack[WhiteBoxVictim]):
    """The mean image moved along the gradient of the target's logit."""

    name = "toy_gradient"
    access = WhiteBoxVictim
    card = Card(title="Toy: one gradient step")
    step: float = 1.0
    prior: ToyPrior = field(default_factory=ToyPrior)

    def prior_spec(self) -> ToyPrior:
        """The mean image."""
        return self.prior

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """One step for every target."""
        space = self.prior.load(prior, victim.shape, ctx)
        x = space.decode(space.start(ctx.noise(targets))).requires_grad_()
        logits = victim.logits(x).gather(1, targets[:, None])
        (slope,) = torch.autograd.grad(logits.sum(), x)
        return Reconstructions.collect(x + self.step * slope, targets)
