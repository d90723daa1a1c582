"""Small residual nets with pre-activation blocks: the usual judge at 32 px, and a deeper one.

Source of the block: He et al., ECCV 2016 (arXiv:1603.05027). The stem halves the image, which
makes one image cost 3.2 million multiply-adds at 32 px and width 16, and the deeper net 6.7 million.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import Classifier, NetSpec, center
from mibench.nets.residual import Residual
from mibench.nets.seeding import he_init
from mibench.nets.shapes import project

_WIDTH = 16
_MULTIPLES = (1, 2, 4)


class _Block(Residual):
    """Norm, ReLU, conv 3x3, twice, around a shortcut: (N, inputs, H, W) to (N, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.short: nn.Module = (
            nn.Identity() if stride == 1 and inputs == outputs else project(inputs, outputs, stride=stride)
        )

    @property
    def has_identity(self) -> bool:
        """False where the shortcut projects."""
        return isinstance(self.short, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        # An identity shortcut carries the raw input, a projected one the activated input.
        short: Tensor = x if self.has_identity else self.short(active)
        return self.join(out, short)


def _stage(inputs: int, outputs: int, *, stride: int, depth: int) -> nn.Module:
    """`depth` blocks, the first with the stride; one block stands alone, so that its names stay short."""
    first = _Block(inputs, outputs, stride=stride)
    if depth == 1:
        return first
    return nn.Sequential(first, *(_Block(outputs, outputs, stride=1) for _ in range(depth - 1)))


class SmallResnet(Classifier):
    """A strided stem and three pre-activation stages of one block each; spec.width 0 means 16.

    Widths w, 2w, 4w; the feature is the spatial mean of the last activated map, feature_dim 4w.
    Hidden blocks: the outputs of the three stages, then the feature.

    Raises:
        ValueError: spec.size < 16.
    """

    depth: ClassVar[int] = 1  # blocks in a stage

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.size < 16:
            raise ValueError(f"{spec.name}: needs 16 px, got {spec.size}.")
        width = spec.width or _WIDTH
        widths = [width, *(width * multiple for multiple in _MULTIPLES)]
        self.feature_dim = widths[-1]
        self.stem = nn.Conv2d(spec.channels, width, 3, 2, 1, bias=False)
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, stride=1 if stage == 0 else 2, depth=self.depth)
            for stage, (inputs, outputs) in enumerate(pairwise(widths))
        )
        self.norm = nn.BatchNorm2d(self.feature_dim)
        self.head = nn.Linear(self.feature_dim, spec.num_classes)
        he_init(self)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the three stages, then the feature (N, feature_dim)."""
        hidden, out = self.stem(center(x)), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out, F.relu(self.norm(hidden)).mean((2, 3)))


class SmallResnet14(SmallResnet):
    """`SmallResnet` with two blocks a stage, so that the last stage has an identity shortcut too."""

    depth = 2
    has_last_skip = True
