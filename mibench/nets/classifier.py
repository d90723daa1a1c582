"""The interface that every victim and judge offers: blocks, features, head, logits."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mibench.memory import in_chunks
from mibench.nets.published import Published
from mibench.precision import exact

_INPUT_MAP = ("input_scale", "input_shift")


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """What it takes to build a classifier, and nothing else: the key of its architecture.

    Args:
        name: registry name of the architecture, see `mibench.nets.CLASSIFIERS`.
        width: channels of the first stage; 0 takes the architecture's published width.
        channels: image channels, 1 or 3.
        size: image height and width in pixels.
        num_classes: number of identities K, >= 2.
    """

    name: str
    width: int = 0
    channels: int = 3
    size: int = 32
    num_classes: int = 2


class Classifier(nn.Module):
    """A classifier of images in [0, 1], split where defenses and metrics look.

    Contract: `forward(x) == head(features(x))`; `features(x) == blocks(x)[-1]`, flattened to
    (N, feature_dim). Each net normalizes and resizes its own input, has no in-place operation
    (per-sample gradients of DP-SGD need that) and no spectral norm. `has_last_skip` tells, without a net
    being built, whether `mibench.nets.residual.last_skips` finds a block.

    A net that started from published weights may expect another scale of images than [-1, 1]. It then has
    `input_scale` and `input_shift`, (C, 1, 1) each, which its state holds and brings back; no other state
    has them. They are not folded into the first convolution, because that pads with zeros, which stand for
    another color on either scale.
    """

    has_last_skip: ClassVar[bool] = False
    spec: NetSpec
    feature_dim: int
    head: nn.Module
    input_scale: Tensor | None
    input_shift: Tensor | None

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        for name in _INPUT_MAP:
            self.register_buffer(name, None)

    def published(self) -> Published | None:
        """The names of the checkpoints that others publish for this net; None where nobody does."""
        return None

    def set_input_map(self, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        """Let `scaled` give centered images times `scale` plus `shift`, of each channel or of all."""
        self.input_scale, self.input_shift = (torch.tensor(one).view(-1, 1, 1) for one in (scale, shift))

    def scaled(self, x: Tensor) -> Tensor:
        """Images x (N, C, H, W) in [0, 1] on the scale that the weights expect, [-1, 1] if no other."""
        centered = center(x)
        if self.input_scale is None or self.input_shift is None:
            return centered
        return centered * self.input_scale + self.input_shift

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401 - torch's own hook
        for name in _INPUT_MAP:
            if getattr(self, name) is None and prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @abstractmethod
    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """Hidden activations of x (N, C, H, W), float32 in [0, 1], from shallow to deep.

        The last one is the penultimate feature, (N, feature_dim); the others are (N, C', H', W').
        """

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features of x, (N, feature_dim), float32."""
        return self.blocks(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x, (N, num_classes), float32."""
        logits: Tensor = self.head(self.features(x))
        return logits


def head_logits(net: Classifier, features: Tensor, *, max_batch: int) -> Tensor:
    """The logits (N, num_classes) that a net's head gives to features (N, feature_dim); on the CPU.

    Args:
        net: any classifier; it computes where its parameters are, without a gradient.
        features: float32.
        max_batch: rows of one pass, >= 1.
    """
    device = next(net.parameters()).device

    def told(part: Tensor) -> Tensor:
        logits: Tensor = net.head(part.to(device))
        return logits.cpu()

    with torch.no_grad(), exact(device):
        return in_chunks(told, features, rows=max_batch, what="heads of nets")


def center(x: Tensor) -> Tensor:
    """Images in [0, 1] mapped to [-1, 1], the range that our nets compute in."""
    return x * 2.0 - 1.0


def as_channels_last(net: nn.Module) -> nn.Module:
    """The same net with its convolution weights laid out channels last (measured 2x faster on CPU)."""
    return net.to(memory_format=torch.channels_last)
