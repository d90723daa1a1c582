"""Adaptive attackers: any attack, run with the options of `mibench.adaptive`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.adaptive import Adaptive
from mibench.attack import Attack, Effort, Reconstructions
from mibench.augment import Views
from mibench.defense import Released
from mibench.distil import agreement, load_students, train_students
from mibench.noise import Noise, derive_seed
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

Answer = Callable[[Tensor], Tensor]
_OWN = "adaptive."  # before the names of what the options add to a prior


def adapt_with(attack: Attack[Any], victim: LabelVictim, prior: Prior, public: Tensor, ctx: Context) -> Prior:
    """The prior adapted by an attack with its adaptive options; a student's weights are added to it."""
    options = options_of(attack)
    victim = looking(victim, options, ctx)
    added: Prior = {}
    if options.student is not None:
        answers = answers_of(victim, public, ctx)
        own = ctx.child("adaptive student")
        weights = train_students((options.student,), victim, public, answers, own)
        added = {f"{_OWN}{name}": value for name, value in weights.items()}
        victim = student_victim(attack, victim, added, ctx)
        net = load_students((options.student,), victim, weights, ctx)[0]
        ctx.note("student_agreement", agreement(net, public, answers, ctx))
    return {**attack.adapt_prior(prior, victim, public, ctx), **added}


def invert_with(
    attack: Attack[Any], victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context
) -> Reconstructions:
    """The reconstructions of an attack with its adaptive options."""
    options = options_of(attack)
    victim = looking(victim, options, ctx)
    if options.student is not None:
        victim = student_victim(attack, victim, prior, ctx)
    own = {name: value for name, value in prior.items() if not name.startswith(_OWN)}
    if options.avoid_rounds == 0:
        return _all_looks(attack.invert(victim, own, targets, ctx), victim)
    if not isinstance(victim, WhiteBoxVictim):
        raise ValueError(
            f"attack '{attack.name}': avoid_rounds = {options.avoid_rounds} needs white-box access, it has "
            f"{victim.level}. Leave it out."
        )
    return _all_looks(_invert_around(attack, victim, own, targets, ctx), victim)


def _all_looks(got: Reconstructions, victim: LabelVictim) -> Reconstructions:
    """Reconstructions whose effort curve counts every look at an image as a query."""
    if got.effort is None:
        return got
    effort = dataclasses.replace(got.effort, queries=got.effort.queries * victim.per_image)
    return dataclasses.replace(got, effort=effort)


def options_of(attack: Attack[Any]) -> Adaptive:
    """The options of an attack whose "auto" was resolved by the plan; those that change nothing for None."""
    return attack.adaptive if isinstance(attack.adaptive, Adaptive) else Adaptive()


def looking(victim: LabelVictim, options: Adaptive, ctx: Context) -> LabelVictim:
    """The victim whose every answer is put together from the options' looks; counted look by look."""
    if not options.is_looking:
        return victim
    looks = options.views * options.repeats
    seed = derive_seed(ctx.seed, "looks")

    def images(x: Tensor) -> list[Tensor]:
        """The looks at each image, the same ones for all images, the first of several views being plain."""
        noise = Noise(torch.full((len(x),), seed, dtype=torch.int64))
        shown = [_look(options.view, x, noise, i) for i in range(options.views)]
        return [one for one in shown for _ in range(options.repeats)]

    def answered(released: Answer) -> Answer:
        return lambda x: _combined([_vote(released(one), options) for one in images(x)], options)

    def seen(view: Answer) -> Answer:
        return lambda x: torch.stack([view(one) for one in images(x)]).mean(0)

    other = victim.asked_through(answered, per_image=looks)
    return other.seen_through(seen) if isinstance(other, WhiteBoxVictim) else other


def _look(view: Views, x: Tensor, noise: Noise, number: int) -> Tensor:
    return x if number == 0 else view.of(x, noise, purpose="look", step=number)


def _vote(released: Tensor, options: Adaptive) -> Tensor:
    if not options.labels_only:
        return released
    return F.one_hot(released.argmax(1), released.shape[1]).to(released)


