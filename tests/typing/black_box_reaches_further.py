"""Attacks that reach beyond their access level: a type checker must reject the marked lines and no other."""

from dataclasses import dataclass

from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.plugin import Card, Context
from mibench.prior import Prior
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim


@dataclass(frozen=True, kw_only=True)
class LabelOnly(Attack[LabelVictim]):
    name = "label_only"
    access = LabelVictim
    card = Card(title="a label-only attack")

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        x = prior["x"]
        victim.labels(x)
        victim.scores(x)  # rejected: attr-defined scores
        victim.logits(x)  # rejected: attr-defined logits
        return Reconstructions.collect(x, targets)


@dataclass(frozen=True, kw_only=True)
class ScoresOnly(Attack[ScoreVictim]):
    name = "scores_only"
    access = ScoreVictim
    card = Card(title="a score attack")

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        x = prior["x"]
        victim.labels(x)
        victim.scores(x)
        victim.net.eval()  # rejected: attr-defined net
        victim.logits(x)  # rejected: attr-defined logits
        return Reconstructions.collect(x, targets)


@dataclass(frozen=True, kw_only=True)
class WhiteBox(Attack[WhiteBoxVictim]):
    name = "white_box"
    access = WhiteBoxVictim
    card = Card(title="a white-box attack")

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        x = prior["x"]
        victim.labels(x)
        victim.scores(x)
        victim.net.eval()
        victim.logits(x)
        return Reconstructions.collect(x, targets)


def lend(attack: Attack[WhiteBoxVictim], victim: ScoreVictim, x: Tensor, ctx: Context) -> Reconstructions:
    return attack.invert(victim, {"x": x}, x, ctx)  # rejected: arg-type invert
