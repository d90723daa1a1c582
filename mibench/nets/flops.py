"""What one forward pass costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_Formula = Callable[[Tensor, Tensor, Tensor], int]  # of two factors and what they give


def count_macs(net: nn.Module, x: Tensor) -> int:
    """Multiply-adds of one forward pass of `net` in eval mode; the net and its mode stay as they are.

    Counts convolutions and matrix products, as the counter of torch does, which would load torch's compiler:
    more than a second, for every run that only looks what lies in its store.

    >>> import torch
    >>> count_macs(nn.Linear(3, 5), torch.zeros(2, 3))
    30
    """
    modes = [(module, module.training) for module in net.modules()]
    counter = _Counter()
    net.eval()  # a pass in training mode would move the statistics of batch norm
    try:
        with counter:
            net(x)
    finally:
        for module, was_training in modes:
            module.training = was_training
    return counter.macs


class _Counter(TorchFunctionMode):
    """Adds up the multiply-adds of the functions that are called while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - whatever torch calls
        types: Any,  # noqa: ANN401 - likewise
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - likewise
        """Call a function and add what it costs."""
        out = func(*args, **(kwargs or {}))
        if func in _FORMULAS:
            formula, first = _FORMULAS[func]
            self.macs += formula(args[first], args[first + 1], out)
        return out


def _convolution(_x: Tensor, weight: Tensor, out: Tensor) -> int:
    """Each value of the result sums over a window of the channels of its group."""
    return out.numel() * weight[0].numel()


def _transposed(x: Tensor, weight: Tensor, _out: Tensor) -> int:
    """Each value that comes in goes into a window of the channels of its group."""
    return x.numel() * weight[0].numel()


def _product(left: Tensor, _right: Tensor, out: Tensor) -> int:
    return out.numel() * left.shape[-1]


# the formula of a function, and at which of its arguments the factors begin
_FORMULAS: dict[object, tuple[_Formula, int]] = {
    torch.conv1d: (_convolution, 0),
    torch.conv2d: (_convolution, 0),
    torch.conv3d: (_convolution, 0),
    torch.conv_transpose1d: (_transposed, 0),
    torch.conv_transpose2d: (_transposed, 0),
    torch.conv_transpose3d: (_transposed, 0),
    functional.linear: (_product, 0),
    torch.matmul: (_product, 0),
    torch.mm: (_product, 0),
    Tensor.mm: (_product, 0),
    torch.bmm: (_product, 0),
    Tensor.bmm: (_product, 0),
    Tensor.matmul: (_product, 0),
    Tensor.__matmul__: (_product, 0),
    torch.addmm: (_product, 1),
    torch.baddbmm: (_product, 1),
}
