"""IR-50, the improved residual net of face recognition, with a linear head.

Source: Deng et al., CVPR 2019 (ArcFace, arXiv:1801.07698, block "IR") as the face.evoLVe library
builds it: stages of 3, 4, 14 and 3 blocks, 112 px, a feature of 512 numbers.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mibench.nets.classifier import Classifier, NetSpec
from mibench.nets.published import Published
from mibench.nets.residual import Residual
from mibench.nets.seeding import he_init
from mibench.nets.shapes import project, resize

_WIDTH = 64
_MULTIPLES = (1, 1, 2, 4, 8)
_DEPTHS = (3, 4, 14, 3)
_SIZE = 112
_DROPOUT = 0.5  # face.evoLVe's, before the linear layer


class _Block(Residual):
    """BN, conv 3x3, PReLU, conv 3x3, BN around a shortcut: (N, inputs, H, W) to (N, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.short: nn.Module = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(project(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs))
        )
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    @property
    def has_identity(self) -> bool:
        """False where the shortcut projects, or pools with a stride."""
        return isinstance(self.short, nn.MaxPool2d) and self.short.stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        short: Tensor = self.short(x)
        return self.join(out, short)


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """`depth` blocks, the first of which halves height and width."""
    return nn.Sequential(
        _Block(inputs, outputs, stride=2), *(_Block(outputs, outputs, stride=1) for _ in range(depth - 1))
    )


class Ir50(Classifier):
    """IR-50 on images resized to 112 px; spec.width 0 means 64, and the feature has 8 times the width.

    Hidden blocks: the outputs of the four stages, then the normalized feature.
    """

    has_last_skip = True

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        width = spec.width or _WIDTH
        widths = [width * multiple for multiple in _MULTIPLES]
        self.feature_dim = widths[-1]
        self.stem = nn.Sequential(
            nn.Conv2d(spec.channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        self.stages = nn.ModuleList(
            _stage(inputs, outputs, depth) for (inputs, outputs), depth in zip(pairwise(widths), _DEPTHS)
        )
        cells = (_SIZE // 2 ** len(_DEPTHS)) ** 2
        self.embed = nn.Sequential(
            nn.BatchNorm2d(self.feature_dim),
            nn.Dropout(_DROPOUT),
            nn.Flatten(),
            nn.Linear(self.feature_dim * cells, self.feature_dim),
            nn.BatchNorm1d(self.feature_dim),
        )
        self.head = nn.Linear(self.feature_dim, spec.num_classes)
        he_init(self)

    def published(self) -> Published:
        """Names of face.evoLVe's backbone IR_50, trained on images in [-1, 1] (its config.py)."""
        blocks = [(s, i) for s, depth in enumerate(_DEPTHS) for i in range(depth)]
        parts = [("input_layer", "stem"), ("output_layer", "embed")]
        for place, (s, i) in enumerate(blocks):
            theirs, ours = f"body.{place}", f"stages.{s}.{i}"
            parts += [
                (f"{theirs}.res_layer", f"{ours}.body"),
                (f"{theirs}.shortcut_layer.0", f"{ours}.short.0.1"),  # ours pools before it
                (f"{theirs}.shortcut_layer.1", f"{ours}.short.1"),
            ]
        return Published(source="face.evoLVe's IR_50", parts=tuple(parts))

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the four stages, then the feature (N, feature_dim)."""
        hidden, out = self.stem(self.scaled(resize(x, _SIZE))), []
        for stage in self.stages:
            hidden = stage(hidden)
            out.append(hidden)
        return (*out, self.embed(hidden))
