"""A defense that trains for one pass only; for tests."""

import dataclasses
from dataclasses import dataclass

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.training import fit


@dataclass(frozen=True, kw_only=True)
class ToyShort(Defense):
    """Training stopped early."""

    name = "toy_short"
    acts = "training"
    card = Card(title="Toy: one pass")
    epochs: int = 1

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """One pass over the private images."""
        recipe = dataclasses.replace(view.recipe, epochs=self.epochs)
        ctx.note("toy_epochs", self.epochs)
        return fit(net, view.private_train, ctx, recipe=recipe)
