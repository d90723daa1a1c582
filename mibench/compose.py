"""Defenses put together: `a+b` is one defense that acts where its parts act, one after the other.

A part trains the net from scratch, fine-tunes the trained net, or changes what is released. Parts that act on
different steps do not touch each other's work: what is trained first is what the next part starts from, and
the output step is learned on what comes of it. Two that act on one step conflict.
"""

from __future__ import annotations

import keyword
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Any, ClassVar, Literal

from torch import nn

from mibench.adaptive import Weakness
from mibench.defense import DefenderView, Defense, State
from mibench.errors import PluginError
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Card, Context, Plugin
from mibench.prior import PriorSpec

Kind = Literal["training", "fine-tuning", "output"]
SIGN = "+"
_DEEDS: dict[Kind, str] = {
    "training": "train the net from scratch",
    "fine-tuning": "fine-tune the trained net",
    "output": "change what is released",
}
_ORDER = tuple(_DEEDS)  # of the steps of a model, and so of the parts of a composition


@dataclass(frozen=True, kw_only=True)
class Composition(Defense):
    """Several defenses as one; `compose` makes a class for each combination, with a field for each part.

    Used as any other defense: for its checks, and by who calls its steps by hand. A plan gives each part a
    task of its own instead, the very one of the part alone wherever that is the same work.
    """

    part_types: ClassVar[tuple[type[Defense], ...]] = ()

    @property
    def parts(self) -> tuple[Defense, ...]:
        """The configured parts, in the order in which they act."""
        return tuple(getattr(self, one.name) for one in self.part_types)

    def params(self) -> dict[str, Any]:
        """The fields of each part under its name."""
        return {one.name: one.params() for one in self.parts}

    def key_params(self) -> dict[str, Any]:
        """The fields of each part that enter a key, under its name."""
        return {one.name: one.key_params() for one in self.parts}

    @property
    def weaknesses(self) -> frozenset[Weakness]:
        """Those of any part."""
        return frozenset().union(*(one.weaknesses for one in self.parts))

    @classmethod
    def filled(cls, given: Mapping[str, Any], own: Mapping[str, Plugin]) -> dict[str, Any]:
        """Settings of every part that has any: those given, else those of a suite's own entry of the part.

        Args:
            given: tables of fields by name or alias of a part.
            own: the suite's other defenses by label.

        Raises:
            PluginError: a part is given twice, or several entries may be meant for one.
        """
        names = {word: one.name for one in cls.part_types for word in (one.name, *one.aliases)}
        settings: dict[str, Any] = {names.get(word, word): table for word, table in given.items()}
        if len(settings) < len(given):
            raise PluginError(f"defense '{cls.name}': two of {_words(given)} are one part. Leave one out.")
        for one in cls.part_types:
            fits = {label: entry for label, entry in own.items() if type(entry) is one}
            if one.name in settings or not fits:
                continue
            if one.name not in fits and len(fits) > 1:
                raise PluginError(
                    f"defense '{cls.name}': {_words(fits)} are each a '{one.name}', and none is called so. "
                    f"Give the table '{one.name}'."
                )
            settings[one.name] = fits.get(one.name, next(iter(fits.values()))).params()
        return settings

    def misfit(self, net: NetSpec) -> str:
        """What the first part that cannot act on the net says; empty where all can."""
        return next((text for one in self.parts if (text := one.misfit(net))), "")

    def trains_on(self, spec: PriorSpec) -> bool:
        """Whether any part does."""
        return any(one.trains_on(spec) for one in self.parts)

    def substitute_prior(self) -> PriorSpec | None:
        """The substitute of the first part that asks for a prior."""
        asking = (one for one in self.parts if "prior" in one.needs)
        return next((spec for one in asking if (spec := one.substitute_prior()) is not None), None)

    def prepare(self, net: Classifier) -> Classifier:
        """The net as the parts reshape it."""
        for one in self.parts:
            net = one.prepare(net)
        return net

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """The net as the training part leaves it, fine-tuned by the part that does so; see Defense.train."""
        for one in self.parts:
            if acts_on_model(type(one)):
                net = one.train(net, view, self._own(one, ctx))
        return net

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        """What the output part learns on the trained net; see Defense."""
        one = self._releasing()
        return {} if one is None else one.learn_output(net, view, self._own(one, ctx))

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        """The net behind the output part's step; plainly released where no part has one."""
        one = self._releasing()
        return (
            super().protect(net, state, ctx) if one is None else one.protect(net, state, self._own(one, ctx))
        )

    def _releasing(self) -> Defense | None:
        return next((one for one in self.parts if "output" in kinds_of(type(one))), None)

    def _own(self, part: Defense, ctx: Context) -> Context:
        # the first keeps the seed: switched off, it then meets the noise of no defense
        return ctx if part is self.parts[0] else ctx.child(part.name)


