"""All released vectors poisoned a little, labels kept, so that an inversion network trained on them fails.

An attacker trains its inversion network on the defender's answers. Adversarial noise on a vector (Ad-mi)
fools a network that is trained already; here the training itself is spoilt: each vector is moved so that a
step of the fit makes the reconstruction of private images worse. Aligning a query takes many gradients of the
defender's own inversion network; a small generator, learned from aligned vectors, does it in one pass. Who
holds the weights, or does not train on answers at all, is not hindered.

Source: LPA, arXiv:2412.07575 (IEEE TIFS 2025), of which the abstract and summaries of the objective could be
read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, Released, State
from mibench.nets.classifier import Classifier
from mibench.nets.seeding import seeded
from mibench.noise import hash_normal
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.training import check_finite
from mibench.victim import freeze

from ._poison import Alignment, Lesson, Poison, Terms, learn_poison, load_poison, poisoned
from ._simplex import Key, Norm, Reshaped, Streams, note_distortion, part_of, top_label
from ._surrogate import Surrogate


@dataclass(frozen=True, kw_only=True)
class Vae:
    """The generator of perturbations: a variational autoencoder conditioned on the vector.

    Args:
        hidden: units of its two hidden layers, >= 1.
        latent: length of the code, >= 1.
        epochs: passes over the aligned vectors, >= 1.
        batch: vectors in a step, >= 1.
        lr: learning rate of Adam, > 0.
        kl_weight: of the divergence of the code from a standard normal one, >= 0.
        align_weight: of the misalignment of what it generates, >= 0.
    """

    hidden: int = 64
    latent: int = 16
    epochs: int = 100
    batch: int = 128
    lr: float = 1e-3
    kl_weight: float = 1e-3
    align_weight: float = 1.0
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        for name in ("hidden", "latent", "epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"vae: {name} must be >= 1, got {getattr(self, name)}.")
        for name in ("kl_weight", "align_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"vae: {name} must be >= 0, got {getattr(self, name)}.")
        if not self.lr > 0:
            raise ValueError(f"vae: lr must be > 0, got {self.lr}.")


@dataclass(frozen=True, kw_only=True)
class Lpa(Defense):
    """Gradient alignment within a budget on the simplex, query by query or by a generator.

    Args:
        budget: largest norm of the change of a vector, >= 0; 0 switches the defense off.
        norm: "inf", "l1" or "l2".
        mode: "alignment" aligns every query by itself; "vae" asks the generator.
        align: how vectors are aligned.
        surrogate: the defender's inversion network.
        vae: the generator, in the mode "vae".
        key: what a random start or code hangs on: the "image", or the "vector" rounded to 0.001.
        fresh: draw it anew for every query.
    """

    name = "lpa"
    acts = "output"
    keeps_label = True
    weak_to = frozenset({"keyed_noise"})
    card = Card(
        title="LPA and LFP: poisoning the confidence vectors that train inversion models",
        paper="arXiv:2412.07575",
        year=2024,
        deviations=(
            "Only the abstract and summaries could be read; budgets, steps and sizes are ours.",
            "Alignment looks at the inversion network's first layer alone.",
            "Queries are aligned one by one, as a service meets them; batches for the generator alone.",
            "The generator's code hangs on the image, so that repeats do not average it out; `fresh` draws "
            "it anew.",
        ),
    )

    toy: ClassVar[Settings] = {
        "align": {"steps": 3, "queries": 32, "batch": 16},
        "surrogate": {"width": 8, "epochs": 2, "batch": 16},
        "vae": {"epochs": 2, "batch": 16},
    }
    neutral: ClassVar[Settings | None] = {"budget": 0.0}
    strength: ClassVar[str] = "budget"
    strength_levels: ClassVar[tuple[object, ...]] = (0.01, 0.05, 0.1)

    budget: float = 0.05
    norm: Norm = "inf"
    mode: Literal["alignment", "vae"] = "alignment"
    align: Alignment = field(default_factory=Alignment)
    surrogate: Surrogate = field(default_factory=Surrogate)
    vae: Vae = field(default_factory=Vae)
    key: Key = "image"
    fresh: bool = False

    def __post_init__(self) -> None:
        if not self.budget >= 0:
            raise ValueError(f"lpa: budget must be >= 0, got {self.budget}.")

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Repeats take off noise that is drawn anew, other views what hangs on the image; see Defense."""
        return frozenset({"fresh_noise"}) if self.fresh else self.weak_to

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """Weights of the inversion network and, in the mode "vae", of the generator; see Defense.

        Notes on the record: `lpa_error`, see `Surrogate.fit`, and the distortion, see `note_distortion`.

        Raises:
            TrainingError: a training diverged.
        """
        if self.budget == 0:
            return {}
        lesson = learn_poison(net, view, ctx, self.terms, name=self.name)
        state = lesson.state
        if self.mode == "vae":
            generator = self.fit_generator(self._build(net.spec.num_classes, ctx), lesson, ctx)
            state |= {f"vae.{key}": value.cpu() for key, value in generator.state_dict().items()}
        note_distortion(self, net, state, view, ctx)
        return state

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net with poisoned release; see Defense."""
        if self.budget == 0:
            return Released(net)
        poison = load_poison(net.spec, state, ctx, self.terms)
        streams = Streams(ctx, key=self.key, fresh=self.fresh)
        if self.mode == "alignment":
            return Reshaped(
                net, lambda scores, x: poison.perturb(scores, x, streams.of(scores, x), top_label(scores))
            )
        generator = self._build(net.spec.num_classes, ctx)
        generator.load_state_dict(part_of(state, "vae"))
        freeze(generator)
        return Reshaped(
            net, lambda scores, x: self.generate(generator, poison, scores, streams.of(scores, x))
        )

    @property
    def terms(self) -> Terms:
        """What its poison is made with."""
        return Terms(how=self.align, surrogate=self.surrogate, budget=self.budget, norm=self.norm)

    def generate(self, generator: Generator, poison: Poison, scores: Tensor, keys: Tensor) -> Tensor:
        """Vectors (N, K) that the generator makes of scores (N, K), within the budget, labels kept.

        Args:
            generator: trained.
            poison: knows the budget.
            scores: of the victim.
            keys: (N,), int64, streams of the codes.
        """
        noise = hash_normal(keys, self.vae.latent)
        return poison.feasible(scores + generator(scores, noise)[0], scores, top_label(scores))

    def fit_generator(self, generator: Generator, lesson: Lesson, ctx: Context) -> Generator:
        """The generator trained in place on the lesson's aligned vectors.

        Loss: squared distance from the aligned change, the code's divergence from a standard normal one, and
        the misalignment of the vector that comes out.

        Raises:
            TrainingError: the loss became NaN or infinite.
        """
        scores, wanted = lesson.scores, poisoned(lesson, ctx) - lesson.scores
        draws = ctx.generator("codes")
        optimizer = torch.optim.Adam(generator.parameters(), lr=self.vae.lr)
        watch = Stopwatch()
        for epoch in range(self.vae.epochs):
            for rows in torch.randperm(len(scores), generator=draws).split(self.vae.batch):
                noise = torch.randn(len(rows), self.vae.latent, generator=draws).to(scores.device)
                some = rows.to(scores.device)
                change, mean, log_var = generator(scores[some], noise)
                distance = (change - wanted[some]).square().sum(1)
                divergence = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
                moved = (scores[some] + change).clamp_min(0)
                moved = moved / moved.sum(1, keepdim=True).clamp_min(torch.finfo(moved.dtype).eps)
                aligned = lesson.poison.misaligned(moved, lesson.images[some])
                loss = distance + self.vae.kl_weight * divergence + self.vae.align_weight * aligned
                optimizer.zero_grad(set_to_none=True)
                loss.mean().backward()
                optimizer.step()
            seen = float(loss.detach().mean())
            check_finite(seen, epoch, "lpa: generator")
            if watch.is_due():
                ctx.report(epoch + 1, self.vae.epochs, loss=seen)
        return generator

    def _build(self, num_classes: int, ctx: Context) -> Generator:
        with seeded(ctx.generator("generator")):
            return Generator(num_classes, self.vae).to(ctx.device)


class Generator(nn.Module):
    """Changes of vectors: an encoder of the vector, and a decoder of a code beside the vector.

    Args:
        num_classes: length K of a vector.
        how: sizes.
    """

    def __init__(self, num_classes: int, how: Vae) -> None:
        super().__init__()
        self.encode_hidden = nn.Linear(num_classes, how.hidden)
        self.encode = nn.Linear(how.hidden, 2 * how.latent)
        self.decode_hidden = nn.Linear(how.latent + num_classes, how.hidden)
        self.decode = nn.Linear(how.hidden, num_classes)

    def forward(self, scores: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The change (N, K), and the code's mean and log-variance (N, latent), for scores (N, K).

        Args:
            scores: probabilities.
            noise: (N, latent), standard normal.
        """
        mean, log_var = self.encode(F.relu(self.encode_hidden(scores))).chunk(2, dim=1)
        code = mean + (0.5 * log_var).exp() * noise
        change: Tensor = self.decode(F.relu(self.decode_hidden(torch.cat([code, scores], dim=1))))
        return change, mean, log_var
