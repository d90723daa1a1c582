"""Random dropout of a victim's blocks, so that what a search finds does not hang on one net.

A poor man's ensemble: in every step another random set of convolutional blocks, and perhaps the feature
before the linear head, loses some of its channels. Weights, buffers and modes of the net stay as they are:
the masks are applied by hooks that are gone when the logits are there.

Source: An et al., NDSS 2022, the authors' VGG-16 with dropout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mibench.nets.classifier import Classifier
from mibench.noise import Noise
from mibench.victim import Released

# rate by the number of blocks (of linear layers) that are dropped at once: the authors' values
BLOCK_RATES = (0.0, 0.5, 0.2, 0.2, 0.1, 0.1)
FEATURE_RATE = 0.6
_DRAWS = len(BLOCK_RATES) - 1


def with_dropout(net: Classifier, noise: Noise, *, step: int) -> Callable[[Released], Released]:
    """The change of a white-box victim's view that drops channels of its net, for `victim.seen_through`.

    Args:
        net: the victim's net; its convolutional blocks are what its `stages` hold, and there is one linear
            layer, its head.
        noise: one stream for each image that the view will be asked about.
        step: number of the draw.
    """
    stages = [
        stage
        for name, part in net.named_modules()
        if name.split(".")[-1] == "stages"
        for stage in part.children()
    ]
    rates = block_rates(noise, len(stages), step=step)

    def change(view: Released) -> Released:
        def dropped(x: Tensor) -> Tensor:
            handles = _hooked(net, stages, rates, noise, step)
            try:
                return view(x)
            finally:
                for handle in handles:
                    handle.remove()

        return dropped

    return change


def block_rates(noise: Noise, blocks: int, *, step: int) -> Tensor:
    """Dropout rate (B, blocks), float32, of each block for each row.

    One to five draws with replacement among the blocks and "none"; the rate hangs on how many different
    blocks were drawn. More than five cannot be.
    """
    u = noise.uniform("dropped blocks", 1 + _DRAWS, step=step)
    count = (u[:, :1] * _DRAWS).ceil()  # 1 to 5, as u lies in (0, 1]
    drawn = (u[:, 1:] * (blocks + 1)).ceil().long() - 1
    drawn = drawn.where(torch.arange(_DRAWS) < count, blocks)  # the last number means none
    chosen = torch.zeros(len(noise), blocks + 1).scatter(1, drawn, 1.0)[:, :blocks]
    return chosen * torch.tensor(BLOCK_RATES)[chosen.sum(1).long()][:, None]


def _hooked(
    net: Classifier, stages: list[nn.Module], rates: Tensor, noise: Noise, step: int
) -> list[RemovableHandle]:
    """Handles of hooks that drop channels of the stages' outputs and of the feature."""

    def after(number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def hook(_module: nn.Module, _args: Any, out: Tensor) -> Tensor:  # noqa: ANN401 (torch's own signature)
            return _drop(out, rates[:, number], noise, f"dropout {number}", step)

        return hook

    # one to two draws among the linear layers and "none": with one layer, at least one hit in either case
    u = noise.uniform("dropped feature", 3, step=step)
    is_hit = (u[:, 1] <= 0.5) | ((u[:, 0] <= 0.5) & (u[:, 2] <= 0.5))

    def before_head(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_drop(args[0], is_hit * FEATURE_RATE, noise, "dropout of the feature", step), *args[1:])

    handles = [stage.register_forward_hook(after(number)) for number, stage in enumerate(stages)]
    return [*handles, net.head.register_forward_pre_hook(before_head)]


def _drop(x: Tensor, rate: Tensor, noise: Noise, purpose: str, step: int) -> Tensor:
    """Maps or features x (B, C, ...) without a share `rate` (B,) of their channels, the rest scaled up."""
    kept = (noise.uniform(purpose, x.shape[1], step=step) > rate[:, None]) / (1 - rate[:, None])
    return x * kept.to(x).view(*x.shape[:2], *[1] * (x.dim() - 2))
