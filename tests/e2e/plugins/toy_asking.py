"""A white-box attack that adapts with gradients and notes a decoy; for tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim


@dataclass(frozen=True, kw_only=True)
class ToyAsking(Attack[WhiteBoxVictim]):
    """The mean public image along the gradient; `column` gives its confidence a second dimension."""

    name = "toy_asking"
    access = WhiteBoxVictim
    card = Card(title="Toy: adapts with gradients")
    column: bool = False

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """The public mean, moved to be taken for anybody."""
        x = public.clone().requires_grad_()
        (slope,) = torch.autograd.grad(victim.logits(x).logsumexp(1).sum(), x)
        return {"mean": (public + slope).mean(0)}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The same image for every target."""
        ctx.note("decoy", 0)
        images = prior["mean"].expand(len(targets), -1, -1, -1)
        confidence = torch.full((len(targets), 1) if self.column else (len(targets),), 0.5)
        return Reconstructions.collect(images, targets, confidence)
