"""Which of a net's weights come first on the way from image to logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.nets.classifier import Classifier


def weights_before_block(net: Classifier, blocks: int, x: Tensor) -> list[str]:
    """Names of the parameters that the first `blocks` hidden blocks hang on.

    Args:
        net: in eval mode; stays as it is.
        blocks: how many, >= 1.
        x: an image (1, C, H, W).

    Raises:
        ValueError: the net has fewer blocks, or no weights lie before this one.
    """
    asked = {name: p.requires_grad for name, p in net.named_parameters()}
    try:
        net.requires_grad_(True)
        with torch.enable_grad():
            hidden = net.blocks(x)
            if blocks > len(hidden):
                raise ValueError(
                    f"net '{net.spec.name}': it has {len(hidden)} hidden blocks, not {blocks}. Take fewer."
                )
            reached = hidden[blocks - 1]
            if not reached.requires_grad:
                raise ValueError(f"net '{net.spec.name}': no weights lie before its block {blocks}.")
            slopes = torch.autograd.grad(reached.sum(), list(net.parameters()), allow_unused=True)
    finally:
        for name, p in net.named_parameters():
            p.requires_grad_(asked[name])
    return [name for name, slope in zip(asked, slopes) if slope is not None]


def layers_in_order(net: Classifier, x: Tensor) -> list[str]:
    """Names of the modules that own parameters, the head's left out, in the order in which x meets them.

    Args:
        net: in eval mode; stays as it is.
        x: an image (1, C, H, W).
    """
    met: list[str] = []

    def remember(name: str) -> None:
        if name not in met:
            met.append(name)

    handles = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: remember(name))
        for name, module in net.named_modules()
        if owns_weights(module)
    ]
    try:
        with torch.no_grad():
            net.features(x)
    finally:
        for handle in handles:
            handle.remove()
    return met


def owns_weights(module: nn.Module) -> bool:
    """Whether a module holds parameters itself, not through its parts."""
    return any(True for _ in module.parameters(recurse=False))
