"""Floating-point operations of whatever runs inside a block, by the precision that they ran in.

Formulas are those of torch's own counter (`torch.utils.flop_counter`): convolutions, matrix products and
attention, forward and backward, a multiply-add as two. That counter adds up all precisions; here they are
kept apart, since a card's peak differs between them by more than ten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

FLOAT32, TENSOR_FLOAT = "float32", "tf32"
_ATEN = torch.ops.aten
_CONVOLUTIONS = frozenset(
    {_ATEN.convolution, _ATEN._convolution, _ATEN.convolution_backward, _ATEN.cudnn_convolution}
)


class FlopCounter(TorchDispatchMode):
    """Counts while it is entered; `flops` holds operations by precision.

    Precisions are names of dtypes, and `tf32` for float32 on CUDA where torch may round it to that.

    >>> with FlopCounter() as counter:
    ...     product = torch.ones(2, 3) @ torch.ones(3, 5)
    >>> dict(counter.flops)
    {'float32': 60}
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch annotates none of it
        self.flops: Counter[str] = Counter()
        self._whole: set[object] = set()  # operations that are made of no others

    def __torch_dispatch__(
        self,
        func: OpOverload,
        _types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        """Run an operation and add what it costs; in inference mode a composite one comes in one piece."""
        given = dict(kwargs or {})
        packet = func._overloadpacket
        formula: Callable[..., int] | None = flop_registry.get(packet)
        if formula is None and func not in self._whole and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
            self._whole.add(func)
        out = func(*args, **given)
        if formula is not None:
            self.flops[_precision(packet, args)] += int(formula(*args, **given, out_val=out))
        return out


def _precision(packet: object, args: tuple[Any, ...]) -> str:
    """The precision of an operation: that of its first tensor."""
    first = next(one for one in args if isinstance(one, Tensor))
    name = str(first.dtype).removeprefix("torch.")
    if name != FLOAT32 or first.device.type != "cuda":
        return name
    switch = torch.backends.cudnn if packet in _CONVOLUTIONS else torch.backends.cuda.matmul
    return TENSOR_FLOAT if switch.allow_tf32 else FLOAT32
