"""A small net unlike the others: depthwise 5x5 convolutions, one-group norm, GELU, no batch norm.

A judge that shares the victim's design shares its blind spots; this one is the second opinion.
Source of the block: Liu et al., CVPR 2022 (ConvNeXt, arXiv:2201.03545), with 5x5 for 7x7, which
suits maps of 4 to 16 px, a norm over whole maps, and no layer scale.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets.classifier import Classifier, NetSpec, center
from mibench.nets.residual import Residual

_WIDTH = 16
_MULTIPLES = (1, 2, 4)
_EXPANSION = 4  # ConvNeXt's
_KERNEL = 5


def _norm(channels: int) -> nn.GroupNorm:
    """A norm over all channels and pixels of an image.

    ConvNeXt's norm over channels alone would permute the maps to channels last, and Opacus'
    per-sample gradients of a convolution are wrong on such maps.
    """
    return nn.GroupNorm(1, channels)


class _Block(Residual):
    """Depthwise conv, norm, a two-layer perceptron per pixel, around an identity; same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, _KERNEL, padding=_KERNEL // 2, groups=channels)
        self.norm = _norm(channels)
        self.expand = nn.Conv2d(channels, channels * _EXPANSION, 1)
        self.reduce = nn.Conv2d(channels * _EXPANSION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.reduce(F.gelu(self.expand(self.norm(self.depthwise(x)))))
        return self.join(out, x)


class SmallConvnext(Classifier):
    """Three stages of one ConvNeXt-style block each, every one at half the size; spec.width 0 means 16.

    Widths w, 2w, 4w; 2 million multiply-adds per 32 px image at width 16. The feature is the
    normalized spatial mean of the last map, feature_dim 4w. Hidden blocks: the outputs of the
    three stages, then the feature.

    Raises:
        ValueError: spec.size < 16.
    """

    has_last_skip = True

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.size < 16:
            raise ValueError(f"small_convnext: needs 16 px, got {spec.size}.")
        width = spec.width or _WIDTH
        widths = [spec.channels, *(width * multiple for multiple in _MULTIPLES)]
        self.feature_dim = widths[-1]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 2, 2), _norm(outputs), _Block(outputs))
            for inputs, outputs in pairwise(widths)
        )
        self.norm = nn.LayerNorm(self.feature_dim)
        self.head = nn.Linear(self.feature_dim, spec.num_classes)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the three stages, then the feature (N, feature_dim)."""
        hidden, out = center(x), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out, self.norm(hidden.mean((2, 3))))
