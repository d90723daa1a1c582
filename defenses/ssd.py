"""Stealthy Shield: every vector is moved towards the mean vector of its class, within a budget.

What a vector tells about the image beyond its class is the conditional mutual information of image and
answer given the class; it is least where all answers of a class are alike. The budget follows the entropy of
the vector, so sure answers are hardly touched. Needs no gradient and no inversion network. The class that a
vector is moved to is drawn from the vector itself, so some labels change.

Source: Stealthy Shield Defense, ICLR 2025, its paper and code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mibench.adaptive import Weakness
from mibench.data.split import Labeled
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.noise import hash_uniform
from mibench.plugin import Card, Context, Settings
from mibench.training import Recipe, augment

from ._simplex import Key, Reshaped, Streams, note_distortion
from ._surrogate import log_answers

_LEAST = 1e-12  # added to class means, which the water levels divide by


@dataclass(frozen=True, kw_only=True)
class Ssd(Defense):
    """The nearest vector to a class mean, in Kullback-Leibler divergence, within an L1 budget.

    Args:
        epsilon: L1 budget for each nat of the vector's entropy, >= 0; 0 switches the defense off. The paper
            takes 0.35 (IR-152 on CelebA), 0.5 (IR-152 on FaceScrub) and 0.8 (VGG-16 on FaceScrub).
        temperature: of the draw of the class, on probabilities, > 0.
        views: random views of each private image that a class mean is taken over, >= 0; 0 takes the images
            as they are.
        key: what the draw hangs on: the "image", or the released "vector" rounded to 0.001.
        fresh: draw the class anew for every query, as the authors do.
    """

    name = "ssd"
    acts = "output"
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="Stealthy Shield Defense: a conditional mutual information-based post-processing against "
        "black-box model inversion attacks",
        paper="ICLR 2025",
        year=2025,
        deviations=(
            "Class means come from private training images through random views; the authors hold a "
            "validation set.",
            "The draw of the class hangs on the image, so that repeats do not average it out; `fresh` draws "
            "anew, as the authors do.",
        ),
    )

    neutral: ClassVar[Settings | None] = {"epsilon": 0.0}
    strength: ClassVar[str] = "epsilon"
    strength_levels: ClassVar[tuple[object, ...]] = (0.1, 0.35, 0.5, 0.8)

    epsilon: float = 0.35
    temperature: float = 0.1
    views: int = 4
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        for name in ("epsilon", "views"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"ssd: {name} must be >= 0, got {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ValueError(f"ssd: temperature must be > 0, got {self.temperature}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats take off noise that is drawn anew, other views noise that is keyed; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """The mean vector of every class, (K, K); the distortion goes on record, see `note_distortion`."""
        if self.epsilon == 0:
            return {}
        state = {"means": self.class_means(net, view.private_train, view.recipe, ctx).cpu()}
        note_distortion(self, net, state, view, ctx)
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net whose vectors are moved to class means; see Defense."""
        if self.epsilon == 0:
            return Released(net)
        streams, means = Streams(ctx, key=self.key, fresh=self.fresh), state["means"]
        return Reshaped(net, lambda scores, x: self.shield(scores, means, streams.of(scores, x)))

    def class_means(self, net: Classifier, data: Labeled, recipe: Recipe, ctx: Context) -> Tensor:
        """Mean released vector of each class (K, K), float32, positive; even where a class has no image."""
        generator = ctx.generator("views")
        images = data.images
        if self.views > 0:
            images = torch.cat([augment(images, recipe, generator) for _ in range(self.views)])
        scores = log_answers(net, images, ctx).exp()
        labels = data.labels.to(scores.device).repeat(max(1, self.views))
        sums = torch.zeros(scores.shape[1], scores.shape[1], device=scores.device)
        means = sums.index_add(0, labels, scores) + _LEAST
        return means / means.sum(1, keepdim=True)

    def shield(self, scores: Tensor, means: Tensor, keys: Tensor) -> Tensor:
        """Probabilities (N, K), moved to the mean of a class that is drawn for each row.

        Args:
            scores: (N, K), of the victim.
            means: (K, K), of the classes.
            keys: (N,), int64, one stream for each row.
        """
        chances = (scores / self.temperature).softmax(1).cumsum(1)
        drawn = (chances < hash_uniform(keys, 1)).sum(1).clamp_max(scores.shape[1] - 1)
        entropy = torch.special.entr(scores).sum(1, keepdim=True)
        return nearest_within(scores, means[drawn], self.epsilon * entropy)


def nearest_within(scores: Tensor, goals: Tensor, budget: Tensor) -> Tensor:
    """The vectors p that minimize KL(p || goal) with |p - score|_1 <= budget; rows on the simplex.

    Entries of score / goal below a water level a are raised to a * goal, those above a level b lowered to
    b * goal, so that half of the budget moves up and half down. The mass that a level moves up is the
    largest over all sets of entries of a * sum(goal) - sum(score), so a is the least level that a prefix of
    the sorted entries asks for, and b the largest. Source: ICLR 2025, solution of the paper's problem.

    Args:
        scores: (N, K), rows on the simplex.
        goals: (N, K), likewise, positive.
        budget: (N, 1), >= 0.
    """
    f, q, half = scores.double(), goals.double(), budget.double() / 2  # goals span twelve decades
    q = q / q.sum(1, keepdim=True)
    f = f / f.sum(1, keepdim=True)
    order = (f / q).argsort(dim=1)
    rising_f, rising_q = f.gather(1, order).cumsum(1), q.gather(1, order).cumsum(1)
    low = ((half + rising_f) / rising_q).amin(1, keepdim=True)
    order = order.flip(1)
    falling_f, falling_q = f.gather(1, order).cumsum(1), q.gather(1, order).cumsum(1)
    high = ((falling_f - half) / falling_q).amax(1, keepdim=True)
    moved = torch.minimum(torch.maximum(f, low * q), high * q)
    is_near = (f - q).abs().sum(1, keepdim=True) <= 2 * half
    moved = torch.where(is_near, q, moved)
    return (moved / moved.sum(1, keepdim=True)).to(scores.dtype)
