"""A score-level attack that keeps the best of a few noise images; for tests."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import ScoreVictim


@dataclass(frozen=True, kw_only=True)
class ToyScores(Attack[ScoreVictim]):
    """The most probable of `tries` noise images."""

    name = "toy_scores"
    access = ScoreVictim
    card = Card(title="Toy: best of some noise images")
    tries: int = 2

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The public image that the victim is surest about."""
        best = victim.scores(public).amax(1).argmax()
        return {"start": public[best]}

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """Noise around the start image."""
        noise = ctx.noise(targets)
        best = prior["start"].expand(len(targets), -1, -1, -1)
        score = torch.zeros(len(targets))
        for step in range(self.tries):
            images = (prior["start"] + 0.2 * noise.normal("try", *victim.shape, step=step)).clamp(0, 1)
            found = victim.scores(images).gather(1, targets[:, None]).squeeze(1)
            best = torch.where((found > score)[:, None, None, None], images, best)
            score = torch.maximum(found, score)
            ctx.report(step + 1, self.tries, score=float(score.mean()))
        ctx.note("toy_tries", self.tries)
        return Reconstructions.collect(best, targets, score)
