"""Images mirrored and shifted, each by its own numbers, as copies of whole pieces of memory.

Nothing is calculated, so bytes can be moved before floats are made of them, with the same bits in the end.
Indexing, which looks at each number, takes more than ten times as long for a batch of 64 images of 64 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def moved(x: Tensor, mirrored: Tensor | None, moves: Tensor | None = None, *, most: int = 0) -> Tensor:
    """Images mirrored left to right and then shifted, each by itself; differentiable.

    Args:
        x: (N, C, H, W), of any type.
        mirrored: (N,), bool, on the CPU; None mirrors none.
        moves: (2, N), int64, on the CPU, in [0, 2 most]: `most` more than how far an image's content moves up
            and left; its border is repeated. None shifts none.
        most: pixels of the largest shift.

    Returns:
        (N, C, H, W), of x's type and on its device.
    """
    if mirrored is None and moves is None:
        return x
    # autograd would keep a gradient of every window below; without a shift, x's order of memory stays
    if x.requires_grad or len(x) == 0 or (moves is None and not x.is_contiguous()):
        return _moved_singly(x, mirrored, moves, most)
    turned = torch.zeros(len(x), dtype=torch.bool) if mirrored is None else mirrored
    if moves is None:
        moves, most = torch.zeros(2, len(x), dtype=torch.int64), 0
    order = turned.int().argsort(stable=True)  # those to mirror last, so that they are one piece
    canvas = _canvas(x, order.to(x.device), len(x) - int(turned.sum()), most)
    return _windows(canvas, order.argsort(), moves, x.shape[2:])


def _canvas(x: Tensor, order: Tensor, straight: int, most: int) -> Tensor:
    """Images in another order, the first `straight` as they are and the others mirrored, with wider borders.

    F.pad replicates borders too, but not those of bytes on every device.
    """
    count, channels, height, width = x.shape
    canvas = x.new_empty(count, channels, height + 2 * most, width + 2 * most)
    inner = canvas[:, :, most : most + height, most : most + width]
    inner[:straight] = x.index_select(0, order[:straight])
    inner[straight:] = x.index_select(0, order[straight:]).flip(3)
    if most > 0:
        canvas[:, :, :most, most:-most] = inner[:, :, :1]
        canvas[:, :, -most:, most:-most] = inner[:, :, -1:]
        canvas[..., :most] = canvas[..., most : most + 1]
        canvas[..., -most:] = canvas[..., -most - 1 : -most]
    return canvas


def _windows(canvas: Tensor, places: Tensor, moves: Tensor, size: torch.Size) -> Tensor:
    """One window of `size` (H, W) of each image of a canvas, contiguous.

    What is wanted of an image begins at `starts` in the memory of the canvas and ends `length` numbers later,
    with other columns in between. So it is copied as one piece, and read with the strides of the canvas.

    Args:
        canvas: (N, C, H + 2 most, W + 2 most), contiguous.
        places: (N,), int64, on the CPU; which image of the canvas comes first, second, ...
        moves: (2, N), int64, on the CPU; row and column at which the window begins.
        size: of the window.
    """
    count, channels, rows, columns = canvas.shape
    height, width = size
    length = ((channels - 1) * rows + height - 1) * columns + width
    starts = (places * channels * rows + moves[0]) * columns + moves[1]
    pieces = canvas.view(-1).as_strided((canvas.numel() - length + 1, length), (1, 1))
    taken = pieces.index_select(0, starts.to(canvas.device))
    strides = (length, rows * columns, columns, 1)
    return taken.as_strided((count, channels, height, width), strides).contiguous()


def _moved_singly(x: Tensor, mirrored: Tensor | None, moves: Tensor | None, most: int) -> Tensor:
    """As `moved`, number by number."""
    count, channels, height, width = x.shape
    device = x.device
    if mirrored is not None:
        x = torch.where(mirrored.to(device)[:, None, None, None], x.flip(3), x)
    if moves is None:
        return x
    padded = F.pad(x, (most, most, most, most), mode="replicate")
    rows = (torch.arange(height) + moves[0, :, None]).to(device)[:, None, :, None]
    columns = (torch.arange(width) + moves[1, :, None]).to(device)[:, None, None, :]
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows, columns]
