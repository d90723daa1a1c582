"""Gradient alignment: released vectors that spoil the inversion network that is trained on them.

An attacker fits an inversion network to pairs of images and released vectors. A vector is moved so that the
gradient of the fit points where the private images' error grows. Only the weights of the network's first
layer are looked at: it is linear in the vector, so the gradient of a row is an outer product, and its cosine
with the wanted direction needs no gradient for each row in memory.

Sources: LPA (arXiv:2412.07575) for the objective; Geiping et al., ICLR 2021 (arXiv:2009.02276) for alignment
by signed Adam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor

from mibench.defense import DefenderView, State
from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.inversion_net import InversionNet
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.victim import freeze

from ._simplex import Norm, Streams, keep_label, length, part_of, project_far, top_label, within
from ._surrogate import Surrogate, log_answers

Draw = Callable[[Tensor], Tensor]
_LEAST = 1e-12  # probabilities are not looked at below it
_BETA_1, _BETA_2 = 0.9, 0.999  # of signed Adam; Geiping et al.
_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How vectors are aligned; the numbers are a reconstruction, see the cards.

    Args:
        steps: of signed Adam for each query, >= 0.
        step: largest change of a probability in one of them, >= 0; 0 takes a tenth of the budget.
        restarts: starts of which the best aligned vector is kept, >= 1; the first one is the victim's.
        rounds: trainings of the inversion network, >= 1: all but the first on answers poisoned before.
        queries: the defender's public images that are poisoned where something is learned from it, >= 1.
        batch: of these images are aligned together, >= 1.
    """

    steps: int = 250
    step: float = 0.0
    restarts: int = 1
    rounds: int = 1
    queries: int = 1024
    batch: int = 128
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("restarts", 1), ("rounds", 1), ("queries", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"alignment: {name} must be >= {least}, got {getattr(self, name)}.")
        if not self.step >= 0:
            raise ValueError(f"alignment: step must be >= 0, got {self.step}.")


