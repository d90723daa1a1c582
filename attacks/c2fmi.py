"""C2FMI: from coarse to fine, first in a public face embedding, then by differential evolution on scores.

Stage I maps an all but one-hot prediction to a face embedding, and descends from mean faces to latents whose
images have that embedding; no victim is asked. Stage II evolves the best of them by the victim's scores.

Source: Ye et al., IEEE TDSC 2023, and the authors' code.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.gan import StylePrior, pack, unpack
from mibench.latent import Search, search_latents
from mibench.noise import Noise
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.spaces import WSpace
from mibench.stylegan import StyleChoice
from mibench.victim import ScoreVictim, freeze

from ._embedding import Embedding, MapTraining
from ._evolution import Advance, Differential, Trial, evolve, masked_score, own_score
from ._presamples import rank_presamples

_HUGE = 1e18  # the authors' entry of the target, among absolute values of normal noise
_MEAN_OF_START, _MEAN_OF_FILL = 2, 3  # random w whose mean is a start, and the random part of a filling
_KEPT = 0.7  # share of a filling that comes from survivors


@dataclass(frozen=True, kw_only=True)
class C2fmi(Attack[ScoreVictim]):
    """Coarse-to-fine model inversion.

    Args:
        prior: the style generator and its training, or a ready one (docs/weights.md); equal to
            `mirror`'s, it is trained once for both.
        embedding: the public face embedding of stage I and its training.
        mapping: the map from predictions to embeddings and its training.
        coarse: where stage II starts: "embedding" is the authors' stage I; "presamples" takes images of the
            prior that the victim scored best, and learns no embedding.
        presamples: images scored for that once for all labels, >= starts.
        search: stage I; the authors take 20 Adam steps at 0.02 (50 against defenses).
        starts: latents of each reconstruction that stage I moves, >= survivors; the authors take 16.
        survivors: the best of them by the victim's scores, which stage II begins with, >= 3; the authors
            take 10.
        population: individuals of stage II, >= survivors; the authors take 32.
        generations: of stage II, >= 0; the authors take 500.
        pull: how far a child moves towards the best individual; the authors take 0.02.
        scale: weight of the differences of random pairs in a child, which falls over the last 6 % of the
            generations; the authors take 0.1.
        pairs: number of these pairs, >= 1; the authors take 4.
        crossover: probability that a coordinate is the parent's, in [0, 1]; the authors take 0.5.
        top: largest scores that the fitness may see, >= 0; 0 sees all. The authors take 100 against defenses.
        is_bounded: move latents into the prior's box; the authors do not.
    """

    name = "c2fmi"
    access = ScoreVictim
    card = Card(
        title="C2FMI: Corse-to-Fine Black-Box Model Inversion Attack",
        paper="Ye et al., IEEE Transactions on Dependable and Secure Computing, 2023",
        year=2023,
        code="https://github.com/MiLabHITSZ/2022YeC2FMI",
        deviations=(
            "the style generator is small and trained by the attack itself on its public images",
            "the embedding is learned without labels, because the public images carry none, and is the net's "
            "output of 128 numbers; the authors' are 10,575 logits of a net of public identities",
            "the victim is asked once about each public image; the authors ask in each epoch",
            "stage I has a constant rate; the authors' schedule first acts after its last step",
            "scores of parents are kept and not asked for again",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {
            "latent_dim": 8,
            "w_dim": 8,
            "width": 4,
            "critic_width": 4,
            "steps": 8,
            "batch": 8,
            "p_samples": 64,
        },
        "embedding": {"width": 4, "dim": 8, "recipe": {"epochs": 1, "batch": 32}},
        "mapping": {"hidden": 16, "epochs": 2},
        "search": {"steps": 3, "lr": 0.02},
        "starts": 4,
        "survivors": 3,
        "population": 6,
        "generations": 4,
    }

    prior: StyleChoice = field(default_factory=StylePrior)
    embedding: Embedding = field(default_factory=Embedding)
    mapping: MapTraining = field(default_factory=MapTraining)
    coarse: Literal["embedding", "presamples"] = "embedding"
    presamples: int = 10_000
    search: Search = field(default_factory=lambda: Search(steps=20, lr=0.02, keep="last"))
    starts: int = 16
    survivors: int = 10
    population: int = 32
    generations: int = 500
    pull: float = 0.02
    scale: float = 0.1
    pairs: int = 4
    crossover: float = 0.5
    top: int = 0
    is_bounded: bool = False

    def __post_init__(self) -> None:
        if not 3 <= self.survivors <= self.starts or self.population < self.survivors:
            raise ValueError(
                "c2fmi: 3 <= survivors <= starts and survivors <= population must hold, got "
                f"survivors {self.survivors}, starts {self.starts}, population {self.population}."
            )
        for name, least in (("generations", 0), ("pairs", 1), ("top", 0), ("presamples", self.starts)):
            if getattr(self, name) < least:
                raise ValueError(f"c2fmi: {name} must be >= {least}, got {getattr(self, name)}.")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"c2fmi: crossover must lie in [0, 1], got {self.crossover}.")

    def prior_spec(self) -> StyleChoice:
        """The style generator."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: ScoreVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with the embedding and the map, or with presamples of each label as `starts`."""
        if self.coarse == "presamples":
            space = self.prior.load(prior, victim.shape, ctx)
            ranked, _ = rank_presamples(space, victim, ctx, count=self.presamples, keep=self.starts)
            return {**prior, "starts": ranked}
        net = self.embedding.learn(public, ctx)
        with torch.no_grad():
            embedded = torch.cat([net(x.to(ctx.device)).cpu() for x in public.split(ctx.max_batch)])
        learned = self.mapping.learn(victim.scores(public).cpu(), embedded, ctx)
        return {**prior, **pack(embedding=net, map=learned)}

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert."""
        space = self.prior.load(prior, victim.shape, ctx)
        is_ranked = self.coarse == "presamples"

        def ranked(trial: Trial) -> Tensor:
            return prior["starts"][trial.labels.cpu()].to(ctx.device)

        coarse = ranked if is_ranked else self._descent(space, victim, prior, ctx)

        def begin(trial: Trial, generations: int) -> Advance:
            people, scores = self._populated(space, trial, self._inside(space, coarse(trial)))
            return Differential(
                trial,
                people,
                scores,
                generations=generations,
                pull=self.pull,
                scale=self.scale,
                pairs=self.pairs,
                crossover=self.crossover,
                inside=partial(self._inside, space),
            )

        return evolve(
            victim,
            space,
            targets,
            ctx,
            begin=begin,
            generations=self.generations,
            first=self.starts + self.population - self.survivors,
            each=self.population,
            fitness=partial(masked_score, top=self.top) if self.top > 0 else own_score,
        )

    def _inside(self, space: WSpace, latents: Tensor) -> Tensor:
        return space.project(latents) if self.is_bounded else latents

    def _populated(self, space: WSpace, trial: Trial, latents: Tensor) -> tuple[Tensor, Tensor]:
        """People (T, population, dim) and their fitness: the best of (T, starts, dim), and a filling."""
        fitness = trial.score(trial.all_rows, latents)
        best = fitness.topk(self.survivors, dim=1)
        people = latents.gather(1, best.indices[:, :, None].expand(-1, -1, space.dim))
        lack = self.population - self.survivors
        if lack == 0:
            return people, best.values
        # three different survivors, of which the third weighs as much as the others together
        order = trial.draw(trial.all_rows, "parents of fillings", lack, self.survivors).argsort(
            dim=2, stable=True
        )
        chosen = order[:, :, :3].flatten(1)[:, :, None].expand(-1, -1, space.dim)
        one, two, three = people.gather(1, chosen).unflatten(1, (lack, 3)).unbind(2)
        random = self._means(space, trial.noise, first=self.starts, count=lack, of=_MEAN_OF_FILL)
        fill = self._inside(space, _KEPT * (0.25 * (one + two) + 0.5 * three) + (1 - _KEPT) * random)
        scores = trial.score(trial.all_rows, fill)
        return torch.cat([people, fill], dim=1), torch.cat([best.values, scores], dim=1)

    @staticmethod
    def _means(space: WSpace, noise: Noise, *, first: int, count: int, of: int) -> Tensor:
        """Means (T, count, dim) of `of` random w each, from each row's streams `first` on."""
        copies = torch.arange(len(noise))[:, None] * (first + count) + torch.arange(first, first + count)
        w = space.start(noise.repeat(first + count)[copies.flatten()].repeat(of))
        return w.view(len(noise), count, of, -1).mean(2)

    def _descent(
        self, space: WSpace, victim: ScoreVictim, prior: Prior, ctx: Context
    ) -> Callable[[Trial], Tensor]:
        """Stage I: what gives latents (T, starts, dim) near the embedding of each target; asks no victim."""
        net = self.embedding.untrained(victim.shape, torch.Generator().manual_seed(0))
        to_embedding = self.mapping.untrained(victim.num_classes, self.embedding.dim, torch.Generator())
        unpack(prior, embedding=net, map=to_embedding)
        for one in (net, to_embedding):
            freeze(one.to(ctx.device))

        def descend(trial: Trial) -> Tensor:
            start = self._means(space, trial.noise, first=0, count=self.starts, of=_MEAN_OF_START)
            labels, noise = trial.labels.repeat_interleave(self.starts), trial.noise.repeat(self.starts)
            step = itertools.count()

            def objective(latents: Tensor) -> tuple[Tensor, Tensor]:
                p = noise.normal("prediction", victim.num_classes, step=next(step)).abs().to(ctx.device)
                wanted = to_embedding(F.normalize(p.scatter(1, labels[:, None], _HUGE), dim=1))
                loss = (net(space.decode(latents)) - wanted).square().mean(1)
                return loss, loss.detach()

            project = space.project if self.is_bounded else None
            found, _ = search_latents(start.flatten(0, 1), objective, self.search, ctx, project=project)
            return found.view(-1, self.starts, space.dim)

        return descend
