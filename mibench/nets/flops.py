"""What one forward pass costs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass of `net` in eval mode; the net and its mode stay as they are.

    Counts convolutions and matrix products, which is what the counter of torch knows.

    >>> import torch
    >>> count_macs(nn.Linear(3, 5), torch.zeros(2, 3))
    30
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()  # a pass in training mode would move the statistics of batch norm
    try:
        with FlopCounterMode(display=False) as counter:
            net(x)
    finally:
        for module, was_training in modes:
            module.training = was_training
    return int(counter.get_total_flops()) // 2  # the counter takes one multiply-add for two
