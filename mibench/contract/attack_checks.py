"""What is asked of every attack: it runs, repeats itself, and leaves everything as it was."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from mibench.attack import Attack, Reconstructions
from mibench.contract.check import Answer, Check, Once, Writes, checks_of, max_gap, scratch
from mibench.contract.toy import PEOPLE, World, context, toy_world
from mibench.data.split import quantize
from mibench.errors import AccessError, QueryBudgetError
from mibench.nets.classifier import Classifier
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.victim import LabelVictim, fingerprint

TARGETS = (1, 3, 1, 0)  # with a repeat, and not in order
# what roundings of short searches leave between one batch shape and another, in pixels of [0, 1]
_ROW_GAP = 1e-5
_LEAST_ALLOWANCE = 6  # queries for each reconstruction below which an attack has no steps to save


@dataclass(frozen=True)
class Trial:
    """One run of an attack on the toy victim: what it learned, adapted and returned, and what it asked."""

    learned: Prior
    adapted: Prior
    got: Reconstructions
    asked: int
    is_rng_same: bool
    is_victim_same: bool
    writes: tuple[str, ...]


class AttackSubject:
    """An attack with its toy settings; runs once, for all checks."""

    def __init__(self, plugin: type[Attack[Any]]) -> None:
        self.plugin = plugin
        self.attack = plugin.from_params(dict(plugin.toy))

    @Once
    def trial(self) -> Trial:
        """The run that most checks look at."""
        return self.run()

    def run(self, *, seed: int = 0, channels: int = 3) -> Trial:
        """Run all three steps on a fresh victim."""
        world = toy_world(channels)
        before, state = fingerprint(world.net), torch.get_rng_state()
        with scratch() as folder, Writes(folder) as writes:
            ctx = self.context(folder, seed=seed)
            learned = _detached(self.attack.learn_prior(world.public.clone(), ctx))
            victim = world.victim(self.plugin.access)
            adapted = _detached(self.attack.adapt_prior(learned, victim, world.public.clone(), ctx))
            victim = world.victim(self.plugin.access)
            got = self.attack.invert(victim, adapted, torch.tensor(TARGETS), ctx)
        return Trial(
            learned,
            adapted,
            got,
            victim.queries.forward,
            is_rng_same=torch.equal(state, torch.get_rng_state()),
            is_victim_same=fingerprint(world.net) == before,
            writes=tuple(writes.found),
        )

    def again(
        self, targets: tuple[int, ...], *, prior: Prior | None = None, **limits: int
    ) -> Reconstructions:
        """Invert labels once more with what the trial adapted; limits: max_queries, allowance, max_batch."""
        victim = toy_world().victim(
            self.plugin.access, max_queries=limits.get("max_queries"), allowance=limits.get("allowance")
        )
        with scratch() as folder:
            ctx = self.context(folder, max_batch=limits.get("max_batch", 64))
            start = self.trial.adapted if prior is None else prior
            return self.attack.invert(victim, start, torch.tensor(targets), ctx)

    @cached_property
    def observer(self) -> Attack[Any]:
        """The attack with the goal "instance"."""
        return self.plugin.from_params({**self.plugin.toy, "goal": "instance"})

    def observed_prior(self) -> Prior:
        """What the observer learned and adapted."""
        world = toy_world()
        with scratch() as folder:
            ctx = self.context(folder)
            prior = self.observer.learn_prior(world.public.clone(), ctx)
            victim = world.victim(self.plugin.access)
            return _detached(self.observer.adapt_prior(prior, victim, world.public.clone(), ctx))

    def instances(self, prior: Prior, rows: int, *, max_batch: int = 64) -> Reconstructions:
        """The images behind the predictions of test images of TARGETS, as the observer draws them."""
        world = toy_world()
        with torch.no_grad():
            released = world.net(world.test.in_turn(torch.tensor(TARGETS))).softmax(1)[:rows]
        with scratch() as folder:
            ctx = self.context(folder, max_batch=max_batch)
            victim = world.victim(self.plugin.access)
            return self.observer.reconstruct(victim, prior, released, torch.tensor(TARGETS[:rows]), ctx)

    def context(self, folder: Any, *, seed: int = 0, max_batch: int = 64) -> Context:  # noqa: ANN401
        """The context of every step."""
        ctx = context(self.plugin.name, seed=seed, max_batch=max_batch)
        return Context(seed=ctx.seed, scratch=folder, max_batch=max_batch)


def attack_checks(plugin: type[Attack[Any]]) -> list[Check]:
    """The checks of one attack, beside those of every plugin."""
    probes = [
        declares_the_access_that_it_is_typed_for,
        runs_at_its_access_level,
        gives_one_image_for_each_target,
        gives_finite_images_in_range,
        priors_are_tensors_that_can_be_stored,
        same_seed_same_bits,
        leaves_the_global_state,
        leaves_the_victim_as_it_was,
        writes_to_scratch_alone,
        keeps_within_its_allowance,
        effort_ends_at_what_is_returned,
        rows_are_independent,
        takes_gray_images,
    ]
    if not plugin.control:
        probes.append(beats_a_random_prior)
    if plugin.reconstruct is not Attack.reconstruct:
        probes.append(instances_repeat_and_are_independent)
    return checks_of(tuple(probes), AttackSubject(plugin), (another_seed_gives_other_bits,))


def declares_the_access_that_it_is_typed_for(subject: AttackSubject) -> Answer:
    """`access` is the victim type of its base class."""
    plugin = subject.plugin
    for one in plugin.__mro__:
        for base in getattr(one, "__orig_bases__", ()):
            types = [arg for arg in typing.get_args(base) if isinstance(arg, type)]
            if types and issubclass(types[0], LabelVictim):
                if types[0] is plugin.access:
                    return None
                declared = plugin.access.__name__
                return f"it is Attack[{types[0].__name__}], but access = {declared}. Make them equal."
    return f"its victim type is unknown. Derive it from Attack[{plugin.access.__name__}]."


def runs_at_its_access_level(subject: AttackSubject) -> Answer:
    """It needs no more than the access that it declares."""
    try:
        _ = subject.trial
    except AccessError as error:
        return f"{error}"
    return None


def gives_one_image_for_each_target(subject: AttackSubject) -> Answer:
    """It returns one image for each target, in order, repeats included."""
    got = subject.trial.got
    wanted = (len(TARGETS), *toy_world().private.shape)
    if tuple(got.images.shape) != wanted:
        return f"images have shape {tuple(got.images.shape)}, wanted {wanted}."
    if tuple(got.targets.tolist()) != TARGETS or got.confidence.shape != (len(TARGETS),):
        return (
            f"targets {got.targets.tolist()} and confidence {tuple(got.confidence.shape)} came back for "
            f"targets {list(TARGETS)}. Return one of each for each target, in order."
        )
    return None


def gives_finite_images_in_range(subject: AttackSubject) -> Answer:
    """Its images are finite float32 in [0, 1] on the CPU."""
    images = subject.trial.got.images
    if images.dtype != torch.float32 or images.device.type != "cpu" or images.requires_grad:
        return f"images are {images.dtype} on {images.device}. Return Reconstructions.collect(...)."
    if not bool(torch.isfinite(images).all()):
        return "images hold NaN or infinity. Check the step size."
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        return f"images lie in [{low:.3g}, {high:.3g}], wanted [0, 1]. Return Reconstructions.collect(...)."
    return None


def priors_are_tensors_that_can_be_stored(subject: AttackSubject) -> Answer:
    """Its priors are tensors that may be stored, and a stored prior gives the same images."""
    trial = subject.trial
    for step, prior in (("learn_prior", trial.learned), ("adapt_prior", trial.adapted)):
        wrong = [name for name, value in prior.items() if not isinstance(value, Tensor)]
        if wrong:
            return f"{step} gives '{wrong[0]}', which is no tensor. Store tensors alone."
    stored = load(save({name: value.clone().contiguous() for name, value in trial.adapted.items()}))
    got = subject.again(TARGETS, prior=stored)
    if not torch.equal(got.images, trial.got.images):
        return "a prior that was stored and loaded gives other images. Keep all state in its tensors."
    return None


def same_seed_same_bits(subject: AttackSubject) -> Answer:
    """The same seed gives the same images, bit for bit."""
    first = subject.trial.got.images  # where that run failed, another would fail alike
    if not torch.equal(subject.run().got.images, first):
        return "a second run gave other images. Draw all randomness from ctx.generator and ctx.noise."
    return None


def another_seed_gives_other_bits(subject: AttackSubject) -> Answer:
    """Another seed gives other images."""
    first = subject.trial.got.images
    if torch.equal(subject.run(seed=1).got.images, first):
        return "the seed changes nothing. Right for a method without chance; else draw from ctx."
    return None


def leaves_the_global_state(subject: AttackSubject) -> Answer:
    """It leaves torch's global random state alone."""
    if not subject.trial.is_rng_same:
        return "torch's global generator has moved. Pass generator=ctx.generator(...), or use ctx.noise."
    return None


