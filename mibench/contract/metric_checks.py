"""What is asked of every metric: sound intervals, no order, no noise, and a sense of better and worse."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.contract.check import Answer, Check, checks_of
from mibench.contract.toy import PEOPLE, context, toy_world
from mibench.data.split import Labeled
from mibench.defense import Released
from mibench.embedder import of_classifier
from mibench.metric import NEEDS, Case, Estimate, Metric, ProtectedVictim
from mibench.victim import ScoreVictim

_PROTECTED = (0, 2)
_DECOY = 1
_NOISES = (0.0, 0.2, 0.6)
_SLACK = 1e-6  # sums in another order


class MetricSubject:
    """A metric and the cases that it is asked about."""

    def __init__(self, plugin: type[Metric]) -> None:
        self.plugin = plugin
        self.metric = plugin.from_params(dict(plugin.toy))

    @cached_property
    def estimates(self) -> list[Estimate | None]:
        """Of real images as reconstructions, under more and more noise."""
        return [self.measure(case_of(noise)) for noise in _NOISES]

    def measure(self, case: Case) -> Estimate | None:
        """The estimate of one case, with the same seed each time."""
        return self.metric.measure(case, context("metric"))


def metric_checks(plugin: type[Metric]) -> list[Check]:
    """The checks of one metric, beside those of every plugin; none where it lacks a user's file."""
    if any(not plugin.toy.get(name) for name in plugin.files):
        return []
    probes = (
        asks_for_what_there_is,
        gives_a_sound_estimate,
        repeats_itself,
        order_does_not_matter,
        leaves_the_case_as_it_was,
        better_means_better,
        noise_moves_it_one_way,
    )
    return checks_of(probes, MetricSubject(plugin))


def case_of(noise: float) -> Case:
    """A cell whose reconstructions are real test images under uniform noise of a strength in [0, 1]."""
    world = toy_world()
    ctx = context("metric cases")
    drawn = torch.rand(world.test.images.shape, generator=ctx.generator("noise"))
    images = (1 - noise) * world.test.images + noise * drawn
    channels, size, _ = world.private.shape
    victim = ScoreVictim(Released(world.net), shape=(channels, size, size), num_classes=PEOPLE)
    return Case(
        got=Reconstructions.collect(images, world.test.labels),
        protected=torch.isin(world.test.labels, torch.tensor(_PROTECTED)),
        victims=(ProtectedVictim(victim, _PROTECTED, _DECOY),),
        private_train=world.private,
        private_test=world.test,
        defender_public=world.defender,
        judge=world.judge,
        audit=world.net,
        truth=world.test.images,
        embedder=of_classifier(world.public_net),
        public=Labeled(world.public, torch.arange(len(world.public))),
    )


def asks_for_what_there_is(subject: MetricSubject) -> Answer:
    """Its needs are parts that a case may have, and it declares those that it reads."""
    strange = sorted(set(subject.plugin.needs) - set(NEEDS))
    if strange:
        return f"needs names '{strange[0]}', which no case has. There are: {', '.join(NEEDS)}."
    lacking: dict[str, Any] = dict.fromkeys(need for need in NEEDS if need not in subject.plugin.needs)
    case = dataclasses.replace(case_of(_NOISES[0]), **lacking)
    if subject.measure(case) != subject.estimates[0]:
        return f"it gives something else without {', '.join(lacking)}. Name in `needs` what it reads."
    return None


def gives_a_sound_estimate(subject: MetricSubject) -> Answer:
    """Its value lies in its interval, a percent metric's in [0, 1], and it counts what it averaged."""
    estimate = subject.estimates[0]
    if estimate is None:
        return "it gives nothing for a complete case. Return None where the metric makes no sense only."
    if not estimate.low <= estimate.value <= estimate.high:
        return f"value {estimate.value} is not in [{estimate.low}, {estimate.high}]."
    if subject.plugin.percent and not 0 <= estimate.low <= estimate.high <= 1:
        return f"[{estimate.low}, {estimate.high}] is not in [0, 1]. A percent metric is a fraction."
    if estimate.count < 1 or not isinstance(estimate.count, int):
        return f"count is {estimate.count!r}. Give the number of things averaged."
    return None


def repeats_itself(subject: MetricSubject) -> Answer:
    """The same case and seed give the same estimate, and the global random state stays."""
    state = torch.get_rng_state()
    again = subject.measure(case_of(_NOISES[0]))
    if again != subject.estimates[0]:
        return f"{again} after {subject.estimates[0]}. Draw all randomness from ctx."
    if not torch.equal(state, torch.get_rng_state()):
        return "torch's global generator has moved. Pass generator=ctx.generator(...)."
    return None


def order_does_not_matter(subject: MetricSubject) -> Answer:
    """Reconstructions in another order give the same value."""
    case = case_of(_NOISES[1])
    order = torch.randperm(len(case.protected), generator=context("metric").generator("order"))
    got = case.got
    mixed = Reconstructions(got.images[order], got.targets[order], got.confidence[order])
    truth = None if case.truth is None else case.truth[order]
    case = dataclasses.replace(case, got=mixed, protected=case.protected[order], truth=truth)
    one, other = subject.estimates[1], subject.measure(case)
    if one is None or other is None:
        return None if one is other else f"{other} in another order, {one} before."
    if not math.isclose(one.value, other.value, rel_tol=1e-4, abs_tol=_SLACK):
        return (
            f"{other.value} in another order, {one.value} before. Average over rows without regard to order."
        )
    return None


def leaves_the_case_as_it_was(subject: MetricSubject) -> Answer:
    """It leaves the images of the case as they were."""
    case = case_of(_NOISES[0])
    parts = (
        case.got.images,
        case.private_train.images,
        case.private_test.images,
        case.defender_public.images,
    )
    before = [part.clone() for part in parts]
    subject.measure(case)
    if not all(torch.equal(one, other) for one, other in zip(before, parts)):
        return "images have changed in place. Work on a copy."
    return None


def better_means_better(subject: MetricSubject) -> Answer:
    """Perfect reconstructions are no better for the defender than noise, and what ignores them is equal."""
    perfect, noise = subject.estimates[0], subject.measure(_noise_case())
    if perfect is None or noise is None:
        return "it gives nothing for a complete case."
    gain = _gain(subject, perfect, noise)
    if gain < -_SLACK:
        return (
            f"{perfect.value:.4g} on perfect images and {noise.value:.4g} on noise, where "
            f"{subject.plugin.better} is better. Turn `better` round."
        )
    return None


def noise_moves_it_one_way(subject: MetricSubject) -> Answer:
    """More noise in the reconstructions is never worse for the defender."""
    found = [estimate for estimate in subject.estimates if estimate is not None]
    steps = [_gain(subject, one, other) for one, other in pairwise(found)]
    if any(step < -_SLACK for step in steps):
        return f"values {[round(one.value, 4) for one in found]} under noise {list(_NOISES)} turn back."
    return None


def _noise_case() -> Case:
    """A cell whose reconstructions show nobody."""
    case = case_of(1.0)
    images: Tensor = case.got.images
    return dataclasses.replace(case, got=Reconstructions.collect(images, case.got.targets))


def _gain(subject: MetricSubject, before: Estimate, after: Estimate) -> float:
    """How much better for the defender the second value is."""
    step = after.value - before.value
    return step if subject.plugin.better == "higher" else -step
