"""Networks: classifiers by name, and the parts that attacks and defenses train."""

from __future__ import annotations

from difflib import get_close_matches

import torch

from mibench.errors import UnknownPluginError
from mibench.nets.classifier import Classifier, NetSpec, as_channels_last, center
from mibench.nets.convnext import SmallConvnext
from mibench.nets.dcgan import Critic, DcganGenerator
from mibench.nets.facenet import InceptionResnetV1
from mibench.nets.flops import count_macs
from mibench.nets.flows import CouplingFlow
from mibench.nets.inversion_gan import InversionDiscriminator, MinibatchDiscrimination
from mibench.nets.inversion_net import InversionNet, prepare_prediction
from mibench.nets.ir50 import Ir50
from mibench.nets.mlp import Mlp, SoftmaxRegression
from mibench.nets.residual import Residual, last_skips
from mibench.nets.resnet import SmallResnet, SmallResnet14
from mibench.nets.seeding import he_init, seeded
from mibench.nets.style import StyleDiscriminator, StyleGenerator
from mibench.nets.styled import StyledGenerator, from_p, to_p
from mibench.nets.vgg import SmallVgg, Vgg16, Vgg16Bn

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "CouplingFlow",
    "Critic",
    "DcganGenerator",
    "InceptionResnetV1",
    "InversionDiscriminator",
    "InversionNet",
    "Ir50",
    "MinibatchDiscrimination",
    "Mlp",
    "NetSpec",
    "Residual",
    "SmallConvnext",
    "SmallResnet",
    "SmallResnet14",
    "SmallVgg",
    "SoftmaxRegression",
    "StyleDiscriminator",
    "StyleGenerator",
    "StyledGenerator",
    "Vgg16",
    "Vgg16Bn",
    "as_channels_last",
    "build",
    "center",
    "count_macs",
    "from_p",
    "he_init",
    "last_skips",
    "prepare_prediction",
    "seeded",
    "to_p",
]

CLASSIFIERS: dict[str, type[Classifier]] = {
    "inception_resnet_v1": InceptionResnetV1,
    "ir50": Ir50,
    "mlp": Mlp,
    "small_convnext": SmallConvnext,
    "small_resnet": SmallResnet,
    "small_resnet14": SmallResnet14,
    "small_vgg": SmallVgg,
    "softmax_regression": SoftmaxRegression,
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
