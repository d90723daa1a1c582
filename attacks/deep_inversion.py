"""DeepInversion: images whose batch statistics are those that the victim stored while it was trained.

No generator and no public image: pixels are moved until the victim sees the label, until neighbors are alike,
and until mean and variance at the input of every batch normalization match the stored ones. Statistics are
those of a batch of mixed labels, so each image is made in a company of others.

Source: Yin et al., CVPR 2020 (arXiv:1912.08795), and the authors' ImageNet script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.attack import Attack, Reconstructions
from mibench.distil import Student, load_students, train_students
from mibench.inversion import Film, Part, joined
from mibench.latent import IdentityLoss, Search, identity_loss, search_latents
from mibench.nets.classifier import Classifier
from mibench.noise import Noise, repeats
from mibench.plugin import Card, Context, Settings
from mibench.prior import Prior
from mibench.victim import WhiteBoxVictim

from ._statistics import distance, normalizations, statistics

# averages over the colors of the authors' ImageNet normalization
_MEAN, _DEVIATION = 0.449, 0.226
_LOWEST, _HIGHEST = -_MEAN / _DEVIATION, (1 - _MEAN) / _DEVIATION
_TEMPERATURE, _LEAST = 3.0, 0.01  # of the student term; the authors' script


@dataclass(frozen=True, kw_only=True)
class DeepInversion(Attack[WhiteBoxVictim]):
    """Pixels under the victim's batch normalization statistics.

    Companies are fixed: labels come in rounds, each a random order of all labels, and every `company` labels
    in turn make a company. The r-th repeat of a label stands in round r. So what an image is made with
    depends on the seed alone, whichever labels are attacked; only companies with an attacked label are made.

    Args:
        steps: gradient steps at full resolution, >= 0; the authors take 1,000.
        coarse_steps: gradient steps before them on images averaged over 2 x 2 pixels, >= 0; the authors take
            2,000.
        company: images that share batch statistics, >= 1; the authors take 64. An image alone is held to the
            statistics of all faces.
        lr: peak learning rate of Adam in normalized pixels, > 0; the authors take 0.2.
        betas: of Adam, each in [0, 1); the authors take 0.5 and 0.9.
        warmup_steps: steps of linear rise at the start of each resolution, >= 0, before the cosine decay to
            zero; the authors take 100. At most half of the steps are.
        loss: identity loss, averaged over the company; the authors take cross-entropy.
        bn_weight: factor of the distance of statistics, >= 0; the authors take 0.05.
        first_bn: further factor of the first normalization, >= 0; the authors take 10.
        tv_weight: factor of the length of the differences between neighbors, >= 0; the authors take 1e-4.
        l2_weight: factor of the mean length of an image, >= 0; the authors take 1e-5.
        jitter: largest roll of the images to each side as a share of the side, in [0, 0.5]; the authors take
            30 pixels of 224.
        flip: mirror the company in half of the steps.
        student_weight: factor of 1 - JS(victim, student), Adaptive DeepInversion, >= 0.
        student: the student of that term; it is taught on the public images.
    """

    name = "deep_inversion"
    access = WhiteBoxVictim
    card = Card(
        title="Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion",
        paper="Yin et al., CVPR 2020, arXiv:1912.08795",
        year=2020,
        code="https://github.com/NVlabs/DeepInversion",
        deviations=(
            "a batch is a fixed company of labels, so that an image does not depend on what else is asked "
            "for; the authors draw one batch of labels for the whole run",
            "pixels of every color are normalized with one mean and deviation",
            "coarse images are enlarged again before the victim sees them, whose size is fixed",
            "the start is clipped too; the authors clip after the first step",
            "the jitter is a share of the side; the authors give it in pixels",
            "the student of Adaptive DeepInversion is taught once, on public images; the authors' learns "
            "from the images that are being made",
        ),
    )

    toy: ClassVar[Settings] = {"steps": 8, "coarse_steps": 2, "company": 4, "warmup_steps": 1}

    steps: int = 1_000
    coarse_steps: int = 2_000
    company: int = 64
    lr: float = 0.2
    betas: tuple[float, float] = (0.5, 0.9)
    warmup_steps: int = 100
    loss: IdentityLoss = "ce"
    bn_weight: float = 0.05
    first_bn: float = 10.0
    tv_weight: float = 1e-4
    l2_weight: float = 1e-5
    jitter: float = 30 / 224
    flip: bool = True
    student_weight: float = 0.0
    student: Student = field(default_factory=Student)

    def __post_init__(self) -> None:
        for name in ("steps", "coarse_steps", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"deep_inversion: {name} must be >= 0, got {getattr(self, name)}.")
        for name in ("bn_weight", "first_bn", "tv_weight", "l2_weight", "student_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"deep_inversion: {name} must be >= 0, got {getattr(self, name)}.")
        if self.company < 1 or not self.lr > 0:
            raise ValueError(
                f"deep_inversion: company must be >= 1 and lr > 0, got {self.company} and {self.lr}."
            )
        if not 0 <= self.jitter <= 0.5:
            raise ValueError(f"deep_inversion: jitter must lie in [0, 0.5], got {self.jitter}.")

    def adapt_prior(self, prior: Prior, victim: WhiteBoxVictim, public: Tensor, ctx: Context) -> Prior:
        """With a student term, the student taught with the victim's answers to the public images."""
        if self.student_weight == 0:
            return prior
        return {**prior, **train_students((self.student,), victim, public, victim.scores(public), ctx)}

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        """See Attack.invert. A chunk holds at least one whole company, whatever ctx.max_batch."""
        run = _Run(self, victim, prior, ctx)
        slots = slots_of(targets, victim.num_classes, ctx)
        companies, place = torch.unique(slots // self.company, return_inverse=True)
        parts: list[Part] = []
        order: list[Tensor] = []
        for part in torch.arange(len(companies)).split(max(1, ctx.max_batch // self.company)):
            mine = ((place >= part[0]) & (place <= part[-1])).nonzero().flatten()
            wanted = (place[mine] - part[0]) * self.company + slots[mine] % self.company
            parts.append(run.make(companies[part], wanted))
            order.append(mine)
        return joined(parts, targets, rows=torch.cat(order).argsort())


def slots_of(targets: Tensor, classes: int, ctx: Context) -> Tensor:
    """Places of targets (B,) in the endless row of rounds over all labels: (B,), int64, on the CPU."""
    labels, rounds = targets.cpu(), repeats(targets)
    slots = torch.empty_like(labels)
    for number in rounds.unique().tolist():
        mine = rounds == number
        slots[mine] = number * classes + order_of(number, classes, ctx).argsort()[labels[mine]]
    return slots


def order_of(number: int, classes: int, ctx: Context) -> Tensor:
    """The random order of all labels in a round, (K,), int64."""
    return torch.randperm(classes, generator=ctx.generator(f"round {number}"))


def company_labels(companies: Tensor, size: int, classes: int, ctx: Context) -> Tensor:
    """Labels (G, size), int64, of companies (G,)."""
    slots = companies[:, None] * size + torch.arange(size)
    labels = torch.empty_like(slots)
    for number in (slots // classes).unique().tolist():
        mine = slots // classes == number
        labels[mine] = order_of(number, classes, ctx)[slots[mine] % classes]
    return labels


class _Run:
    """What all companies of one inversion share.

    Args:
        attack: the options.
        victim: the attacked classifier; its allowance shortens both resolutions alike.
        prior: a student's weights, if there is one.
        ctx: gives noise, device and reporter.
    """

    def __init__(self, attack: DeepInversion, victim: WhiteBoxVictim, prior: Prior, ctx: Context) -> None:
        self.attack, self.victim, self.ctx = attack, victim, ctx
        self.layers = normalizations(victim.net)
        each = attack.company
        wanted = attack.steps + attack.coarse_steps
        # a resolution of n steps is n + 1 evaluations, and the image itself is looked at in the end
        steps = victim.steps_within(wanted, per_step=each, reserve=2 * each + 1)
        coarse = steps * attack.coarse_steps // max(1, wanted)
        self.phases = [(2, coarse)] if coarse else []
        self.phases.append((1, steps - coarse))
        weight = attack.student_weight
        self.student = load_students((attack.student,), victim, prior, ctx)[0] if weight > 0 else None

    def make(self, companies: Tensor, wanted: Tensor) -> Part:
        """The images `wanted` (R,) of companies; the curve's last point is the look at them in the end.

        Args:
            companies: (G,), int64; their numbers.
            wanted: (R,), int64, in [0, G * company).
        """
        noise, size = self.ctx.noise(companies), self.attack.company
        labels = company_labels(companies, size, self.victim.num_classes, self.ctx).to(self.ctx.device)
        states = noise.normal("start", size * math.prod(self.victim.shape)).to(self.ctx.device)
        film = Film(self.victim)

        def watch(_step: int, found: Tensor, score: Tensor) -> None:
            film.add(self.pixels(found)[wanted], score.cpu()[wanted // size])

        for phase, (shrink, steps) in enumerate(self.phases):
            states, score = search_latents(
                states,
                _Objective(self, labels, noise, shrink=shrink, purpose=f"views {phase}"),
                self.search(steps),
                self.ctx,
                project=lambda latents: latents.clamp(_LOWEST, _HIGHEST),
                watcher=watch,
            )
        images = self.pixels(states)[wanted]
        confidence = self.confidence(images, labels.cpu().flatten()[wanted])
        film.add(images, score.cpu()[wanted // size])
        return film.part(images, confidence)

    def search(self, steps: int) -> Search:
        """Options of one resolution: a linear rise, then cosine decay to zero."""
        warmup = min(0.5, self.attack.warmup_steps / max(1, steps))
        betas = self.attack.betas
        return Search(
            steps=steps, lr=self.attack.lr, betas=betas, warmup=warmup, cooldown=1 - max(warmup, 1e-9)
        )

    def pixels(self, states: Tensor) -> Tensor:
        """Images (G * company, C, H, W) in [0, 1], on the CPU, of states (G, company * C * H * W)."""
        return (_MEAN + _DEVIATION * states).clamp(0, 1).view(-1, *self.victim.shape).cpu()

    def confidence(self, images: Tensor, targets: Tensor) -> Tensor:
        """The victim's softmax of images (B, C, H, W) at targets (B,): (B,), on the CPU."""
        with torch.no_grad():
            logits = [self.victim.logits(x.to(self.ctx.device)) for x in images.split(self.ctx.max_batch)]
        return torch.cat(logits).softmax(1).cpu().gather(1, targets.cpu()[:, None]).squeeze(1)


class _Objective:
    """Loss of companies, and the score by which the best of each is kept, which is the same.

    Args:
        run: what all companies share.
        labels: (G, company), int64.
        noise: one stream for each company.
        shrink: factor by which images are averaged down.
        purpose: name of the draws.
    """

    def __init__(self, run: _Run, labels: Tensor, noise: Noise, *, shrink: int, purpose: str) -> None:
        self.run, self.labels, self.noise = run, labels, noise
        self.shrink, self.purpose, self.step = shrink, purpose, 0

    def __call__(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (G,) of states (G, company * C * H * W), twice."""
        attack, victim = self.run.attack, self.run.victim
        groups, size = self.labels.shape
        x = F.avg_pool2d(states.view(-1, *victim.shape), self.shrink)
        x = jittered(x.view(groups, size, *x.shape[1:]), self.noise, attack, self.purpose, self.step)
        self.step += 1
        seen = F.interpolate(x.flatten(0, 1), victim.shape[1:]) if self.shrink > 1 else x.flatten(0, 1)
        seen = _MEAN + _DEVIATION * seen
        with statistics(self.run.layers, groups) as gaps:
            logits = victim.logits(seen)
        identity = identity_loss(logits, self.labels.flatten(), attack.loss).view(groups, size).mean(1)
        value = identity + attack.bn_weight * distance(gaps, self.run.layers, attack.first_bn)
        value = value + attack.tv_weight * variation(x) + attack.l2_weight * x.flatten(2).norm(dim=2).mean(1)
        if self.run.student is not None:
            value = value + attack.student_weight * self._agreement(self.run.student, seen, logits)
        return value, value.detach()

    def _agreement(self, student: Classifier, seen: Tensor, logits: Tensor) -> Tensor:
        """Mean 1 - JS(victim, student) of each company, (G,)."""
        return (1 - divergence(logits, student(seen))).view(self.labels.shape).mean(1)


def jittered(x: Tensor, noise: Noise, attack: DeepInversion, purpose: str, step: int) -> Tensor:
    """Companies x (G, n, C, H, W), each rolled and perhaps mirrored as a whole."""
    draws = noise.uniform(purpose, 3, step=step).tolist()
    reach = round(attack.jitter * x.shape[-1])
    views = []
    for one, (down, right, mirror) in zip(x, draws):
        moves = [min(int(draw * (2 * reach + 1)), 2 * reach) - reach for draw in (down, right)]
        view = one.roll(moves, dims=(2, 3))
        views.append(view.flip(3) if attack.flip and mirror <= 0.5 else view)
    return torch.stack(views)


def variation(x: Tensor) -> Tensor:
    """Lengths (G,) of differences between the pixels of companies x (G, n, C, H, W).

    One length for each of four directions, across, down and both diagonals, as in the authors' script.
    """
    across = x[..., :-1] - x[..., 1:]
    down = x[..., :-1, :] - x[..., 1:, :]
    rising = x[..., 1:, :-1] - x[..., :-1, 1:]
    falling = x[..., :-1, :-1] - x[..., 1:, 1:]
    return torch.stack([one.flatten(1).norm(dim=1) for one in (across, down, rising, falling)]).sum(0)


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen-Shannon divergence (N,) in nats of two softmaxes of logits (N, K) at temperature 3.

    Probabilities are held in [0.01, 0.99] as in the authors' script.
    """
    p, q = ((logits / _TEMPERATURE).softmax(1) for logits in (first, second))
    middle = (0.5 * (p + q)).clamp(_LEAST, 1 - _LEAST).log()
    p, q = p.clamp(_LEAST, 1 - _LEAST), q.clamp(_LEAST, 1 - _LEAST)
    sides = [(one * (one.log() - middle)).sum(1) for one in (p, q)]
    return (0.5 * (sides[0] + sides[1])).clamp(0, 1)