def leaves_the_victim_as_it_was(subject: AttackSubject) -> Answer:
    """It leaves weights, buffers, mode and gradients of the victim as they were."""
    if not subject.trial.is_victim_same:
        return "the victim's net has changed. Work on a copy, and take gradients with torch.autograd.grad."
    return None


def writes_to_scratch_alone(subject: AttackSubject) -> Answer:
    """It writes to ctx.scratch alone."""
    if subject.trial.writes:
        return f"it wrote {subject.trial.writes[0]}. Write to ctx.scratch, which is removed afterwards."
    return None


def keeps_within_its_allowance(subject: AttackSubject) -> Answer:
    """It plans with victim.allowance: under a smaller one it ends well, and asks no more than that."""
    each = -(-subject.trial.asked // len(TARGETS))
    if each < _LEAST_ALLOWANCE:  # nothing, or hardly anything, that could be left out
        return None
    allowance = each * 2 // 3
    limit = allowance * len(TARGETS)
    try:
        got = subject.again(TARGETS, allowance=allowance, max_queries=limit)
    except QueryBudgetError:
        return (
            f"it needs {subject.trial.asked} queries for {len(TARGETS)} targets, and broke off when each "
            f"might ask {allowance}. Plan its steps with victim.steps_within(...)."
        )
    if not bool(torch.isfinite(got.images).all()):
        return f"its images hold NaN or infinity under an allowance of {allowance}. Return the best so far."
    return None


def effort_ends_at_what_is_returned(subject: AttackSubject) -> Answer:
    """Its effort curve ends at the images that it returns and the queries that it asked."""
    got, asked = subject.trial.got, subject.trial.asked
    if got.effort is None:
        return None
    if not torch.equal(got.effort.images[-1], quantize(got.images)):
        return "the last images of its effort curve are not those that it returns. End it after the choice."
    queries = got.effort.queries
    if bool((queries.diff() < 0).any()):
        return f"the queries of its effort curve fall: {queries.tolist()}. Count on from point to point."
    each = asked / len(TARGETS)
    if not abs(float(queries[-1]) - each) < 1:
        return (
            f"its effort curve ends at {int(queries[-1])} queries for each target, and it asked {each:.6g}. "
            "Count what was spent, the choice included, as the mean over all targets."
        )
    return None


def rows_are_independent(subject: AttackSubject) -> Answer:
    """A label ends the same alone, in company and in chunks."""
    whole = subject.trial.got.images
    alone = subject.again(TARGETS[:1]).images
    gap = max_gap(alone, whole[:1])
    if gap > _ROW_GAP:
        return f"label {TARGETS[0]} alone and in company differ by {gap:.3g}. Sum losses, do not average."
    gap = max_gap(subject.again(TARGETS, max_batch=1).images, whole)
    if gap > _ROW_GAP:
        return f"images differ by {gap:.3g} with ctx.max_batch = 1. Draw noise from ctx.noise(targets)."
    return None


def instances_repeat_and_are_independent(subject: AttackSubject) -> Answer:
    """It reconstructs an instance the same again, alone, in company and in chunks."""
    prior = subject.observed_prior()
    got = subject.instances(prior, len(TARGETS))
    wanted = (len(TARGETS), *toy_world().private.shape)
    if tuple(got.images.shape) != wanted or tuple(got.targets.tolist()) != TARGETS:
        return (
            f"images {tuple(got.images.shape)} for targets {got.targets.tolist()} came back, wanted {wanted} "
            f"for {list(TARGETS)}. Return one image for each prediction, in order."
        )
    again = subject.instances(subject.observed_prior(), len(TARGETS))
    if not torch.equal(again.images, got.images):
        return "a second run gave other instances. Draw all randomness from ctx.generator and ctx.noise."
    gap = max_gap(subject.instances(prior, 1).images, got.images[:1])
    if gap > _ROW_GAP:
        return f"an instance alone and in company differ by {gap:.3g}. Sum losses, do not average."
    gap = max_gap(subject.instances(prior, len(TARGETS), max_batch=1).images, got.images)
    if gap > _ROW_GAP:
        return f"instances differ by {gap:.3g} with ctx.max_batch = 1. Draw noise from ctx.noise(targets)."
    return None


def takes_gray_images(subject: AttackSubject) -> Answer:
    """It runs on images of one channel."""
    _ = subject.trial  # where that run failed, another would fail alike
    shape = tuple(subject.run(channels=1).got.images.shape)
    wanted = (len(TARGETS), *toy_world(1).private.shape)
    return None if shape == wanted else f"gray images came back as {shape}, wanted {wanted}."


def beats_a_random_prior(subject: AttackSubject) -> Answer:
    """The victim takes its images for their targets more than images of a random prior."""
    own = _likelihood(toy_world().net, subject.trial.got.images, TARGETS)
    blind = _likelihood(toy_world().net, _blind_images(subject), TARGETS)
    if own > blind:
        return None
    return (
        f"mean log p of the targets is {own:.2f}, of random images {blind:.2f}. Mend the attack, or give it "
        f"`toy` settings with more steps (these have {PEOPLE} people of 16 px)."
    )


def _blind_images(subject: AttackSubject) -> Tensor:
    """Images that know nothing of the targets: of the attack's own prior, or public ones."""
    world: World = toy_world()
    spec = subject.attack.prior_spec()
    ctx = context("blind images")
    if spec is None:
        order = torch.randperm(len(world.public), generator=ctx.generator("order"))
        return world.public[order[: len(TARGETS)]]
    space = spec.load(subject.trial.learned, world.private.shape, ctx)
    with torch.no_grad():
        return space.decode(space.start(ctx.noise(torch.tensor(TARGETS))))


def _likelihood(net: Classifier, images: Tensor, targets: tuple[int, ...]) -> float:
    """Mean log-probability of the targets."""
    with torch.no_grad():
        scores = net(images).log_softmax(1)
    return float(scores.gather(1, torch.tensor(targets)[:, None]).mean())


def _detached(prior: Prior) -> Prior:
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in prior.items()}
