"""BREP-MI: walk through the latents of a face GAN, away from the label's boundary, seeing labels alone.

A first latent of the label is found by chance. Points on a sphere around it are labeled by the victim; the
latent moves away from those that fall outside the label, and the sphere grows when nearly none does. The
larger the sphere that fits, the deeper inside its class the latent lies.

Source: Kahla et al., CVPR 2022 (arXiv:2203.01925), and the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.gan import WganPrior
from mibench.noise import Noise, repeats
from mibench.plugin import Card, Context, Settings, Stopwatch
from mibench.prior import LatentSpace, Prior
from mibench.victim import LabelVictim

from ._queries import Trail, answers

_STEP_SHARE, _LONGEST_STEP = 1 / 3, 3.0  # step = min(radius / 3, 3), fixed in the authors' code


@dataclass(frozen=True, kw_only=True)
class BrepMi(Attack[LabelVictim]):
    """Boundary-repelling model inversion.

    The reconstruction is the latent after the last growth of the sphere whose move stayed inside the label.
    A label that the search for a start never hits returns the last start tried (note `never_hit`). The loss
    of the effort curve is minus the radius of the largest sphere so far that fitted, 0 before a first one.

    Args:
        prior: the Wasserstein GAN and its training; its `clamp` bounds the walk, the authors take 1.5.
        pool: images of the prior labeled once for all targets, >= 0; the i-th reconstruction of a label
            starts at the i-th image that got the label. The authors take 0: each start is searched alone.
        start_batch: images in a round of the search for a start, >= 1; the authors take 256.
        start_rounds: rounds until a label counts as never hit, >= 0; the authors do not give up.
        points: points on a sphere, >= 1; the authors take 32.
        radius: of the first sphere, > 0; the authors take 2.
        growth: factor on the radius, > 1; the authors take 1.3.
        inside: the sphere grows when more than this share of its points has the label, in [0, 1); the
            authors take 7/8.
        repulsion_only: leave points inside the label out of the direction, as the authors do; otherwise they
            attract.
        patience: moves without growth after which a walk ends, >= 1; the authors take 1,000.
        draws: spheres drawn for one reconstruction at most, >= 0; the authors have no limit.
        keep: "growth" as above; "last" returns the last latent that has the label, for walks too short to
            grow.
    """

    name = "brep_mi"
    access = LabelVictim
    card = Card(
        title="Label-Only Model Inversion Attacks via Boundary Repulsion",
        paper="Kahla et al., CVPR 2022, arXiv:2203.01925",
        year=2022,
        code="https://github.com/m-kahla/Label-Only-Model-Inversion-Attacks-via-Boundary-Repulsion",
        deviations=(
            "each reconstruction searches its own start; the authors' search stops when every label has one",
            "the search for a start gives up after `start_rounds`, and a walk after `draws` spheres",
            "a label that is never hit, or whose sphere never grows, returns its start as a failure",
        ),
    )

    toy: ClassVar[Settings] = {
        "prior": {"latent_dim": 8, "width": 4, "critic_width": 4, "steps": 8, "clamp": 1.5},
        "start_batch": 16,
        "start_rounds": 2,
        "points": 8,
        "radius": 0.5,
        "inside": 0.6,
        "draws": 6,
    }

    prior: WganPrior = field(default_factory=lambda: WganPrior(clamp=1.5))
    pool: int = 0
    start_batch: int = 256
    start_rounds: int = 1_000
    points: int = 32
    radius: float = 2.0
    growth: float = 1.3
    inside: float = 0.875
    repulsion_only: bool = True
    patience: int = 1_000
    draws: int = 10_000
    keep: Literal["growth", "last"] = "growth"

    def __post_init__(self) -> None:
        for name, least in (
            *(("start_batch", 1), ("points", 1), ("patience", 1)),
            *(("pool", 0), ("start_rounds", 0), ("draws", 0)),
        ):
            if getattr(self, name) < least:
                raise ValueError(f"brep_mi: {name} must be >= {least}, got {getattr(self, name)}.")
        if self.pool + self.start_rounds == 0:
            raise ValueError(
                "brep_mi: no start without pool or start_rounds, got 0 and 0. Raise one of them."
            )
        if not (self.radius > 0 and self.growth > 1 and 0 <= self.inside < 1):
            raise ValueError(
                "brep_mi: radius > 0, growth > 1 and inside in [0, 1) must hold, got "
                f"{self.radius}, {self.growth}, {self.inside}."
            )

    def prior_spec(self) -> WganPrior:
        """The Wasserstein GAN."""
        return self.prior

    def adapt_prior(self, prior: Prior, victim: LabelVictim, public: Tensor, ctx: Context) -> Prior:
        """The prior with labeled latents added: `pool` (P, dim) and `pool_labels` (P,), int64."""
        if self.pool == 0:
            return prior
        space = self.prior.load(prior, victim.shape, ctx)
        noise = ctx.noise(torch.tensor([-1])).repeat(self.pool)
        latents = space.project(space.start(noise))
        labels = answers(latents, space, victim.labels, ctx)
        return {**prior, "pool": latents.cpu(), "pool_labels": labels.cpu()}

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert; the confidence is NaN, since the victim tells no score."""
        space = self.prior.load(prior, victim.shape, ctx)
        first = 0 if self.pool else 1  # without a pool, the first round has to be paid for
        rounds = first + victim.steps_within(
            self.start_rounds - first, per_step=self.start_batch, reserve=first * self.start_batch
        )
        planned = victim.steps_within(self.start_batch * rounds + (self.points + 1) * self.draws, per_step=1)
        start = space.project(space.start(ctx.noise(targets)))
        walks = _Walks(
            self,
            victim=victim,
            space=space,
            targets=targets,
            ctx=ctx,
            trail=Trail(start, planned),
            allowance=planned,
        )
        if self.pool:
            walks.take_from(prior["pool"], prior["pool_labels"])
        walks.search(rounds)
        walks.go()
        missed = targets[~walks.is_found.cpu()].unique().tolist()
        if missed:
            ctx.note("never_hit", missed)
        return walks.trail.collect(space, targets, ctx, spent=walks.spent)


