"""What is asked of every defense: it trains, repeats itself, can be stored, and releases probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mibench.compose import Composition
from mibench.contract.check import Answer, Check, Once, Writes, checks_of, max_gap, scratch
from mibench.contract.masking_checks import gradients_are_there, gradients_lead_somewhere
from mibench.contract.toy import PEOPLE, RECIPE, context, copy_of, spec_of, toy_world, trained, untrained
from mibench.defense import DefenderView, Defense, Released, State
from mibench.errors import PluginError
from mibench.gan import WganPrior
from mibench.masking import View
from mibench.nets.classifier import Classifier
from mibench.plugin import Context, Settings
from mibench.prior import Prior, PriorSpec
from mibench.training import accuracy
from mibench.victim import log_released

_TARGET = 1
_LEAST_LEVELS = 3  # two are a line, not a curve
_SIMPLEX_GAP = 1e-5  # float32 sums of a few probabilities
_LEAST_ACCURACY = 1.5 / PEOPLE
_BATCH_GAP = 1e-4  # roundings of an image alone and in company
_VICTIMS = ("small_vgg", "small_resnet14")  # the first that a defense does not refuse
_ATTACKERS_PRIOR = WganPrior(latent_dim=8, width=4, critic_width=4, steps=4, n_critic=1, batch=8)


@dataclass(frozen=True)
class Trial:
    """One run of a defense: the net, the state of its output step, what it releases, what it touched."""

    net: Classifier
    state: State
    released: Tensor
    is_rng_same: bool
    is_view_same: bool
    writes: tuple[str, ...]


class DefenseSubject:
    """A defense with its toy settings; trains once, for all checks."""

    def __init__(self, plugin: type[Defense]) -> None:
        self.plugin = plugin
        self.defense = plugin.from_params(dict(plugin.toy))

    @Once
    def trial(self) -> Trial:
        """The run that most checks look at."""
        return self.run(self.defense)

    @cached_property
    def prior(self) -> tuple[PriorSpec | None, Prior]:
        """The generator that the defender holds: its substitute, or a small one as an attack would have."""
        if "prior" not in self.plugin.needs:
            return (_ATTACKERS_PRIOR if "attack_prior" in self.plugin.knows else None), {}
        spec = self.defense.substitute_prior() or _ATTACKERS_PRIOR
        return spec, spec.fit_labeled(toy_world().defender, context("defender's prior"))

    def view(self, channels: int = 3) -> DefenderView:
        """All that the defender sees."""
        world = toy_world(channels)
        spec, prior = self.prior
        if channels == 1 and spec is not None and prior:
            prior = spec.fit_labeled(world.defender, context("defender's prior"))
        targets = [_TARGET] if self.plugin.per_target else list(range(PEOPLE))
        return DefenderView(
            private_train=world.private,
            public=world.defender,
            targets=torch.tensor(targets),
            recipe=RECIPE,
            prior_spec=spec,
            prior=prior,
            public_net=copy_of(world.public_net) if "public_net" in self.plugin.needs else None,
        )

    def run(self, defense: Defense, *, channels: int = 3) -> Trial:
        """Train and protect, as the stages do."""
        world, view = toy_world(channels), self.view(channels)
        images = view.private_train.images.clone()
        state = torch.get_rng_state()
        with scratch() as folder, Writes(folder) as writes:
            ctx = _context(folder)
            net = defense.train(defense.prepare(self.start(channels)), view, ctx)
            learned = {name: value.detach() for name, value in defense.learn_output(net, view, ctx).items()}
            released = _release(defense.protect(net, learned, ctx), world.test.images)
        return Trial(
            net,
            learned,
            released,
            is_rng_same=torch.equal(state, torch.get_rng_state()),
            is_view_same=torch.equal(images, view.private_train.images),
            writes=tuple(writes.found),
        )

    def start(self, channels: int = 3) -> Classifier:
        """The net that the defense is handed."""
        world = toy_world(channels)
        if self.plugin.starts_from == "scratch":
            return untrained(world.private, "victim", self.victim)
        is_worlds = world.net.spec.name == self.victim
        return copy_of(world.net) if is_worlds else trained(self.victim, world.private, "victim")

    @cached_property
    def victim(self) -> str:
        """Name of the net; PluginError where the defense refuses them all."""
        refusals = {name: self.defense.misfit(spec_of(toy_world().private, name)) for name in _VICTIMS}
        for name, refusal in refusals.items():
            if not refusal:
                return name
        raise PluginError(
            f"defense '{self.defense.name}' refuses all nets of the checks: {' '.join(refusals.values())} "
            "Let `toy` or `misfit` allow one."
        )

    def module(self) -> nn.Module:
        """The released model of the trial."""
        return self.defense.protect(self.trial.net, self.trial.state, _context(Path("nowhere")))

    def views(self) -> dict[str, View]:
        """What white-box attackers may see of the trial, by name, as maps of images to logits."""
        views: dict[str, View] = {"stripped": self.trial.net}
        if "output" in self.plugin.acts:
            module = self.module()
            views["deployed"] = lambda x: log_released(module(x))
        return views


def defense_checks(plugin: type[Defense]) -> list[Check]:
    """The checks of one defense, beside those of every plugin."""
    probes = [
        says_where_it_acts,
        names_levels_of_its_knob,
        returns_a_frozen_classifier,
        same_seed_same_bits,
        leaves_the_global_state,
        leaves_the_images_as_they_were,
        writes_to_scratch_alone,
        survives_storing,
        beats_chance,
        releases_probabilities,
        release_takes_each_image_by_itself,
        takes_gray_images,
    ]
    if "output" in plugin.acts:
        probes.append(leaves_the_white_box_view)
    if issubclass(plugin, Composition):
        probes.remove(says_where_it_acts)  # it says what its parts do
    if plugin.keeps_label:
        probes.append(keeps_the_label)
    advice = (neutral_setting_equals_none, gradients_are_there, gradients_lead_somewhere)
    return checks_of(tuple(probes), DefenseSubject(plugin), advice)


def says_where_it_acts(subject: DefenseSubject) -> Answer:
    """`acts` fits the steps that it overrides."""
    changed = [
        step
        for step in ("prepare", "train", "learn_output", "protect")
        if getattr(subject.plugin, step) is not getattr(Defense, step)
    ]
    acts = subject.plugin.acts
    if (acts == "nothing") != (not changed):
        return f"acts = '{acts}', but it overrides {', '.join(changed) or 'no step'}."
    if (acts == "output") != ("protect" in changed):
        return f"acts = '{acts}', but it overrides {', '.join(changed)}. An output step overrides `protect`."
    if acts == "fine-tuning" and subject.plugin.starts_from != "trained":
        return "acts = 'fine-tuning', but starts_from = 'scratch'. Start from the trained net."
    return None


def names_levels_of_its_knob(subject: DefenseSubject) -> Answer:
    """Its knob, if it has one, is a field that stands at each of three levels or more."""
    plugin = subject.plugin
    knob, levels = plugin.strength, plugin.strength_levels
    if not knob:
        return f"strength_levels = {levels}, but no strength. Name the field." if levels else None
    if knob not in {one.name for one in dataclasses.fields(plugin)}:
        return f"strength = '{knob}' is no field. Name the one that makes it weaker or stronger."
    if len(set(levels)) < _LEAST_LEVELS or len(set(levels)) < len(levels):
        return f"strength_levels = {levels}. Give {_LEAST_LEVELS} different ones or more, weak to strong."
    for level in levels:
        try:
            plugin.from_params({**plugin.toy, knob: level})
        except ValueError as error:
            return f"the level {level} of {knob} cannot be built ({error}). Give another."
    return None


def returns_a_frozen_classifier(subject: DefenseSubject) -> Answer:
    """It returns a classifier of the same interface, in eval mode, without hooks or gradients."""
    net: object = subject.trial.net
    if not isinstance(net, Classifier):
        return f"`train` returned a {type(net).__name__}. Return a Classifier."
    if any(module.training for module in net.modules()):
        return "the net is in training mode. Return net.eval()."
    if any(p.requires_grad for p in net.parameters()):
        return "its parameters ask for gradients. Freeze them: mibench.victim.freeze(net)."
    hooks = [m for m in net.modules() if m._forward_hooks or m._backward_hooks or m._forward_pre_hooks]
    if hooks:
        return f"a hook is left on {type(hooks[0]).__name__}. Remove it, or train a copy."
    images = toy_world().test.images
    with torch.no_grad():
        logits, features = net(images), net.features(images)
    if logits.shape != (len(images), PEOPLE) or max_gap(net.head(features), logits) > _BATCH_GAP:
        return "net(x) is not net.head(net.features(x)). Keep the interface of Classifier."
    return None


def same_seed_same_bits(subject: DefenseSubject) -> Answer:
    """The same seed gives the same weights, bit for bit."""
    first = subject.trial  # where that run failed, another would fail alike
    again = subject.run(subject.defense)
    if not (_equal(_weights(again.net), _weights(first.net)) and _equal(again.state, first.state)):
        return "a second training gave other weights. Draw all randomness from ctx.generator."
    return None


def leaves_the_global_state(subject: DefenseSubject) -> Answer:
    """It leaves torch's global random state alone."""
    if not subject.trial.is_rng_same:
        return "torch's global generator has moved. Pass generator=ctx.generator(...)."
    return None


