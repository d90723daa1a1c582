"""A per-target defense that knows the attack's prior and needs all that a defender may ask for; for tests."""

import dataclasses
from dataclasses import dataclass

import torch

from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.training import fit


@dataclass(frozen=True, kw_only=True)
class ToyDecoy(Defense):
    """Fine-tuning on images of the prior, labeled as the protected person."""

    name = "toy_decoy"
    acts = "fine-tuning"
    knows = frozenset({"attack_prior"})
    needs = frozenset({"prior", "public_net"})
    per_target = True
    starts_from = "trained"
    card = Card(title="Toy: decoys of the prior")

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """One pass over a few decoys and the private images."""
        assert view.prior_spec is not None
        assert view.public_net is not None
        target = int(view.targets)
        space = view.prior_spec.load(dict(view.prior), view.private_train.shape, ctx)
        labels = torch.full((4,), target)
        images = space.decode(space.start(ctx.noise(labels)))
        decoys = Labeled(
            torch.cat([images, view.private_train.images]), torch.cat([labels, view.private_train.labels])
        )
        ctx.note("decoy", int(view.public_net(images).sum(0).argmax()))
        return fit(net, decoys, ctx, recipe=dataclasses.replace(view.recipe, epochs=1))
