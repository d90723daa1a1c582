"""Sizes of feature maps: where a pyramid of doublings starts, and how inputs and maps are resized."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_SMALLEST, _LARGEST = 4, 7


def pyramid(size: int) -> tuple[int, int]:
    """Start size (4 to 7) and number of doublings (>= 1) that lead to `size` pixels.

    >>> [pyramid(size) for size in (32, 64, 112)]
    [(4, 3), (4, 4), (7, 4)]

    Raises:
        ValueError: no number of doublings leads to `size`.
    """
    start, doublings = size, 0
    while start > _LARGEST and start % 2 == 0:
        start, doublings = start // 2, doublings + 1
    if doublings == 0 or not _SMALLEST <= start <= _LARGEST:
        raise ValueError(f"size {size}: not 4, 5, 6 or 7 times a power of two. Try 32, 64, 112 or 128.")
    return start, doublings


def project(inputs: int, outputs: int, *, stride: int) -> nn.Sequential:
    """A conv 1x1 without bias on every `stride`-th pixel: (N, inputs, H, W) to (N, outputs, H/s, W/s).

    Equals a strided convolution. That one must not be used: with fewer than 16 channels laid out
    channels last, its backward pass on a CPU writes out of bounds (oneDNN issue 6035).
    """
    pick: nn.Module = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
    return nn.Sequential(pick, nn.Conv2d(inputs, outputs, 1, bias=False))


def pool_to(x: Tensor, cells: int) -> Tensor:
    """Maps (N, C, H, W) averaged down to (N, C, cells, cells).

    Whole windows where they fit: their gradient is deterministic on every device, the gradient
    of adaptive pooling is not.
    """
    side = x.shape[-1]
    if side == cells:
        return x
    if side % cells == 0:
        return F.avg_pool2d(x, side // cells)
    return F.adaptive_avg_pool2d(x, cells)


def resize(x: Tensor, size: int) -> Tensor:
    """Images (N, C, H, W) resized bilinearly to (N, C, size, size), smoothed where they shrink."""
    if x.shape[-1] == size and x.shape[-2] == size:
        return x
    shrinks = x.shape[-1] > size
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=shrinks)
