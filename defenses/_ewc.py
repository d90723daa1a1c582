"""Elastic weight consolidation: what a net has learned holds its weights in place while it learns more.

Each weight is tied to its old value by a spring whose stiffness is the weight's Fisher information on the
old data. Source: Kirkpatrick et al., PNAS 2017 (arXiv:1612.00796), equation 3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from mibench.data.split import Labeled

_MAX_GRADIENT_NUMBERS = 2**24  # 64 MiB of per-image gradients at once


def fisher_diagonal(net: nn.Module, data: Labeled, *, max_batch: int) -> dict[str, Tensor]:
    """Diagonal of the empirical Fisher information of each parameter, by name, float32, >= 0.

    The mean over images of the *squared* gradient of log p(label | image), image by image. The square of a
    batch's mean gradient is something else: gradients of different images cancel in it.

    Args:
        net: in eval mode, else images would meet in BatchNorm; logits (N, K) of images (N, C, H, W).
        data: M images with their labels, anywhere.
        max_batch: images in one chunk at most; large nets get smaller chunks.
    """
    params = {name: value.detach() for name, value in net.named_parameters()}
    buffers = dict(net.named_buffers())
    device = next(iter(params.values())).device

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(net, (weights, buffers), (x[None],))
        return F.cross_entropy(logits, y[None])

    slopes = vmap(grad(loss), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    numbers = sum(value.numel() for value in params.values())
    chunk = max(1, min(max_batch, _MAX_GRADIENT_NUMBERS // numbers))
    for x, y in zip(data.images.split(chunk), data.labels.split(chunk)):
        for name, value in slopes(params, x.to(device), y.to(device)).items():
            total[name] += value.square().sum(0)
    return {name: value / len(data) for name, value in total.items()}


def mean_of(importance: dict[str, Tensor]) -> float:
    """Mean over all numbers of all tensors."""
    total = sum(float(value.sum()) for value in importance.values())
    return total / sum(value.numel() for value in importance.values())


class Anchor:
    """Ties a net's parameters to the values that they have now.

    The penalty is sum_i stiffness_i / 2 * (theta_i - theta*_i)^2.

    Args:
        net: the net to tie.
        stiffness: one number >= 0 for each parameter, by name.
    """

    def __init__(self, net: nn.Module, stiffness: dict[str, Tensor]) -> None:
        self.ties = [
            (value, value.detach().clone(), stiffness[name]) for name, value in net.named_parameters()
        ]

    def penalty(self) -> Tensor:
        """The penalty of the parameters as they are (scalar), differentiable."""
        terms = [(hold * (value - start).square()).sum() for value, start, hold in self.ties]
        return 0.5 * torch.stack(terms).sum()

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Adam) -> None:
        """Take the penalty's share of a step that Adam has just made without it.

        The exact minimum of penalty + distance to Adam's result, measured in Adam's own metric
        sqrt(v) + eps. It rests where loss + penalty has no slope, as Adam on their sum would, but no
        stiffness is too large for it, whereas a stiff penalty inside the loss keeps Adam trembling by its
        learning rate.
        """
        for (value, start, hold), (lr, metric) in zip(self.ties, _metric(optimizer), strict=True):
            value.lerp_(start, lr * hold / (metric + lr * hold))


def _metric(optimizer: torch.optim.Adam) -> Iterator[tuple[float, Tensor]]:
    """Learning rate and the denominator of Adam's last step, for each parameter in order."""
    for group in optimizer.param_groups:
        _, beta = group["betas"]
        for value in group["params"]:
            state = optimizer.state[value]
            if not state:  # without a gradient it has not moved, so that any metric will do
                yield group["lr"], torch.ones_like(value)
                continue
            second = state["exp_avg_sq"] / (1 - beta ** float(state["step"]))
            yield group["lr"], second.sqrt() + group["eps"]