def _combined(answers: list[Tensor], options: Adaptive) -> Tensor:
    """One probability vector for each image from several, (N, K)."""
    stacked = torch.stack(answers)
    joined = stacked.mean(0) if options.combine == "mean" else stacked.median(0).values
    if options.fill_zeros:
        positive = torch.where(joined > 0, joined, torch.inf).amin(1, keepdim=True)
        joined = torch.where(joined > 0, joined, positive / 2)
    # a median over looks no longer sums to 1; votes for nobody cannot be
    return joined / joined.sum(1, keepdim=True).clamp_min(torch.finfo(joined.dtype).tiny)


def answers_of(victim: LabelVictim, images: Tensor, ctx: Context) -> Tensor:
    """What a victim of any access says of images (M, C, H, W): probabilities (M, K), one-hot for labels."""
    if isinstance(victim, WhiteBoxVictim):
        with torch.no_grad():
            parts = [victim.logits(x.to(ctx.device)).softmax(1).cpu() for x in images.split(ctx.max_batch)]
        return torch.cat(parts)
    if isinstance(victim, ScoreVictim):
        return victim.scores(images).cpu()
    return F.one_hot(victim.labels(images).cpu(), victim.num_classes).float()


def student_victim(attack: Attack[Any], victim: LabelVictim, prior: Prior, ctx: Context) -> LabelVictim:
    """The student in a prior behind the access that the attack needs; asking it costs no query."""
    options = options_of(attack)
    if options.student is None:
        return victim
    weights = {k.removeprefix(_OWN): v for k, v in prior.items() if k.startswith(_OWN)}
    net = load_students((options.student,), victim, weights, ctx)[0]
    if issubclass(attack.access, WhiteBoxVictim):
        return attack.access(Released(net), net, max_batch=victim.max_batch)
    return attack.access(
        Released(net),
        shape=victim.shape,
        num_classes=victim.num_classes,
        device=ctx.device,
        max_batch=victim.max_batch,
    )


def _invert_around(
    attack: Attack[Any], victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context
) -> Reconstructions:
    """The last of several runs, each pushed away from the features that earlier runs found for its label."""
    options = options_of(attack)
    rounds = options.avoid_rounds + 1
    if victim.allowance is not None:
        victim = victim.seen_through(lambda view: view)
        victim.allowance = (victim.allowance or 0) // rounds
    directions: list[Tensor] = []
    got = attack.invert(victim, prior, targets, ctx)
    for number in range(1, rounds):
        directions.append(_found(victim, got, ctx))
        pushed = victim.seen_through(_push(victim, directions, options.avoid_weight))
        before = got.effort
        got = attack.invert(pushed, prior, targets, ctx.child(f"round {number}"))
        got = dataclasses.replace(got, effort=_later(got.effort, before))
    return got


def _found(victim: WhiteBoxVictim, got: Reconstructions, ctx: Context) -> Tensor:
    """Unit mean features of what was found for each label, (K, d); zero for labels not asked for."""
    with torch.no_grad():
        parts = [victim.net.features(x.to(ctx.device)).cpu() for x in got.images.split(ctx.max_batch)]
    features = F.normalize(torch.cat(parts), dim=1)
    sums = torch.zeros(victim.num_classes, features.shape[1]).index_add_(0, got.targets, features)
    return F.normalize(sums, dim=1).to(ctx.device)


def _push(victim: WhiteBoxVictim, directions: list[Tensor], weight: float) -> Callable[[Answer], Answer]:
    """Takes weight * cos(features, found direction) off the logit of each label, summed over earlier runs."""

    def change(view: Answer) -> Answer:
        def logits(x: Tensor) -> Tensor:
            features = F.normalize(victim.net.features(x), dim=1)
            near = torch.stack([features @ direction.T for direction in directions]).sum(0)
            return view(x) - weight * near

        return logits

    return change


def _later(effort: Effort | None, before: Effort | None) -> Effort | None:
    """An effort curve that comes after all queries of another."""
    if effort is None or before is None:
        return effort
    return dataclasses.replace(effort, queries=effort.queries + before.queries[-1])
