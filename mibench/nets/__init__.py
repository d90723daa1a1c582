"""Networks: classifiers by name, and the parts that attacks and defenses train."""

from __future__ import annotations

from difflib import get_close_matches

import torch

from mibench.errors import UnknownPluginError
from mibench.nets.classifier import Classifier, NetSpec, as_channels_last, center
from mibench.nets.dcgan import Critic, DcganGenerator
from mibench.nets.resnet import SmallResnet
from mibench.nets.seeding import he_init, seeded
from mibench.nets.style import StyleDiscriminator, StyleGenerator
from mibench.nets.vgg import SmallVgg, Vgg16, Vgg16Bn

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "Critic",
    "DcganGenerator",
    "NetSpec",
    "SmallResnet",
    "SmallVgg",
    "StyleDiscriminator",
    "StyleGenerator",
    "Vgg16",
    "Vgg16Bn",
    "as_channels_last",
    "build",
    "center",
    "he_init",
    "seeded",
]

CLASSIFIERS: dict[str, type[Classifier]] = {
    "small_resnet": SmallResnet,
    "small_vgg": SmallVgg,
    "vgg16": Vgg16,
    "vgg16_bn": Vgg16Bn,
}


def build(spec: NetSpec, generator: torch.Generator) -> Classifier:
    """A classifier on the CPU, channels last, with weights drawn from `generator` alone.

    Args:
        spec: the architecture.
        generator: a CPU generator; it advances by one draw. The global random state stays.

    Raises:
        UnknownPluginError: no classifier is called spec.name.
        ValueError: the architecture cannot take the spec's size or width.
    """
    if spec.name not in CLASSIFIERS:
        close = get_close_matches(spec.name, CLASSIFIERS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UnknownPluginError(f"unknown network '{spec.name}'.{hint} There are: {', '.join(CLASSIFIERS)}.")
    with seeded(generator):
        net = CLASSIFIERS[spec.name](spec)
    as_channels_last(net)
    return net
