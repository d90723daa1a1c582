"""A low-rank head: few numbers pass from the net's feature to the logits.

An attack climbs the logits through the feature, and what the feature's directions tell of an image leaks
that way. A head of two layers lets only as many directions pass as its rank counts, and a tanh between them
saturates, which weakens the gradients that an attack gets.

Source: Yu et al., KDD 2026 (arXiv:2410.05814 v4), LoFt: W = B A of rank r, far below the number of people.
The norm, the activation and the rank are those of the authors' training script.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from torch import nn

from mibench.defense import DefenderView, Defense
from mibench.nets import CLASSIFIERS, NetSpec
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.plugin import Card, Context, Settings
from mibench.training import fit

Activation = Literal["tanh", "sigmoid", "relu", "none"]
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "none": nn.Identity,
}


@dataclass(frozen=True, kw_only=True)
class LowRank(Defense):
    """Training with a head of two linear layers; the net's feature stays where it was, before both.

    Args:
        rank: numbers between the two layers, >= 1, and below the number of people and of the feature's
            entries; the fewer, the stronger the defense. None leaves the head as it is and so switches the
            defense off. The authors: 50 for 530 people (FaceScrub, ResNet-152, 2048 entries), and 20 to 500.
        activation: between the layers; "none" makes the head one matrix of that rank.
        norm: whether batch norm comes before the first layer, as the authors have it.
    """

    name = "low_rank"
    aliases = ("loft",)
    acts = "training"
    strength: ClassVar[str] = "rank"
    strength_levels: ClassVar[tuple[object, ...]] = (200, 100, 50, 20)
    card = Card(
        title="Rank Matters: Understanding and Defending Model Inversion Attacks via Low-Rank Feature "
        "Filtering",
        paper="arXiv:2410.05814",
        year=2026,
        code="https://github.com/Chrisqcwx/LoFt",
        deviations=(
            "It trains from scratch with the suite's recipe; the authors start from a net of public people.",
            "Confidence adaptation, a fine-tuning in the first version (CALoR), is left out, as in v4.",
        ),
    )
    toy: ClassVar[Settings] = {"rank": 2}
    neutral: ClassVar[Settings | None] = {"rank": None}

    rank: int | None = 50
    activation: Activation = "tanh"
    norm: bool = True

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"low_rank: rank must be >= 1 or left out, got {self.rank}.")

    def misfit(self, net: NetSpec) -> str:
        """Why its rank would not narrow the head of a net; see Defense."""
        if self.rank is None:
            return ""
        limit, what = min((net.num_classes, "people"), (_feature_dim(net), "entries of the feature"))
        if self.rank < limit:
            return ""
        return f"rank {self.rank} filters nothing out of {limit} {what}. Give a rank below {limit}."

    def prepare(self, net: Classifier) -> Classifier:
        """A copy of the net with the narrow head; `train` draws the head's weights again.

        Raises:
            ValueError: the rank is not below the number of people or of the feature's entries.
        """
        if self.rank is None:
            return net
        wrong = self.misfit(net.spec)
        if wrong:
            raise ValueError(f"low_rank: {wrong}")
        narrowed = copy.deepcopy(net)
        narrowed.head = self._head(net, self.rank, torch.Generator().manual_seed(0))
        return narrowed

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The narrowed net, trained on the private images; see Defense.train."""
        if self.rank is not None:
            net.head = self._head(net, self.rank, ctx.generator("low-rank head"))
        return fit(net, view.private_train, ctx, recipe=view.recipe)

    def _head(self, net: Classifier, rank: int, generator: torch.Generator) -> nn.Sequential:
        """From features (N, feature_dim) to logits (N, num_classes), with weights from a CPU generator."""
        with seeded(generator):
            return nn.Sequential(
                nn.BatchNorm1d(net.feature_dim) if self.norm else nn.Identity(),
                nn.Linear(net.feature_dim, rank),
                _ACTIVATIONS[self.activation](),
                nn.Linear(rank, net.spec.num_classes),
            )


@cache
def _feature_dim(net: NetSpec) -> int:
    """Entries of a net's feature, read off a net without weights."""
    with torch.device("meta"):
        return CLASSIFIERS[net.name](net).feature_dim
