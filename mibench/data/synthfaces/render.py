"""Whole pictures: the order of the layers, the light over all of them, and the camera.

A face is a stack of soft shapes, painted back to front. Each shape is a signed distance, positive
inside, in head units; its edge is one pixel wide at every size.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from .factors import blend, mix
from .features import paint_beard, paint_brows, paint_eyes, paint_glasses, paint_mouth, paint_nose, paint_skin
from .frame import Canvas, stage
from .hair import paint_back_hair, paint_body, paint_ears, paint_ground, paint_hair

_NOISE: Final = 0.010  # standard deviation of the sensor noise at nuisance 1, of full scale
_TWICE_BELOW: Final = 100  # pictures smaller than this are painted at twice their size


def picture(f: Mapping[str, Tensor], key: Tensor, *, size: int, strength: float) -> Tensor:
    """Return finished pictures of a batch of faces.

    Args:
        f: identity factors in [0, 1] and nuisances by name, each (N, 1, 1) float32.
        key: (N,) int64, the hash key of each picture.
        size: rows and columns of pixels.
        strength: scale of the sensor noise, >= 0.

    Returns:
        (N, 3, size, size) float32 in [0, 1].
    """
    twice = size < _TWICE_BELOW
    canvas = stage(f, grid=2 * size if twice else size)
    paint_layers(canvas, strength)
    image = halve(canvas.image) if twice else canvas.image
    image = expose(image, f)
    if strength > 0:
        image = soften(image, f["blur"]).add_(noise(key, size) * (_NOISE * strength))
    return image.clamp_(0, 1)


def paint_layers(c: Canvas, strength: float) -> None:
    """Paint every layer, back to front, each in the window that it can reach at this strength."""
    paint_ground(c)
    paint_back_hair(c)
    pad = 0.12 * strength
    paint_body(c.window(0.4 - pad, 1.0))
    paint_ears(c.window(-0.4 - pad, 0.5 + pad))
    paint_skin(c)
    middle = c.window(-0.5 - pad, 0.48 + pad, 0.72 + pad)
    lower = c.window(-0.2 - pad, 1.0, 0.72 + pad)
    paint_nose(middle)
    paint_eyes(middle)
    paint_brows(middle)
    paint_beard(lower)
    paint_mouth(lower)
    paint_glasses(middle)
    paint_hair(c)


def expose(image: Tensor, f: Mapping[str, Tensor]) -> Tensor:
    """Return the picture under the light's strength and color; changes `image`.

    Args:
        image: (N, 3, H, W) float32.
        f: nuisances by name, (N, 1, 1).
    """
    gain = 0.98 + 0.26 * f["light_gain"]
    warm = 0.06 * f["light_warmth"]
    return image.mul_(torch.stack([gain * (1 + warm), gain, gain * (1 - warm)], dim=1))


def halve(image: Tensor) -> Tensor:
    """Return the means of 2x2 pixels: (N, C, 2H, 2W) to (N, C, H, W)."""
    rows = image[..., ::2, :] + image[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) * 0.25


def soften(image: Tensor, amount: Tensor) -> Tensor:
    """Return the picture mixed with its [1, 2, 1] blur; edges repeat.

    Args:
        image: (N, C, H, W) float32.
        amount: (N, 1, 1); below 0 nothing happens, and at 1 half of the blur is mixed in.
    """
    near = torch.cat([image[..., :1, :], image, image[..., -1:, :]], dim=-2)
    down = (near[..., :-2, :] + near[..., 2:, :]) * 0.25 + image * 0.5
    near = torch.cat([down[..., :1], down, down[..., -1:]], dim=-1)
    blurred = (near[..., :-2] + near[..., 2:]) * 0.25 + down * 0.5
    return blend(image, blurred, (amount * 0.5).clamp(0, 1)[:, None])


def noise(key: Tensor, size: int) -> Tensor:
    """Return white noise of mean 0 and deviation 1, triangular: (N, 3, size, size) float32.

    Args:
        key: (N,) int64, one per picture.
        size: rows and columns.
    """
    place = torch.arange(1, size * size + 1, device=key.device).view(1, size, size)
    bits = mix(key.view(-1, 1, 1) ^ (place << 20))
    fields = [((bits >> shift) & 1023).int() + ((bits >> (shift + 10)) & 1023).int() for shift in (0, 20, 40)]
    # The sum of two uniform integers below 1024 has deviation 1024 / sqrt(6).
    return (torch.stack(fields, dim=1).float() - 1023) * (6**0.5 / 1024)
