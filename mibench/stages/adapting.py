"""Adaptive attackers: any attack, run with the options of `mibench.adaptive`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mibench.adaptive import Adaptive
from mibench.attack import Attack, Effort, Reconstructions, without_queries
from mibench.augment import Views
from mibench.defense import Released
from mibench.distil import agreement, answers_of, load_students, train_students
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
    """The reconstructions of an attack with its adaptive options.

    Their effort curve counts every look at an image as a query, and nothing where a student was asked.

    Raises:
        ValueError: avoid_rounds for an attack that is not white-box.
    """
    options = options_of(attack)
    victim = looking(victim, options, ctx)
    if options.student is not None:
        victim = student_victim(attack, victim, prior, ctx)
    own = {name: value for name, value in prior.items() if not name.startswith(_OWN)}
    if options.avoid_rounds == 0:
        got = attack.invert(victim, own, targets, ctx)
    elif isinstance(victim, WhiteBoxVictim):
        got = _invert_around(attack, victim, own, targets, ctx)
    else:
        raise ValueError(
            f"attack '{attack.name}': avoid_rounds = {options.avoid_rounds} needs white-box access, it has "
            f"{victim.level}. Leave it out."
        )
    if options.student is not None:
        return dataclasses.replace(got, effort=without_queries(got.effort))
    return _all_looks(got, victim)


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
    # who is told labels alone cannot average vectors
    is_voting = options.labels_only or not isinstance(victim, ScoreVictim)
    seed = derive_seed(ctx.seed, "looks")

    def images(x: Tensor) -> list[Tensor]:
        """The looks at each image, the same ones for all images, the first of several views being plain."""
        noise = Noise(torch.full((len(x),), seed, dtype=torch.int64))
        shown = [_look(options.view, x, noise, i) for i in range(options.views)]
        return [one for one in shown for _ in range(options.repeats)]

    def answered(released: Answer) -> Answer:
        def answer(x: Tensor) -> Tensor:
            told = [released(one) for one in images(x)]
            joined = (
                torch.stack([_vote(one) for one in told]).mean(0) if is_voting else _joined(told, options)
            )
            return _on_simplex(joined, options)

        return answer

    def seen(view: Answer) -> Answer:
        return lambda x: _joined([view(one) for one in images(x)], options)

    other = victim.asked_through(answered, per_image=looks)
    return other.seen_through(seen) if isinstance(other, WhiteBoxVictim) else other


def _look(view: Views, x: Tensor, noise: Noise, number: int) -> Tensor:
    return x if number == 0 else view.of(x, noise, purpose="look", step=number)


def _vote(released: Tensor) -> Tensor:
    return F.one_hot(released.argmax(1), released.shape[1]).to(released)


def _joined(answers: list[Tensor], options: Adaptive) -> Tensor:
    """One vector of scores or logits for each image from several, (N, K)."""
    stacked = torch.stack(answers)
    return stacked.mean(0) if options.combine == "mean" else stacked.median(0).values


def _on_simplex(joined: Tensor, options: Adaptive) -> Tensor:
    """Joined scores (N, K) as probabilities, their zeros filled if that is asked for."""
    if options.fill_zeros:
        positive = torch.where(joined > 0, joined, torch.inf).amin(1, keepdim=True)
        joined = torch.where(joined > 0, joined, positive / 2)
    # a median over looks no longer sums to 1
    return joined / joined.sum(1, keepdim=True).clamp_min(torch.finfo(joined.dtype).tiny)


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
    """The last of several runs, each pushed away from the features that earlier runs found for its label.

    Labels are run one by one, so that one ends the same alone and in company; repeats of a label share the
    directions of what was found for it.
    """
    rounds = options_of(attack).avoid_rounds + 1
    if victim.allowance is not None:
        victim = victim.seen_through(lambda view: view)
        victim.allowance = (victim.allowance or 0) // rounds
    first = attack.invert(victim, prior, targets, ctx)
    rows = [torch.nonzero(targets == label).squeeze(1) for label in targets.unique()]
    return _merged([_rerun(attack, victim, prior, _taken(first, own), ctx) for own in rows], rows)


def _rerun(
    attack: Attack[Any], victim: WhiteBoxVictim, prior: Prior, got: Reconstructions, ctx: Context
) -> Reconstructions:
    """The last of the further runs for one label, after a first one's reconstructions of it."""
    options = options_of(attack)
    directions: list[Tensor] = []
    for number in range(1, options.avoid_rounds + 1):
        directions.append(_found(victim, got, ctx))
        label = int(got.targets[0])
        pushed = victim.seen_through(_push(victim, label, torch.stack(directions), options.avoid_weight))
        before = got.effort
        got = attack.invert(pushed, prior, got.targets, ctx.child(f"round {number}"))
        got = dataclasses.replace(got, effort=_later(got.effort, before))
    return got


def _found(victim: WhiteBoxVictim, got: Reconstructions, ctx: Context) -> Tensor:
    """Unit mean features (d,) of the reconstructions of one label."""
    with torch.no_grad():
        parts = [victim.net.features(x.to(ctx.device)) for x in got.images.split(ctx.max_batch)]
    return F.normalize(F.normalize(torch.cat(parts), dim=1).sum(0), dim=0)


def _push(
    victim: WhiteBoxVictim, label: int, directions: Tensor, weight: float
) -> Callable[[Answer], Answer]:
    """Takes weight * cos(features, direction) off the logit of one label, summed over directions (n, d)."""

    def change(view: Answer) -> Answer:
        def logits(x: Tensor) -> Tensor:
            near = (F.normalize(victim.net.features(x), dim=1) @ directions.T).sum(1)
            plain = view(x)
            own = torch.arange(plain.shape[1], device=plain.device) == label
            return plain - weight * near[:, None] * own

        return logits

    return change


def _taken(got: Reconstructions, rows: Tensor) -> Reconstructions:
    """Some rows (R,) of reconstructions, with their effort curve."""
    effort = got.effort
    if effort is not None:
        single = None if effort.single is None else effort.single[rows]
        effort = Effort(effort.queries, effort.images[:, rows], effort.loss[:, rows], single)
    return Reconstructions(got.images[rows], got.targets[rows], got.confidence[rows], effort)


def _merged(parts: list[Reconstructions], rows: list[Tensor]) -> Reconstructions:
    """Reconstructions of several labels, each put back in its rows of the whole."""
    order = torch.cat(rows).argsort()
    efforts = [part.effort for part in parts if part.effort is not None]
    joined = Reconstructions(
        torch.cat([part.images for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat([part.confidence for part in parts]),
        _one_curve(efforts) if len(efforts) == len(parts) else None,
    )
    return _taken(joined, order)


def _one_curve(efforts: list[Effort]) -> Effort | None:
    """The curve of several labels, at the mean queries over rows; None where one has more points."""
    if len({len(effort.queries) for effort in efforts}) != 1:
        return None
    rows = [effort.images.shape[1] for effort in efforts]
    spent = torch.stack([effort.queries * count for effort, count in zip(efforts, rows)]).sum(0)
    queries = -(-spent // sum(rows))  # rounded up
    singles = [effort.single for effort in efforts if effort.single is not None]
    return Effort(
        queries,
        torch.cat([effort.images for effort in efforts], dim=1),
        torch.cat([effort.loss for effort in efforts], dim=1),
        torch.cat(singles) if len(singles) == len(efforts) else None,
    )


def _later(effort: Effort | None, before: Effort | None) -> Effort | None:
    """An effort curve that comes after all queries of another."""
    if effort is None or before is None:
        return effort
    return dataclasses.replace(effort, queries=effort.queries + before.queries[-1])
