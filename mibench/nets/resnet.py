"""A small residual net with pre-activation blocks: the usual judge at 32 px.

Source of the block: He et al., ECCV 2016 (arXiv:1603.05027). The stem halves the image, which
makes one image cost 3.2 million multiply-adds at 32 px and width 16.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import Classifier, NetSpec, center
from mibench.nets.seeding import he_init
from mibench.nets.shapes import project

_WIDTH = 16
_MULTIPLES = (1, 2, 4)


class _Block(nn.Module):
    """Norm, ReLU, conv 3x3, twice, around a shortcut: (N, inputs, H, W) to (N, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.short: nn.Module = (
            nn.Identity() if stride == 1 and inputs == outputs else project(inputs, outputs, stride=stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        out: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        # An identity shortcut carries the raw input, a projected one the activated input.
        short: Tensor = x if isinstance(self.short, nn.Identity) else self.short(active)
        return out + short


class SmallResnet(Classifier):
    """A strided stem and three pre-activation stages of one block each; spec.width 0 means 16.

    Widths w, 2w, 4w; the feature is the spatial mean of the last activated map, feature_dim 4w.
    Hidden blocks: the outputs of the three stages, then the feature.

    Raises:
        ValueError: spec.size < 16.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.size < 16:
            raise ValueError(f"small_resnet: needs 16 px, got {spec.size}.")
        width = spec.width or _WIDTH
        widths = [width, *(width * multiple for multiple in _MULTIPLES)]
        self.feature_dim = widths[-1]
        self.stem = nn.Conv2d(spec.channels, width, 3, 2, 1, bias=False)
        self.stages = nn.ModuleList(
            _Block(inputs, outputs, stride=1 if stage == 0 else 2)
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
