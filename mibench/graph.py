"""The growing graph of tasks: one method a stage, as in the stage table of docs/architecture.md.

Those that judge and measure are in `mibench.ruler`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from mibench.adaptive import Adaptive
from mibench.attack import Attack
from mibench.compose import acts_on_model, parts_of
from mibench.data.source import Part
from mibench.defense import Defense
from mibench.errors import BlockedError
from mibench.key import Key
from mibench.plugin import Plugin
from mibench.prior import NO_LABELS, PriorSpec
from mibench.registry import source_digest
from mibench.suite import Suite
from mibench.task import Extra, Seen, Task

BASELINE = "none"  # the training that every defense without its own shares with the undefended victim


def overrides(plugin: Plugin, step: str, base: type[Plugin]) -> bool:
    """Whether a plugin has its own version of a step of its family's base class."""
    return getattr(type(plugin), step) is not getattr(base, step)


def plugin_json(plugin: Plugin) -> dict[str, Any]:
    """Name, version, source digest and fields of a plugin."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "source": source_digest(type(plugin)),
        "params": plugin.key_params(),
    }


class Graph:
    """Tasks of one suite by key; adding the same task twice gives the same key."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.tasks: dict[Key, Task] = {}

    def data(self, part: Part) -> Key:
        """The images of one part; all seeds share them."""
        source = self.suite.data
        return self.add(
            "data",
            source.kind,
            version=source.version,
            params=source.part_params(part),
            title=f"{part} images",
            locator={"data": source.locator(), "part": part},
        )

    def prior(self, plugin: Plugin, spec: PriorSpec, half: Literal["public", "defender"], seed: int) -> Key:
        """A generative prior, trained on one half of the public images, named by its spec alone.

        A ready one is the same for every half, seed and data set.
        """
        if spec.is_ready:
            return self.add(
                "prior",
                spec.kind,
                version=spec.version,
                source=source_digest(type(spec)),
                params={"spec": spec.training_params()},
                title=f"prior {spec.kind}",
                locator={"prior_from": _owner(plugin)},
            )
        return self.add(
            "prior",
            spec.kind,
            version=spec.version,
            source=source_digest(type(spec)),
            params={"spec": spec.training_params(), "half": half},
            inputs={"public": self.data(half)},
            seed=self.suite.seed_of_priors(seed),
            # the defender's networks must not start from the attacker's weights
            noise=spec.kind if half == "public" else f"{spec.kind}, defender",
            title=f"prior {spec.kind} ({'attacker' if half == 'public' else 'defender'})",
            locator={"prior_from": _owner(plugin)},
        )

    def attack_prior(self, attack: Attack[Any], seed: int) -> Key | None:
        """The attacker's prior; by its spec, or by the attack if that learns it in its own way.

        Raises:
            BlockedError: the spec needs labels, which the attacker's images do not have.
        """
        spec = attack.prior_spec()
        if spec is not None and spec.needs_labels:
            raise BlockedError(f"attack '{attack.name}' asks for a prior of kind '{spec.kind}': {NO_LABELS}")
        if not overrides(attack, "learn_prior", Attack):
            return None if spec is None else self.prior(attack, spec, "public", seed)
        return self.add_plugin(
            "prior",
            attack,
            params={"attack": attack.key_params(), "half": "public"},
            inputs={"public": self.data("public")},
            seed=self.suite.seed_of_priors(seed),
            title=f"prior of {attack.name}",
        )

    def defender(self, attack: Attack[Any], defense: Defense, seed: int) -> Extra:
        """What the defense asks for beside the images; BlockedError where that cannot be given."""
        inputs = {"public_net": self.public_net(seed)} if "public_net" in defense.needs else {}
        knows, needs = "attack_prior" in defense.knows, "prior" in defense.needs
        if not (knows or needs):
            return Extra(inputs=inputs)
        known = attack.prior_spec() if knows else None
        spec = known or defense.substitute_prior()
        owner: Plugin = defense if known is None else attack
        if needs and spec is None:
            raise BlockedError(
                f"defense '{defense.name}' needs a prior, attack '{attack.name}' has none, and the defense "
                "names no substitute. Leave the pair out."
            )
        if spec is None:
            return Extra(inputs=inputs)
        if needs and not spec.has_critic:
            raise BlockedError(
                f"defense '{defense.name}' asks its prior how natural an image is, and the ready generator "
                f"of attack '{attack.name}' has no critic. Leave the pair out."
            )
        if needs and getattr(spec, "steps", None) == 0 and not defense.trains_on(spec):
            of, name = (
                (f"the prior of attack '{attack.name}'", "prior")
                if known
                else ("its substitute", "substitute")
            )
            raise BlockedError(
                f"defense '{defense.name}' would learn nothing from {of}, whose steps are 0. "
                f"Give {name}.steps, or leave the pair out."
            )
        if needs:
            inputs["prior"] = self.prior(owner, spec, "defender", seed)
        named = {"kind": spec.kind, "version": spec.version, **spec.as_key()}
        return Extra({"prior_spec": named}, inputs, {"prior_from": _owner(owner)})

    def public_net(self, seed: int) -> Key:
        """The defender's classifier of the people on the defender's public images."""
        choice = (self.suite.public_net or self.suite.victim).of_others()
        return self.add(
            "public_net",
            "public_net",
            params=choice.params(self.suite.data, self.suite.data.defender),
            inputs={"defender": self.data("defender")},
            seed=seed,
            title=f"public net {choice.net}",
            locator=choice.locator(),
        )

    def baseline(self, seed: int) -> Key:
        """The undefended victim."""
        return self.add(
            "train",
            BASELINE,
            params={"defense": {}, **self._victim_params},
            inputs={"private": self.data("private")},
            seed=seed,
            title="train undefended",
            locator=self.suite.victim.locator(),
        )

    def victim(
        self,
        attack: Attack[Any],
        defense: Defense,
        protected: tuple[int, ...],
        protects: tuple[int, ...],
        seed: int,
    ) -> tuple[Key, Key | None]:
        """Training and output step of one protected model.

        Each part of a composition has the task that it has alone, as far as it stands on the same ground.

        Args:
            attack: whose prior the defender may know.
            defense: what protects; a composition or any other.
            protected: all labels that the suite protects.
            protects: those that this model protects, for parts with one model a label.
            seed: of the suite.

        Raises:
            BlockedError: a part cannot act on the victim's net, or lacks what it needs.
        """
        net = self.suite.victim.spec(self.suite.data, self.suite.data.private)
        parts = []
        for one in parts_of(defense):
            misfit = one.misfit(net)
            if misfit:
                raise BlockedError(f"defense '{one.name}': {misfit}")
            labels = protects if one.per_target else protected
            parts.append((one, self.defender(attack, one, seed), labels))
        train = output = None
        for one, extra, labels in parts:
            train = self.train(one, extra, labels, train, seed)
        train = train or self.baseline(seed)
        for one, extra, labels in parts:
            output = self.output(one, extra, labels, train, seed) or output
        return train, output

    def train(
        self, defense: Defense, extra: Extra, protects: tuple[int, ...], base: Key | None, seed: int
    ) -> Key | None:
        """The protected model; `base`, what was trained before, where the defense changes no training."""
        if not acts_on_model(type(defense)):
            return base
        inputs = {"private": self.data("private"), "defender": self.data("defender"), **extra.inputs}
        params = {"defense": defense.key_params(), **self._victim_params}
        if defense.starts_from == "trained":
            inputs["base"] = base or self.baseline(seed)
            params |= self._onto(inputs["base"])
        return self.add_plugin(
            "train",
            defense,
            params={**params, "protects": list(protects), **extra.params},
            inputs=inputs,
            seed=seed,
            title=f"train {defense.name}{_label(defense, protects)}{self._after(base, defense)}",
            locator={**extra.locator, **self.suite.victim.locator()},
        )

    @property
    def _victim_params(self) -> dict[str, Any]:
        return self.suite.victim.params(self.suite.data, self.suite.data.private)

    def _onto(self, base: Key) -> dict[str, Any]:
        """The defense that trained the net to start from, which may have reshaped it; nothing if none did."""
        task = self.tasks[base]
        if task.plugin == BASELINE:
            return {}
        maker = {"plugin": task.plugin, "source": task.source, "defense": task.params["defense"]}
        return {"onto": maker}

    def _after(self, base: Key | None, defense: Defense) -> str:
        """Words for a title: the other defense that trained the net before, if one did."""
        plugin = BASELINE if base is None else self.tasks[base].plugin
        return "" if plugin in {BASELINE, defense.name} else f", after {plugin}"

    def output(
        self, defense: Defense, extra: Extra, protects: tuple[int, ...], train: Key, seed: int
    ) -> Key | None:
        """The output step of a defense that has one."""
        if not (overrides(defense, "learn_output", Defense) or overrides(defense, "protect", Defense)):
            return None
        recipe = {"recipe": dataclasses.asdict(self.suite.victim.recipe)}
        return self.add_plugin(
            "output",
            defense,
            params={"defense": defense.key_params(), **recipe, "protects": list(protects), **extra.params},
            inputs={
                "train": train,
                "private": self.data("private"),
                "defender": self.data("defender"),
                **extra.inputs,
            },
            seed=seed,
            title=f"output of {defense.name}{_label(defense, protects)}{self._after(train, defense)}",
            locator=extra.locator,
        )

    def adapt(self, attack: Attack[Any], prior: Key | None, seen: Seen, seed: int) -> Key | None:
        """The prior adapted to one victim, for attacks that do so."""
        has_student = isinstance(attack.adaptive, Adaptive) and attack.adaptive.student is not None
        if not (overrides(attack, "adapt_prior", Attack) or has_student):
            return None
        return self.add_plugin(
            "adapt",
            attack,
            params={"attack": attack.key_params(), "view": seen.view},
            inputs={**seen.inputs, "public": self.data("public"), **({"prior": prior} if prior else {})},
            seed=seed,
            title=f"adapt {attack.name} to {self.tasks[seen.model].title}",
        )

    def invert(
        self, attack: Attack[Any], prior: Key | None, seen: Seen, targets: tuple[int, ...], seed: int
    ) -> Key:
        """The attack itself."""
        return self.add_plugin(
            "invert",
            attack,
            params={
                "attack": attack.key_params(),
                "view": seen.view,
                "targets": list(targets),
                "images": self.suite.targets.images,
                "max_queries": self.suite.limits.max_queries,
            },
            inputs={
                **seen.inputs,
                **({"prior": prior} if prior else {}),
                # the stage hands on what the victim releases for these images, never the images
                **({"private": self.data("private")} if attack.goal == "instance" else {}),
            },
            seed=seed,
            title=f"invert {attack.name} against {self.tasks[seen.model].title}",
        )

    def add_plugin(
        self,
        stage: str,
        plugin: Plugin,
        *,
        params: dict[str, Any],
        inputs: dict[str, Key],
        seed: int,
        title: str,
        locator: dict[str, Any] | None = None,
    ) -> Key:
        """A task whose work a plugin does."""
        return self.add(
            stage,
            plugin.name,
            version=plugin.version,
            source=source_digest(type(plugin)),
            params=params,
            inputs=inputs,
            seed=seed,
            title=title,
            locator=locator,
        )

    def add(
        self,
        stage: str,
        plugin: str,
        *,
        params: dict[str, Any],
        title: str,
        version: int = 1,
        source: str = "",
        inputs: dict[str, Key] | None = None,
        seed: int = 0,
        noise: str = "",
        locator: dict[str, Any] | None = None,
    ) -> Key:
        """The key of a task that is now in the graph."""
        task = Task(
            stage=stage,
            plugin=plugin,
            version=version,
            source=source,
            params=params,
            inputs=inputs or {},
            seed=seed,
            noise=noise or plugin,
            title=title,
            locator={"max_batch": self.suite.limits.max_batch, **(locator or {})},
        )
        return self.tasks.setdefault(task.key, task).key


def _label(defense: Defense, protects: tuple[int, ...]) -> str:
    """Words for a title: the label that a model protects, where each label has its own."""
    return f", label {protects[0]}" if defense.per_target else ""


def _owner(plugin: Plugin) -> dict[str, Any]:
    """Where a worker process finds the prior spec of a plugin again."""
    family = "attack" if isinstance(plugin, Attack) else "defense"
    return {"family": family, "name": plugin.name, "params": plugin.params()}
