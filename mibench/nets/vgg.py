"""VGG classifiers: the 13 convolutions of VGG-16 with one linear head, and a small relative.

Source: Simonyan and Zisserman, ICLR 2015 (arXiv:1409.1556). The victims of the model-inversion
papers keep its convolutions and replace the three large linear layers by one (Chen et al.,
ICCV 2021: flatten 512 x 2 x 2 at 64 px, normalize, one linear layer to K).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mibench.nets.classifier import Classifier, NetSpec, center
from mibench.nets.published import Published, imagenet_scale
from mibench.nets.seeding import he_init
from mibench.nets.shapes import pool_to

_WIDTH = 64
_SMALL_WIDTH = 16
_CONVS = (2, 2, 3, 3, 3)
_MULTIPLES = (1, 2, 4, 8, 8)
_SMALL_MULTIPLES = (1, 2, 4, 4)


def _stage(inputs: int, outputs: int, *, convs: int, norm: bool) -> nn.Sequential:
    """`convs` times conv 3x3, norm, ReLU, and one 2x2 max-pool: (N, inputs, H, W) to half size."""
    layers: list[nn.Module] = []
    for source in (inputs, *[outputs] * (convs - 1)):
        layers.append(nn.Conv2d(source, outputs, 3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.MaxPool2d(2))


class Vgg16(Classifier):
    """VGG-16 without normalization and with one linear head; spec.width 0 means 64.

    Hidden blocks: the first four stages after pooling, then the flattened fifth. From 64 px on
    the last map is averaged to 2x2 (feature_dim 2048), below it is 1x1 (512).

    Raises:
        ValueError: spec.size < 32, where five poolings leave nothing.
    """

    has_norm = False

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.size < 32:
            raise ValueError(f"vgg16: five poolings need 32 px, got {spec.size}. Take 'small_vgg'.")
        width = spec.width or _WIDTH
        widths = [spec.channels, *(width * multiple for multiple in _MULTIPLES)]
        self.cells = 2 if spec.size >= 64 else 1
        self.feature_dim = widths[-1] * self.cells**2
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, convs=convs, norm=self.has_norm)
            for (inputs, outputs), convs in zip(pairwise(widths), _CONVS)
        )
        self.norm: nn.Module = nn.BatchNorm1d(self.feature_dim) if self.has_norm else nn.Identity()
        self.head = nn.Linear(self.feature_dim, spec.num_classes)
        he_init(self)

    def published(self) -> Published:
        """Names of torchvision's VGG-16, whose layers stand in one row; its three linear layers stay out."""
        layers = [(s, i) for s, stage in enumerate(self.stages) for i, _ in enumerate(stage.children())]
        scale, shift = imagenet_scale()
        return Published(
            source=f"torchvision's {'vgg16_bn' if self.has_norm else 'vgg16'}",
            parts=tuple((f"features.{place}", f"stages.{s}.{i}") for place, (s, i) in enumerate(layers)),
            dropped=("classifier.",),
            scale=scale,
            shift=shift,
        )

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the five stages, the last one flattened to (N, feature_dim)."""
        hidden, out = self.scaled(x), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out[:-1], self.norm(pool_to(hidden, self.cells).flatten(1)))


class Vgg16Bn(Vgg16):
    """VGG-16 with batch normalization after each convolution and on the flattened feature."""

    has_norm = True


class SmallVgg(Classifier):
    """Four stages of one conv 3x3, batch norm, ReLU and max-pool each; spec.width 0 means 16.

    Widths w, 2w, 4w, 4w; 3.4 million multiply-adds per 32 px image at width 16. The last map is
    averaged to 2x2, so feature_dim is 16w.

    Raises:
        ValueError: spec.size < 16, where four poolings leave nothing.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.size < 16:
            raise ValueError(f"small_vgg: four poolings need 16 px, got {spec.size}.")
        width = spec.width or _SMALL_WIDTH
        widths = [spec.channels, *(width * multiple for multiple in _SMALL_MULTIPLES)]
        self.feature_dim = widths[-1] * 4
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, convs=1, norm=True) for inputs, outputs in pairwise(widths)
        )
        self.head = nn.Linear(self.feature_dim, spec.num_classes)
        he_init(self)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the four stages, the last one flattened to (N, feature_dim)."""
        hidden, out = center(x), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out[:-1], pool_to(hidden, 2).flatten(1))