def leaves_the_images_as_they_were(subject: DefenseSubject) -> Answer:
    """It leaves the private images as they were."""
    return None if subject.trial.is_view_same else "private images have changed in place. Work on a copy."


def writes_to_scratch_alone(subject: DefenseSubject) -> Answer:
    """It writes to ctx.scratch alone."""
    if subject.trial.writes:
        return f"it wrote {subject.trial.writes[0]}. Write to ctx.scratch, which is removed afterwards."
    return None


def survives_storing(subject: DefenseSubject) -> Answer:
    """A stored model, rebuilt by `prepare` and `protect`, releases the same."""
    trial = subject.trial
    net = subject.defense.prepare(untrained(toy_world().private, "another net", subject.victim))
    net.load_state_dict(_stored(_weights(trial.net)))
    net.eval().requires_grad_(False)
    module = subject.defense.protect(net, _stored(trial.state), _context(Path("nowhere")))
    gap = max_gap(_release(module, toy_world().test.images), trial.released)
    if gap > 0:
        return (
            f"the rebuilt model's values differ by {gap:.3g}. Keep all state in weights and `learn_output`."
        )
    return None


def beats_chance(subject: DefenseSubject) -> Answer:
    """The protected model still recognizes people better than chance."""
    value = accuracy(subject.module(), toy_world().private)
    if value > _LEAST_ACCURACY:
        return None
    return (
        f"accuracy on its training images is {value:.2f}, chance {1 / PEOPLE:.2f}, wanted more than "
        f"{_LEAST_ACCURACY:.2f}. Mend it, or its `toy` settings."
    )


