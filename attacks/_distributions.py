"""One distribution over latents for each label, learned through its draws; reconstructions are draws too.

All repeats of a label share its distribution and its queries. Labels train at once and do not meet.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.data.split import quantize
from mibench.inversion import Film, Part, joined
from mibench.latent import Search, pick_best, search_latents
from mibench.nets.flows import CouplingFlow
from mibench.plugin import Context
from mibench.victim import WhiteBoxVictim

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class Family(Protocol):
    """Distributions that turn standard normal noise into latents, each given by `size` numbers."""

    dim: int
    size: int

    def start(self, count: int) -> Tensor:
        """Parameters (count, size), float32, on the CPU, where learning begins."""
        ...

    def draw(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (L, S, dim) of noise (L, S, dim), and their terms (L, S) of KL(q || N(0, I))."""
        ...


class Gaussian:
    """Independent coordinates with params (mu, log sigma^2); the divergence is exact.

    Args:
        dim: length of a latent.
        log_var: log sigma^2 at the start; mu starts at 0.
    """

    def __init__(self, dim: int, *, log_var: float) -> None:
        self.dim, self.size, self.log_var = dim, 2 * dim, log_var

    def start(self, count: int) -> Tensor:
        """See Family."""
        return torch.tensor([0.0, self.log_var]).repeat_interleave(self.dim).repeat(count, 1)

    def draw(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See Family; the divergence of a row stands at each of its draws."""
        mu, log_var = params[:, None].chunk(2, dim=2)
        latents = mu + torch.exp(0.5 * log_var) * noise
        return latents, gaussian_divergence(mu, log_var).expand(noise.shape[:2])


def gaussian_divergence(mu: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mu, diag sigma^2) || N(0, I)) over the last dimension, in nats (Kingma and Welling, 2014)."""
    return 0.5 * (mu.square() + log_var.exp() - log_var - 1).sum(-1)


class Flow:
    """What a normalizing flow makes of standard normal noise.

    Its divergence is an average over draws of log q(z) - log p(z), where log q is the noise's own density
    divided by the change of volume; the normal's constant cancels.
    """

    def __init__(self, flow: CouplingFlow) -> None:
        self.flow, self.dim, self.size = flow, flow.dim, flow.size

    def start(self, count: int) -> Tensor:
        """See Family: the standard normal itself."""
        return self.flow.start(count)

    def draw(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See Family."""
        latents, volume = self.flow.draw(params, noise)
        return latents, 0.5 * (latents.square() - noise.square()).sum(2) - volume


class Layered:
    """Distributions of one family for each of several parts of a latent; the divergence is their mean.

    Args:
        family: of each part.
        layers: parts, which stand one after another in latents, noise and parameters.
    """

    def __init__(self, family: Family, layers: int) -> None:
        self.family, self.layers = family, layers
        self.dim, self.size = family.dim * layers, family.size * layers

    def start(self, count: int) -> Tensor:
        """See Family: the same start in each part."""
        return self.family.start(count * self.layers).view(count, -1)

    def draw(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """See Family."""
        count, draws, _ = noise.shape
        parts = noise.view(count, draws, self.layers, -1).transpose(1, 2).flatten(0, 1)
        latents, divergence = self.family.draw(params.reshape(count * self.layers, -1), parts)
        latents = latents.unflatten(0, (count, self.layers)).transpose(1, 2).flatten(2)
        return latents, divergence.unflatten(0, (count, self.layers)).mean(1)


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How distributions are learned and drawn from.

    Args:
        victim: asked for logits alone.
        family: the distributions.
        decode: latents (N, dim) -> images (N, C, H, W) in [0, 1].
        loss: (images (N, C, H, W), labels (N,), divergence (N,)) -> (N,); its mean over a label's
            draws falls.
        search: options; the rows that it searches are the labels' parameters.
        samples: draws of each label in each step, >= 1.
        best_of: draws for each reconstruction, >= 1, of which the largest target logit is kept.
    """

    victim: WhiteBoxVictim
    family: Family
    decode: Callable[[Tensor], Tensor]
    loss: Loss
    search: Search
    samples: int
    best_of: int

    def invert(self, targets: Tensor, ctx: Context) -> Reconstructions:
        """Reconstructions of targets (B,), with their effort curve.

        The allowances of a label's repeats pay for its distribution together. The curve shows the first draw
        of each reconstruction, and at its last point what is returned.

        Raises:
            QueryBudgetError: the allowances of a label do not pay for its first step and its draws.
        """
        labels, owner, counts = targets.unique(return_inverse=True, return_counts=True)
        steps = torch.tensor([self._steps(count) for count in counts.tolist()])
        noise = ctx.noise(targets).repeat(self.best_of).normal("keep", self.family.dim)
        noise = noise.unflatten(0, (len(targets), self.best_of))
        parts, order = [], []
        for length in steps.unique().tolist():
            alike = (steps == length).nonzero().flatten()
            for chunk in alike.split(max(1, ctx.max_batch // self.samples)):
                rows = torch.isin(owner, chunk).nonzero().flatten()
                work = _Chunk(labels[chunk], torch.searchsorted(chunk, owner[rows]), noise[rows])
                parts.append(self._solve(work, length, ctx))
                order.append(rows)
        return joined(parts, targets, rows=torch.cat(order).argsort())

    def learn(
        self,
        labels: Tensor,
        steps: int,
        ctx: Context,
        watcher: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """The parameters (L, size) that labels (L,) have after so many steps, on ctx.device."""
        noise = ctx.noise(labels).repeat(self.samples)
        wanted = labels.repeat_interleave(self.samples).to(ctx.device)
        evaluation = iter(range(steps + 1))
        shape = (len(labels), self.samples)

        def objective(params: Tensor) -> tuple[Tensor, Tensor]:
            drawn = noise.normal("draw", self.family.dim, step=next(evaluation)).to(params.device)
            latents, divergence = self.family.draw(params, drawn.unflatten(0, shape))
            images = self.decode(latents.flatten(0, 1))
            each = self.loss(images, wanted, divergence.flatten()).view(shape).mean(1)
            return each, each.detach()

        search = dataclasses.replace(self.search, steps=steps)
        start = self.family.start(len(labels)).to(ctx.device)
        params, _ = search_latents(start, objective, search, ctx, watcher=watcher)
        return params

    def _solve(self, work: _Chunk, steps: int, ctx: Context) -> Part:
        film = Film(self.victim)

        def watch(_step: int, params: Tensor, score: Tensor) -> None:
            film.add(self._images(params, work.place, work.noise[:, :1], ctx), score.cpu()[work.place])

        params = self.learn(work.labels, steps, ctx, watch)
        images = self._images(params, work.place, work.noise, ctx)
        targets = work.labels[work.place].repeat_interleave(self.best_of)
        own, score = self._judged(images, targets, ctx)
        best = pick_best(-own, self.best_of)
        film.settle(images[best])
        single = quantize(images[:: self.best_of]) if self.best_of > 1 else None
        return film.part(images[best], score[best], single)

    def _images(self, params: Tensor, place: Tensor, noise: Tensor, ctx: Context) -> Tensor:
        """Images (B * S, C, H, W) that rows `place` (B,) of params draw from noise (B, S, dim)."""
        rows = max(1, ctx.max_batch // noise.shape[1])
        images = []
        with torch.no_grad():
            for where, part in zip(place.split(rows), noise.split(rows)):
                latents, _ = self.family.draw(params[where.to(params.device)], part.to(params.device))
                images.append(self.decode(latents.flatten(0, 1)).cpu())
        return torch.cat(images)

    def _judged(self, images: Tensor, targets: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
        """Target logits and target scores, (N,) each, of images (N, C, H, W)."""
        with torch.no_grad():
            logits = torch.cat(
                [self.victim.logits(part.to(ctx.device)).cpu() for part in images.split(ctx.max_batch)]
            )
        own, score = (table.gather(1, targets[:, None]).squeeze(1) for table in (logits, logits.softmax(1)))
        return own, score

    def _steps(self, repeats: int) -> int:
        """Steps of a label that is asked for so many times."""
        reserve = self.samples + self.best_of * repeats
        return self.victim.steps_within(
            self.search.steps, per_step=self.samples, reserve=reserve, shared_by=repeats
        )


@dataclass(frozen=True)
class _Chunk:
    """Labels (L,), the label's row of each reconstruction (B,), and its noise (B, best_of, dim)."""

    labels: Tensor
    place: Tensor
    noise: Tensor