@dataclass(frozen=True)
class Inversion:
    """An inversion network cut behind its first layer, which is linear.

    Args:
        prepare: probabilities (N, K) -> what the first layer sees, (N, K).
        first: its weights (K, M).
        draw: hidden values (N, M) -> images.
    """

    prepare: Draw
    first: Tensor
    draw: Draw

    def slopes(self, scores: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Two factors of the gradient of each row's squared error in the first layer's weights.

        The gradient of row i is the outer product of the i-th rows of the two, which are differentiable.

        Args:
            scores: (N, K), probabilities.
            images: (N, ...), what `draw` should give for them.

        Returns:
            What the first layer sees (N, K), and the error's gradient in the hidden values (N, M).
        """
        seen = self.prepare(scores)
        hidden = seen @ self.first
        if not hidden.requires_grad:
            hidden.requires_grad_(True)
        error = (self.draw(hidden) - images).square().sum()
        slopes: Tensor = torch.autograd.grad(error, hidden, create_graph=True)[0]
        return seen, slopes


def cut_behind_first(decoder: InversionNet, how: Surrogate) -> Inversion:
    """A frozen inversion network, cut; its first layer is a convolution of a single pixel without a bias."""
    weight = next(decoder.layers[0].parameters()).detach()
    rest = decoder.layers[1:]

    def draw(hidden: Tensor) -> Tensor:
        images: Tensor = rest(hidden.view(-1, *weight.shape[1:]))
        return images

    return Inversion(lambda scores: how.prepare(scores.clamp_min(_LEAST).log()), weight.flatten(1), draw)


def misalignment(seen: Tensor, slopes: Tensor, goal: Tensor) -> Tensor:
    """1 - cosine of each row's gradient, seen_i x slopes_i, and the goal (K, M): (N,), in [0, 2]."""
    along = ((seen @ goal) * slopes).sum(1)
    size = (length(seen, "l2") * length(slopes, "l2")).squeeze(1) * goal.norm()
    loss: Tensor = 1 - along / size.clamp_min(_TINY)
    return loss


def joint_misalignment(seen: Tensor, slopes: Tensor, goal: Tensor) -> Tensor:
    """1 - cosine of the rows' mean gradient and the goal (K, M): (1,), in [0, 2]."""
    gradient = seen.T @ slopes
    along = (gradient * goal).sum()
    loss: Tensor = 1 - along / (gradient.norm() * goal.norm()).clamp_min(_TINY)
    return loss[None]


@dataclass(frozen=True)
class Terms:
    """What a poison is made with.

    Args:
        how: options of the alignment.
        surrogate: options of the inversion network.
        budget: largest norm of a change, >= 0.
        norm: that norm.
    """

    how: Alignment
    surrogate: Surrogate
    budget: float
    norm: Norm


@dataclass(frozen=True)
class Poison:
    """What moves vectors.

    Args:
        inversion: the defender's inversion network.
        goal: (K, M), the gradient that a fit to the released vectors should have.
        terms: budget and options.
    """

    inversion: Inversion
    goal: Tensor
    terms: Terms

    def misaligned(self, scores: Tensor, images: Tensor, *, joint: bool = False) -> Tensor:
        """How badly a fit to scores (N, K) follows the goal: (N,), or (1,) for all rows together."""
        measure = joint_misalignment if joint else misalignment
        return measure(*self.inversion.slopes(scores, images), self.goal)

    def feasible(self, moved: Tensor, start: Tensor, label: Tensor | None) -> Tensor:
        """Vectors (N, K) brought back to the simplex, the label (N, 1) if there is one, and the budget."""
        moved = project_far(moved)
        if label is not None:
            moved = keep_label(moved, label)
        return within(moved, start, self.terms.budget, self.terms.norm)

    def perturb(
        self, scores: Tensor, images: Tensor, keys: Tensor, label: Tensor | None, *, joint: bool = False
    ) -> Tensor:
        """The best aligned vectors (N, K) that were found within the budget; never worse than the scores.

        Args:
            scores: (N, K), what is moved.
            images: the queries.
            keys: (N,), int64, streams of the random starts.
            label: (N, 1), int64, what has to lead; None lets any entry lead.
            joint: align the mean gradient of all rows, and not each row's.
        """
        best, least = scores, torch.full_like(scores[:, 0], torch.inf)
        for restart in range(self.terms.how.restarts):
            start = scores
            if restart:
                noise = Noise(keys.cpu()).uniform("start", scores.shape[1], step=restart).to(scores)
                start = self.feasible(scores + self.terms.budget * (2 * noise - 1), scores, label)
            found, loss = self._descend(start, scores, images, label, joint)
            best = torch.where((loss < least)[:, None], found, best)
            least = torch.minimum(loss, least)
        return best

    def _descend(
        self, moved: Tensor, scores: Tensor, images: Tensor, label: Tensor | None, joint: bool
    ) -> tuple[Tensor, Tensor]:
        """The best vectors (N, K) on the way of signed Adam from `moved`, and their losses (N,)."""
        size = self.terms.how.step or self.terms.budget / 10
        best, least = moved, torch.full_like(moved[:, 0], torch.inf)
        first, second = torch.zeros_like(moved), torch.zeros_like(moved)
        for step in range(1, self.terms.how.steps + 2):
            with torch.enable_grad():
                at = moved.detach().requires_grad_(True)
                loss = self.misaligned(at, images, joint=joint)
                sign = torch.autograd.grad(loss.sum(), at)[0].sign()
            seen = loss.detach().expand(len(moved))
            best = torch.where((seen < least)[:, None], moved, best)
            least = torch.minimum(seen, least)
            first = torch.lerp(sign, first, _BETA_1)
            second = torch.lerp(sign.square(), second, _BETA_2)
            ahead = first / (1 - _BETA_1**step)
            spread = (second / (1 - _BETA_2**step)).sqrt().clamp_min(_LEAST)
            moved = self.feasible(moved - size * ahead / spread, scores, label)
        return best, least


@dataclass(frozen=True)
class Lesson:
    """What a defender learned for its poison, and from what.

    Args:
        state: weights of the inversion network and the goal.
        poison: made of these.
        scores: (Q, K), the victim's vectors of some of the defender's public images.
        images: (Q, C, H, W), these images.
    """

    state: State
    poison: Poison
    scores: Tensor
    images: Tensor


def learn_poison(net: Classifier, view: DefenderView, ctx: Context, terms: Terms, *, name: str) -> Lesson:
    """Train the inversion network, as often as there are rounds, and find the goal on the private images.

    Notes on the record: `<name>_error`, see `Surrogate.fit`.

    Raises:
        TrainingError: the training diverged.
    """
    public, how = view.public.images, terms.how
    rows = torch.randperm(len(public), generator=ctx.generator("queries"))[: how.queries]
    images = public[rows].to(ctx.device)
    answers, fitted_to = log_answers(net, public, ctx), public
    scores = answers[rows.to(answers.device)].exp()
    for number in range(how.rounds):
        own = ctx.child(f"round {number}")
        decoder = terms.surrogate.build(net.spec, own)
        terms.surrogate.fit(decoder, answers, fitted_to, own, name=name)
        freeze(decoder)
        inversion = cut_behind_first(decoder, terms.surrogate)
        goal = private_goal(net, inversion, view.private_train.images, ctx)
        state = {f"decoder.{key}": value.cpu() for key, value in decoder.state_dict().items()}
        lesson = Lesson({**state, "goal": goal.cpu()}, Poison(inversion, goal, terms), scores, images)
        if number + 1 < how.rounds:
            answers, fitted_to = poisoned(lesson, own).clamp_min(_LEAST).log(), images
    return lesson


def private_goal(net: Classifier, inversion: Inversion, images: Tensor, ctx: Context) -> Tensor:
    """Gradient (K, M) of the negated mean error on private images: a step along it makes them worse."""
    total = torch.zeros_like(inversion.first)
    for x in images.split(ctx.max_batch):
        scores = log_answers(net, x, ctx).exp()
        with torch.enable_grad():
            seen, slopes = inversion.slopes(scores, x.to(ctx.device))
        total = total - seen.detach().T @ slopes.detach() / len(images)
    return total


def poisoned(lesson: Lesson, ctx: Context) -> Tensor:
    """The vectors (Q, K) of a lesson's images, aligned together batch by batch, labels kept."""
    poison, parts = lesson.poison, []
    keys = Streams(ctx).of(lesson.scores, lesson.images)
    pieces = [one.split(poison.terms.how.batch) for one in (lesson.scores, lesson.images, keys)]
    for scores, images, some in zip(*pieces):
        parts.append(poison.perturb(scores, images, some, top_label(scores), joint=True))
    return torch.cat(parts)


def load_poison(spec: NetSpec, state: State, ctx: Context, terms: Terms) -> Poison:
    """The poison that a state describes."""
    decoder = terms.surrogate.build(spec, ctx)
    decoder.load_state_dict(part_of(state, "decoder"))
    freeze(decoder)
    return Poison(cut_behind_first(decoder, terms.surrogate), state["goal"].to(ctx.device), terms)