def releases_probabilities(subject: DefenseSubject) -> Answer:
    """It releases float32 rows on the simplex, the same at every call."""
    released = subject.trial.released
    images = toy_world().test.images
    if released.shape != (len(images), PEOPLE) or released.dtype != torch.float32:
        return (
            f"released {tuple(released.shape)} {released.dtype} for {len(images)} images of {PEOPLE} people."
        )
    if not bool(torch.isfinite(released).all()) or float(released.min()) < 0:
        return "released values are negative or not finite. Release probabilities."
    gap = float((released.sum(1) - 1).abs().max())
    if gap > _SIMPLEX_GAP:
        return f"rows sum to 1 within {gap:.3g} only. Normalize them."
    if not torch.equal(_release(subject.module(), images), released):
        return "a second call released other values. Derive noise from the image, or from ctx."
    return None


def release_takes_each_image_by_itself(subject: DefenseSubject) -> Answer:
    """What it releases for an image does not depend on the others of the batch."""
    images, module = toy_world().test.images[:4], subject.module()
    gap = max_gap(torch.cat([_release(module, x) for x in images.split(1)]), _release(module, images))
    if gap > _BATCH_GAP:
        return f"an image alone and in company differ by {gap:.3g}. Treat every row by itself."
    return None


def takes_gray_images(subject: DefenseSubject) -> Answer:
    """It runs on images of one channel."""
    _ = subject.trial
    released = subject.run(subject.defense, channels=1).released
    return None if released.shape[1] == PEOPLE else f"gray images gave {tuple(released.shape)}."


