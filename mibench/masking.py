"""Gradients that are hidden and not gone: which images have none, and where following them leads.

The signs follow Athalye et al., ICML 2018 (arXiv:1802.00420): gradients that are nothing, and attacks
without the net's own gradients that do better than attacks with them. `mibench.flags` draws the same signs
from records.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

View = Callable[[Tensor], Tensor]

_SILENT = 1e-9  # largest absolute gradient of a pixel, in nats, that counts as none at all


def silent(view: View, images: Tensor, wanted: Tensor) -> Tensor:
    """Whether the cross-entropy of each image has no gradient: (N,) bool, on the CPU.

    Args:
        view: images -> differentiable logits (N, K), as a white-box attacker sees them.
        images: (N, C, H, W), float32 in [0, 1].
        wanted: (N,), int64, on the images' device; the labels that an attacker would ask for.
    """
    x = images.detach().requires_grad_(True)
    loss = F.cross_entropy(view(x), wanted, reduction="sum")
    if not loss.requires_grad:  # an output step may cut the graph
        return torch.ones(len(x), dtype=torch.bool)
    (slope,) = torch.autograd.grad(loss, x)
    return slope.flatten(1).abs().amax(1).cpu() <= _SILENT


def climbed(view: View, images: Tensor, wanted: Tensor, *, steps: int, size: float) -> Tensor:
    """Images (N, C, H, W) in [0, 1] after some steps along the sign of the gradient towards labels (N,).

    Source: the basic iterative method of Kurakin et al., ICLR 2017 workshop (arXiv:1607.02533), without a
    bound on how far it goes. What has no gradient stays where it is.

    Args:
        view: images -> logits (N, K).
        images: where it starts; not changed.
        wanted: (N,), int64.
        steps: number of steps, >= 0.
        size: change of a pixel in a step, in [0, 1].
    """
    x = images.detach().clone()
    for _ in range(steps):
        x.requires_grad_(True)
        loss = F.cross_entropy(view(x), wanted, reduction="sum")
        if not loss.requires_grad:
            return x.detach()
        (slope,) = torch.autograd.grad(loss, x)
        x = (x.detach() - size * slope.sign()).clamp(0, 1)
    return x
