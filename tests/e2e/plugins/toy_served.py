"""A label-level attack that adapts, notes, and returns an effort curve; for tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Attack, Effort, Reconstructions
from mibench.data.split import quantize
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim


@dataclass(frozen=True, kw_only=True)
class ToyServed(Attack[LabelVictim]):
    """Public images that are taken for the target, under noise."""

    name = "toy_served"
    access = LabelVictim
    card = Card(title="Toy: public images by label")

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        """The public images, darker."""
        ctx.note("public_images", len(public))
        return {"dark": public * 0.9}

    def adapt_prior(self, prior: Prior, victim: LabelVictim, public: Tensor, ctx: Context) -> Prior:
        """The labels of the darker images."""
        return {**prior, "labels": victim.labels(prior["dark"])}

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """The mean image of the target's label, under noise in memory order of channels."""
        noise = ctx.noise(targets).normal("try", *victim.shape, step=0)
        start = torch.stack(
            [(prior["dark"] * (prior["labels"] == t)[:, None, None, None]).mean(0) for t in targets]
        )
        images = (start + 0.2 * noise).clamp(0, 1).to(memory_format=torch.channels_last)
        is_hit = victim.labels(images) == targets
        ctx.report(1, 1, hits=float(is_hit.sum()))
        found = torch.where(is_hit[:, None, None, None], images, start)
        effort = Effort(torch.tensor([1]), quantize(found)[None], (~is_hit).float()[None], quantize(start))
        return Reconstructions.collect(found, targets, is_hit.float(), effort)