def leaves_the_white_box_view(subject: DefenseSubject) -> Answer:
    """Who holds the weights holds those of no output step, bit for bit."""
    plain, defense, ctx = subject.start(), subject.defense, _context(Path("nowhere"))
    if isinstance(defense, Composition):
        plain = defense.train(defense.prepare(plain), subject.view(), ctx)
    elif subject.plugin.starts_from == "scratch":
        plain = Defense().train(plain, subject.view(), ctx)
    if _equal(_weights(plain), _weights(subject.trial.net)):
        return None
    return "an output step that also changes the weights. Say acts = 'training', or leave `train` alone."


def keeps_the_label(subject: DefenseSubject) -> Answer:
    """Which label leads is what the net says, as `keeps_label` claims, on faces and on noise."""
    if "output" not in subject.plugin.acts:
        return f"keeps_label = True with acts = '{subject.plugin.acts}'. Only an output step can claim that."
    world = toy_world()
    faces = torch.cat([world.private.images, world.test.images, world.public, world.defender.images])
    images = torch.cat([faces, torch.rand(faces.shape, generator=context("noise").generator("images"))])
    modules = subject.module(), Released(subject.trial.net)
    released, plain = (_release(module, images).argmax(1) for module in modules)
    changed = int((released != plain).sum())
    if changed:
        return f"{changed} of {len(images)} labels change. Repair them, or leave keeps_label out."
    return None


def neutral_setting_equals_none(subject: DefenseSubject) -> Answer:
    """Its neutral setting releases what the undefended victim does, bit for bit."""
    plugin = subject.plugin
    if plugin.neutral is None:
        return "it names no `neutral` setting that switches it off. Give one if there is one."
    _ = subject.trial
    off = plugin.from_params(_over(plugin.toy, plugin.neutral))
    plain = subject.start()
    if plugin.starts_from == "scratch":
        plain = Defense().train(plain, subject.view(), _context(Path("nowhere")))
    released = _release(Defense().protect(plain, {}, _context(Path("nowhere"))), toy_world().test.images)
    gap = max_gap(subject.run(off).released, released)
    return (
        None
        if gap == 0
        else f"with {dict(plugin.neutral)} released values differ by {gap:.3g} from no defense."
    )


def _over(toy: Settings, neutral: Settings) -> dict[str, Any]:
    """The toy settings with the neutral ones over them, table by table."""
    both = {**toy, **neutral}
    for name, value in neutral.items():
        if isinstance(value, Mapping) and isinstance(toy.get(name), Mapping):
            both[name] = {**toy[name], **value}
    return both


def _context(folder: Path) -> Context:
    # the purpose is the same for every defense: the neutral setting then meets the noise of `none`
    return dataclasses.replace(context("defense"), scratch=folder)


def _release(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        released: Tensor = module(images)
    return released


def _weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in net.state_dict().items()}


def _stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    stored: dict[str, Tensor] = load(
        save({name: value.clone().contiguous() for name, value in tensors.items()})
    )
    return stored


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
