"""Inception-ResNet-v1 as the facenet-pytorch package builds it, with a linear head.

Source: Szegedy et al., AAAI 2017 (arXiv:1602.07261); the package's net gives 512 numbers per
face. Its weights are not downloaded here: all parameters start at random.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.published import Published
from mibench.nets.residual import Residual
from mibench.nets.shapes import resize

_LEAST_SIZE = 80  # below it the third reduction has no pixel left
_STAGES = (
    ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1"),
    ("mixed_6a", "repeat_2"),
    ("mixed_7a", "repeat_3", "block8"),
)


class _Block(Residual):
    """A block of the package's last stage; takes over its layers under their names, so states stay."""

    def __init__(self, block: Any) -> None:  # noqa: ANN401 - the package has no types
        super().__init__()
        self.branch0: nn.Module = block.branch0
        self.branch1: nn.Module = block.branch1
        self.conv2d: nn.Module = block.conv2d
        self.scale = float(block.scale)
        self.ends_active = not block.noReLU

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2d(torch.cat((self.branch0(x), self.branch1(x)), 1)) * self.scale
        joined = self.join(out, x)
        return F.relu(joined) if self.ends_active else joined


class InceptionResnetV1(Classifier):
    """Inception-ResNet-v1 on images of at least 80 px (smaller ones are enlarged).

    Hidden blocks: the ends of its three stages, then the normalized embedding, (N, 512), which is
    not scaled to unit length: a linear head needs its norm. Gray images are repeated to 3 channels.

    Raises:
        ValueError: spec.width is not 0; this net has one width.
    """

    feature_dim = 512
    has_last_skip = True

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.width:
            raise ValueError(f"inception_resnet_v1: has one width, got width {spec.width}. Leave it 0.")
        from facenet_pytorch import InceptionResnetV1 as Body

        body = _without_inplace(Body(pretrained=None, classify=False))
        body.repeat_3 = nn.Sequential(*(_Block(block) for block in body.get_submodule("repeat_3").children()))
        body.block8 = _Block(body.block8)
        self.stages = nn.ModuleList(
            nn.Sequential(*(body.get_submodule(name) for name in names)) for names in _STAGES
        )
        self.embed = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            *(body.get_submodule(name) for name in ("dropout", "last_linear", "last_bn")),
        )
        self.head = nn.Linear(self.feature_dim, spec.num_classes)

    def published(self) -> Published:
        """Names of the package, trained on (p - 127.5) / 128 of pixels p, `fixed_image_standardization`."""
        layers = [
            (name, f"stages.{s}.{i}") for s, names in enumerate(_STAGES) for i, name in enumerate(names)
        ]
        ends = [("last_linear", "embed.3"), ("last_bn", "embed.4"), ("logits", "head")]
        return Published(
            source="facenet-pytorch's InceptionResnetV1", parts=(*layers, *ends), scale=(127.5 / 128,)
        )

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the three stages, then the embedding (N, 512)."""
        hidden, out = self.scaled(resize(x, max(x.shape[-1], _LEAST_SIZE))).expand(-1, 3, -1, -1), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out, self.embed(hidden))


def _without_inplace(net: nn.Module) -> nn.Module:
    """The same net with every in-place activation replaced by its out-of-place form."""
    for module in net.modules():
        if isinstance(module, nn.ReLU | nn.Dropout):
            module.inplace = False
    return net