class _Walks:
    """All walks of one inversion, a row for each reconstruction; rows never meet.

    Args:
        attack: its options.
        victim: tells labels.
        space: a trained generator.
        targets: (B,), int64.
        ctx: gives noise, chunk size, device and reporter.
        trail: what each row holds; its first latents are the starts of rows that are never hit.
        allowance: queries of each row at most.
    """

    def __init__(
        self,
        attack: BrepMi,
        *,
        victim: LabelVictim,
        space: LatentSpace,
        targets: Tensor,
        ctx: Context,
        trail: Trail,
        allowance: int,
    ) -> None:
        self.attack, self.victim, self.space, self.ctx, self.trail = attack, victim, space, ctx, trail
        self.targets, self.noise, self.allowance = targets.to(ctx.device), ctx.noise(targets), allowance
        self.latents = trail.latents.clone()
        self.is_found = torch.zeros(len(targets), dtype=torch.bool, device=ctx.device)
        self.spent = torch.zeros(len(targets), dtype=torch.int64, device=ctx.device)

    def have_label(self, rows: Tensor, latents: Tensor) -> Tensor:
        """Whether latents (R, M, dim) of rows (R,) get the rows' targets: (R, M), bool."""
        labels = answers(latents.flatten(0, 1), self.space, self.victim.labels, self.ctx)
        self.spent[rows] += latents.shape[1]
        return labels.view(latents.shape[:2]) == self.targets[rows, None]

    def take_from(self, pool: Tensor, labels: Tensor) -> None:
        """Start the i-th row of a label at the i-th latent of the pool (P, dim) with it, and then anew."""
        for row, (label, rank) in enumerate(zip(self.targets.tolist(), repeats(self.targets).tolist())):
            hits = (labels == label).nonzero().flatten()
            if len(hits) > 0:
                self.latents[row] = pool[hits[rank % len(hits)]].to(self.latents)
                self.is_found[row] = True
        self._hold_starts(torch.arange(len(self.latents), device=self.latents.device))

    def search(self, rounds: int) -> None:
        """Draw latents for the rows without a start, batch by batch, until one has the row's label."""
        attack, streams = self.attack, self.noise.repeat(rounds)
        for one in range(rounds):
            rows = (~self.is_found).nonzero().flatten()
            if len(rows) == 0:
                return
            for part in rows.split(max(1, self.ctx.max_batch // attack.start_batch)):
                self._try_starts(part, streams[part.cpu() * rounds + one].repeat(attack.start_batch))
            self.ctx.report(one, rounds, found=float(self.is_found.float().mean()))

    def _try_starts(self, rows: Tensor, noise: Noise) -> None:
        """Start rows (R,) at the first latent with their label of those that the noise draws for each."""
        drawn = self.space.project(self.space.start(noise)).unflatten(0, (len(rows), -1))
        hit = self.have_label(rows, drawn)
        first = torch.where(hit.any(1), hit.int().argmax(1), self.attack.start_batch - 1)
        self.latents[rows] = drawn[torch.arange(len(rows), device=rows.device), first]
        self.is_found[rows] = hit.any(1)
        self._hold_starts(rows)

    def _hold_starts(self, rows: Tensor) -> None:
        """Hold what the search has for these rows; their loss is 0 with the label, and none without it."""
        loss = torch.where(self.is_found[rows], 0.0, torch.nan)
        self.trail.hold(rows, self.latents[rows], self.spent[rows], loss)

    def go(self) -> None:
        """Walk from the starts until no row moves on."""
        attack, watch = self.attack, Stopwatch()
        radius = torch.full_like(self.latents[:, 0], attack.radius)
        fitting = torch.zeros_like(radius)
        idle = torch.zeros_like(self.spent)
        for draw in range(attack.draws):
            can_pay = self.spent + attack.points + 1 <= self.allowance
            rows = (self.is_found & can_pay & (idle < attack.patience)).nonzero().flatten()
            if len(rows) == 0:
                return
            units = unit_directions(self.noise[rows.cpu()], attack.points, self.latents.shape[1], draw)
            units = units.to(self.latents)
            inside = self.have_label(rows, self.latents[rows, None] + radius[rows, None, None] * units)
            has_grown = inside.float().mean(1) > attack.inside
            # the authors divide by the radius after its growth, so those moves are shorter
            shrink = torch.where(has_grown, 1 / attack.growth, 1.0)
            length = (radius[rows] * _STEP_SHARE).clamp(max=_LONGEST_STEP) * shrink
            move = length[:, None] * direction(units, inside, repulsion_only=attack.repulsion_only)
            moved = self.space.project(self.latents[rows] + move)
            stays = self.have_label(rows, moved[:, None])[:, 0]
            self.latents[rows] = torch.where(stays[:, None], moved, self.latents[rows])
            fitting[rows] = torch.where(has_grown & stays, radius[rows], fitting[rows])
            radius[rows] *= torch.where(has_grown, attack.growth, 1.0)
            # a refused move draws another sphere at no cost to the patience
            idle[rows] = torch.where(has_grown, 0, idle[rows] + stays)
            kept = rows[stays & has_grown] if attack.keep == "growth" else rows[stays]
            self.trail.hold(kept, self.latents[kept], self.spent[kept], -fitting[kept])
            if watch.is_due():
                self.ctx.report(draw, attack.draws, radius=float(fitting.mean()))


def unit_directions(noise: Noise, count: int, dim: int, step: int) -> Tensor:
    """Uniform unit vectors (B, count, dim), one stream for each row."""
    return F.normalize(noise.normal("sphere", count, dim, step=step), dim=2)


def direction(units: Tensor, inside: Tensor, *, repulsion_only: bool) -> Tensor:
    """Where a walk moves: mean over the sphere of -u outside the label and, unless only repelled, +u inside.

    Not normalized: the fewer points outside, the shorter. At a flat boundary its expectation is half the
    mean absolute coordinate of a unit vector, along the boundary's normal.
    Source: the authors' code.

    Args:
        units: (B, N, dim), unit vectors.
        inside: (B, N), bool.
        repulsion_only: see BrepMi.
    """
    weight = inside.float() - 1 if repulsion_only else 2 * inside.float() - 1
    return torch.einsum("bn,bnd->bd", weight, units) / units.shape[1]
