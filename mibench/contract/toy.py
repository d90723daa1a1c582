"""The toy world of the checks: a few procedural people of 16 pixels, a victim, a judge, a defender's net."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch import Tensor

from mibench.data.split import Labeled
from mibench.data.synthetic import SynthFacesData
from mibench.defense import Released
from mibench.nets import NetSpec, build
from mibench.nets.classifier import Classifier
from mibench.noise import derive_seed
from mibench.plugin import Context
from mibench.training import Recipe, fit
from mibench.victim import LabelVictim, WhiteBoxVictim, freeze

PEOPLE = 4
RECIPE = Recipe(epochs=12, batch=16, shift=1)
_SIZE, _WIDTH = 16, 8


@dataclass(frozen=True)
class World:
    """Images of three disjoint groups of people, and nets that know them.

    Args:
        private: training images of the private people.
        test: other images of them.
        public: the attacker's images, without labels.
        defender: the defender's labeled images.
        net: the undefended victim, frozen.
        judge: another net of the private people, frozen.
        public_net: a net of the defender's people, frozen.
    """

    private: Labeled
    test: Labeled
    public: Tensor
    defender: Labeled
    net: Classifier
    judge: Classifier
    public_net: Classifier

    def victim(
        self,
        access: type[LabelVictim],
        *,
        max_queries: int | None = None,
        allowance: int | None = None,
    ) -> LabelVictim:
        """The undefended victim behind exactly this access level."""
        options: dict[str, Any] = {"max_queries": max_queries, "allowance": allowance, "max_batch": 64}
        if issubclass(access, WhiteBoxVictim):
            return access(Released(self.net), self.net, **options)
        spec = self.net.spec
        shape = (spec.channels, spec.size, spec.size)
        return access(Released(self.net), shape=shape, num_classes=spec.num_classes, **options)


def context(purpose: str, *, seed: int = 0, max_batch: int = 64) -> Context:
    """A context on the CPU whose randomness hangs on purpose and seed alone."""
    return Context(seed=derive_seed(seed, "contract", purpose), max_batch=max_batch)


@cache
def toy_world(channels: int = 3) -> World:
    """The world with color (3) or gray (1) images; made once a process."""
    data = SynthFacesData(
        size=_SIZE,
        channels=channels,
        private=PEOPLE,
        private_images=24,
        test_images=6,
        public=16,
        public_images=4,
        defender=6,
        defender_images=8,
    )
    private, test = data.load("private")
    defender = data.load("defender")[0]
    if test is None:
        raise RuntimeError("procedural faces give test images of private people")
    return World(
        private=private,
        test=test,
        public=data.load("public")[0].images,
        defender=defender,
        net=trained("small_vgg", private, "victim"),
        judge=trained("small_resnet", private, "judge"),
        public_net=trained("small_vgg", defender, "public net"),
    )


def untrained(data: Labeled, purpose: str, name: str = "small_vgg") -> Classifier:
    """A small net for some people, with weights that hang on the purpose alone."""
    return build(spec_of(data, name), context(purpose).generator("initial weights"))


def spec_of(data: Labeled, name: str) -> NetSpec:
    """The small net of a name for some people."""
    channels, size, _ = data.shape
    count = int(data.labels.max()) + 1
    return NetSpec(name=name, width=_WIDTH, channels=channels, size=size, num_classes=count)


def trained(name: str, data: Labeled, purpose: str) -> Classifier:
    """That net, trained and frozen."""
    net = fit(untrained(data, purpose, name), data, context(purpose), recipe=RECIPE)
    freeze(net)
    return net


def copy_of(net: Classifier) -> Classifier:
    """A net of its own, with the same weights."""
    return copy.deepcopy(net)
