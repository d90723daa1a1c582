"""Numbers and speed on a GPU, in one place: nothing here changes what a CPU computes.

What is learned may be rounded: bfloat16 autocast and TensorFloat-32. What is measured may not, so that tables
do not hang on the card: judges, embedders and accuracies compute in float32. See docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Bfloat16 autocast on CUDA; nothing on the CPU, where it is slower (measured)."""
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


def rounded(device: torch.device) -> AbstractContextManager[None]:
    """TensorFloat-32 in convolutions and matrix products on CUDA: 10 bits of mantissa, for what is learned.

    Source of the 10 bits: NVIDIA, A100 Tensor Core GPU architecture, 2020.
    """
    return _tensor_floats(True) if device.type == "cuda" else nullcontext()


def exact(device: torch.device) -> AbstractContextManager[None]:
    """Float32 in convolutions and matrix products on CUDA, for what is measured.

    By itself torch rounds convolutions, but not matrix products.
    """
    return _tensor_floats(False) if device.type == "cuda" else nullcontext()


@contextmanager
def _tensor_floats(are_allowed: bool) -> Iterator[None]:
    """Set the switches of both libraries, and bring them back."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = are_allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def fused(device: torch.device) -> bool | None:
    """The option `fused` of Adam, AdamW and SGD: one kernel a step on CUDA; torch's own choice elsewhere."""
    return True if device.type == "cuda" else None


def sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, without waiting for the GPU's queue where it comes from the CPU.

    A plain copy out of pageable memory waits until all kernels before it are done, which empties the queue
    in every step. Pinned memory is cached by torch and not reused before the copy is over.
    """
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)
