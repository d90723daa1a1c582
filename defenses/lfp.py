"""A few released vectors poisoned much, their labels with them, so that an inversion network fails.

The sister of LPA: most answers are the victim's own, a small share is moved without regard to the label. The
accuracy falls by that share at most. Which queries are poisoned must not change from one question to the
next, or a second question shows it.

Source: LFP, arXiv:2412.07575 (IEEE TIFS 2025), of which the abstract could be read; the paper itself calls
LPA the more effective of the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.noise import hash_uniform, mix
from mibench.plugin import Card, Context, Settings

from ._poison import Alignment, Lesson, Poison, Terms, learn_poison, load_poison
from ._simplex import Key, Norm, Reshaped, Streams, length, note_distortion
from ._surrogate import Surrogate


@dataclass(frozen=True, kw_only=True)
class Lfp(Defense):
    """Gradient alignment of a share of the queries, labels free to change.

    Args:
        rate: share of poisoned queries, in [0, 1]; 0 switches the defense off.
        select: which queries: by a keyed "hash", those with the largest "gradient" of the defender's
            inversion network, or with the largest "gain" of alignment; the latter two above the threshold
            that exactly this share of the defender's public images passes.
        flip: "runner_up" exchanges the two largest probabilities first and then holds the new label; "free"
            lets the alignment choose.
        budget: largest norm of the change of a poisoned vector, after the exchange, >= 0.
        norm: "inf", "l1" or "l2".
        align: how vectors are aligned.
        surrogate: the defender's inversion network.
        key: what the choice and random starts hang on: the "image", or the "vector" rounded to 0.001, which
            flips all images of a sure prediction or none.
        fresh: choose anew for every query.
    """

    name = "lfp"
    acts = "output"
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="LPA and LFP: poisoning the confidence vectors that train inversion models",
        paper="arXiv:2412.07575",
        year=2024,
        deviations=(
            "Only the abstract could be read; the choice of queries, budgets and steps are ours.",
            "Alignment looks at the inversion network's first layer alone, and at each query by itself.",
        ),
    )

    toy: ClassVar[Settings] = {
        "align": {"steps": 3, "queries": 32, "batch": 16},
        "surrogate": {"width": 8, "epochs": 2, "batch": 16},
    }
    neutral: ClassVar[Settings | None] = {"rate": 0.0}
    strength: ClassVar[str] = "rate"
    strength_levels: ClassVar[tuple[object, ...]] = (0.01, 0.05, 0.1)

    rate: float = 0.05
    select: Literal["hash", "gradient", "gain"] = "hash"
    flip: Literal["runner_up", "free"] = "runner_up"
    budget: float = 1.0
    norm: Norm = "inf"
    align: Alignment = field(default_factory=Alignment)
    surrogate: Surrogate = field(default_factory=Surrogate)
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"lfp: rate must lie in [0, 1], got {self.rate}.")
        if not self.budget >= 0:
            raise ValueError(f"lfp: budget must be >= 0, got {self.budget}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats outvote a choice that is made anew, other views one that is keyed; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    @property
    def terms(self) -> Terms:
        """What its poison is made with."""
        return Terms(how=self.align, surrogate=self.surrogate, budget=self.budget, norm=self.norm)

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Weights of the inversion network, and the threshold of the choice; see Defense.

        Notes on the record: `lfp_error`, see `Surrogate.fit`, and the distortion, see `note_distortion`.

        Raises:
            TrainingError: the training diverged.
        """
        if self.rate == 0:
            return {}
        lesson = learn_poison(net, view, ctx, self.terms, name=self.name)
        state = lesson.state
        if self.select != "hash":
            state["threshold"] = torch.tensor(self._threshold(lesson, ctx))
        note_distortion(self, net, state, view, ctx)
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with a share of its vectors poisoned; see Defense."""
        if self.rate == 0:
            return Released(net)
        poison = load_poison(net.spec, state, ctx, self.terms)
        streams = Streams(ctx, key=self.key, fresh=self.fresh)
        threshold = float(state["threshold"]) if "threshold" in state else -self.rate
        return Reshaped(
            net, lambda scores, x: self.poison(poison, scores, x, streams.of(scores, x), threshold)
        )

    def poison(
        self, poison: Poison, scores: Tensor, images: Tensor, keys: Tensor, threshold: float
    ) -> Tensor:
        """Probabilities (N, K) of which the chosen rows are aligned and the others those of scores (N, K).

        Args:
            poison: aligns.
            scores: of the victim.
            images: the queries.
            keys: (N,), int64, one stream for each row.
            threshold: the chosen rows' worth lies above it.
        """
        chosen = self.worth(poison, scores, images, keys) > threshold
        rows = chosen.nonzero().squeeze(1)
        if not len(rows):
            return scores
        return scores.index_copy(0, rows, self.turned(poison, scores[rows], images[rows], keys[rows]))

    def turned(self, poison: Poison, scores: Tensor, images: Tensor, keys: Tensor) -> Tensor:
        """Poisoned vectors (N, K) of scores (N, K)."""
        if self.flip == "free":
            return poison.perturb(scores, images, keys, None)
        top, index = scores.topk(2, dim=1)
        swapped = scores.scatter(1, index, top.flip(1))
        return poison.perturb(swapped, images, keys, index[:, 1:])

    def worth(self, poison: Poison, scores: Tensor, images: Tensor, keys: Tensor) -> Tensor:
        """How much each row is to be chosen, (N,): its keyed number below 0, gradient's norm, or gain.

        A hash chooses rows whose number in (0, 1] is smaller than `rate`.
        """
        if self.select == "hash":
            # a stream of its own: random starts draw from the same keys
            return -hash_uniform(mix(keys), 1).squeeze(1)
        if self.select == "gradient":
            with torch.enable_grad():
                seen, slopes = poison.inversion.slopes(scores, images)
            return (length(seen, "l2") * length(slopes, "l2")).detach().squeeze(1)
        before = _misaligned(poison, scores, images)
        return before - _misaligned(poison, self.turned(poison, scores, images, keys), images)

    def _threshold(self, lesson: Lesson, ctx: Context) -> float:
        """The worth that at most `rate` of the lesson's images lie above."""
        keys = Streams(ctx, key=self.key).of(lesson.scores, lesson.images)
        pieces = [one.split(self.align.batch) for one in (lesson.scores, lesson.images, keys)]
        worth = torch.cat([self.worth(lesson.poison, *rows) for rows in zip(*pieces)])
        allowed = math.floor(self.rate * len(worth))
        ordered = worth.sort(descending=True).values
        return float(ordered[allowed]) if allowed < len(worth) else -math.inf


def _misaligned(poison: Poison, scores: Tensor, images: Tensor) -> Tensor:
    """Misalignment (N,) of each row, without a graph."""
    with torch.enable_grad():
        return poison.misaligned(scores, images).detach()