def parts_of(defense: Defense) -> tuple[Defense, ...]:
    """The parts of a composition in the order in which they act; any other defense is its only part."""
    return defense.parts if isinstance(defense, Composition) else (defense,)


def kinds_of(part: type[Defense]) -> tuple[Kind, ...]:
    """What a defense changes, told by the steps that it overrides, in the order in which they are taken."""
    fine_tunes = part.starts_from == "trained"
    found: dict[Kind, bool] = {
        "training": acts_on_model(part) and not fine_tunes,
        "fine-tuning": acts_on_model(part) and fine_tunes,
        "output": _overrides(part, "learn_output") or _overrides(part, "protect"),
    }
    return tuple(kind for kind, is_there in found.items() if is_there)


def acts_on_model(part: type[Defense]) -> bool:
    """Whether a defense has a training of its own, from scratch or on the trained net."""
    return _overrides(part, "prepare") or _overrides(part, "train")


def compose(parts: Sequence[type[Defense]]) -> type[Composition]:
    """The defense that is these parts together; the same class in whatever order they are named.

    Raises:
        PluginError: two parts change the same thing, one changes nothing or is named twice.
    """
    word = SIGN.join(one.name for one in parts)
    for one in parts:
        if parts.count(one) > 1:
            raise PluginError(f"defense '{word}': '{one.name}' is named twice. Name each part once.")
        if not kinds_of(one):
            rest = SIGN.join(other.name for other in parts if other is not one)
            raise PluginError(f"defense '{word}': '{one.name}' changes nothing. Write '{rest}'.")
        if not one.name.isidentifier() or keyword.iskeyword(one.name) or hasattr(Composition, one.name):
            raise PluginError(
                f"defense '{word}': '{one.name}' cannot name the table of a part. Rename that plugin."
            )
    for kind, deed in _DEEDS.items():
        owners = [one.name for one in parts if kind in kinds_of(one)]
        if len(owners) > 1:
            raise PluginError(
                f"defense '{word}': '{owners[0]}' and '{owners[1]}' both {deed}. Keep one of them."
            )
    ordered = sorted(parts, key=lambda one: _ORDER.index(kinds_of(one)[0]))
    _check_shapes(word, ordered)
    return _class_of(tuple(ordered))


def _check_shapes(word: str, ordered: Sequence[type[Defense]]) -> None:
    """PluginError where the net would change its shape between two trainings."""
    trainers = [one for one in ordered if acts_on_model(one)]
    if len(trainers) > 1 and _overrides(trainers[1], "prepare"):
        raise PluginError(
            f"defense '{word}': '{trainers[1].name}' reshapes the net that it fine-tunes, and "
            f"'{trainers[0].name}' trains it as it is. Keep one of them."
        )


@cache
def _class_of(parts: tuple[type[Defense], ...]) -> type[Composition]:
    """The class of a combination, made once, so that equal names give one class."""
    name = SIGN.join(one.name for one in parts)
    neutral = {one.name: one.neutral for one in parts}
    lines = "".join(f"\n    {one.name}: options of the part `{one.name}`." for one in parts)
    namespace: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"{' and '.join(f'`{one.name}`' for one in parts)} together.\n\nArgs:{lines}\n",
        "name": name,
        "version": max(one.version for one in parts),
        "card": _card(parts),
        "toy": {one.name: dict(one.toy) for one in parts},
        "neutral": None if None in neutral.values() else neutral,
        "part_types": parts,
        "acts": ", ".join(kind for kind in _ORDER if any(kind in kinds_of(one) for one in parts)),
        "knows": frozenset().union(*(one.knows for one in parts)),
        "needs": frozenset().union(*(one.needs for one in parts)),
        "per_target": any(one.per_target for one in parts),
        "starts_from": parts[0].starts_from,  # only one part changes nothing but the output, and it is last
        "keeps_label": any(one.keeps_label for one in parts),
        "weak_to": frozenset().union(*(one.weak_to for one in parts)),
    }
    fields = [(one.name, one, field(default_factory=one)) for one in parts]
    kind: type[Composition] = make_dataclass(
        "And".join(one.__name__ for one in parts),
        fields,
        bases=(Composition,),
        namespace=namespace,
        frozen=True,
        kw_only=True,
    )
    return kind


def _card(parts: tuple[type[Defense], ...]) -> Card:
    """Titles and papers of all parts, and the year of the newest; each part's card says what differs."""
    cards = [one.card for one in parts]
    return Card(
        title=" + ".join(card.title for card in cards),
        paper="; ".join(card.paper for card in cards if card.paper),
        year=max(card.year for card in cards),
        code=" ".join(card.code for card in cards if card.code),
    )


def _overrides(part: type[Defense], step: str) -> bool:
    return getattr(part, step) is not getattr(Defense, step)


def _words(names: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names)
