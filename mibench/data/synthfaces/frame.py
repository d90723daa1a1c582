"""The canvas of a batch of faces, its frames of reference, and the brushes of every painter."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from .factors import blend, colors

# Radians, or head units, at a nuisance of 1. The distribution is triangular: a third of it is typical.
_MAGNIFY: Final = 1.15  # half pictures per head unit: the face fills the picture
_ROLL: Final = 0.18
_SHIFT: Final = 0.08
_ZOOM: Final = 0.07
_YAW: Final = 0.23
_PITCH: Final = 0.08


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """A batch of pictures, or a window of them, with the coordinates of every pixel.

    Args:
        image: (N, 3, R, C) float32, painted in place.
        u: (N, R, C) head frame, to the right, in half pictures.
        v: (N, R, C) head frame, downwards; 0 is between eyes and nose.
        p: (N, R, C) face frame, to the right; follows yaw.
        q: (N, R, C) face frame, downwards; follows pitch.
        skull: (N, R, C) distance to the edge of the head, positive inside.
        sharp: (N, 1, 1) pixels per head unit.
        f: traits by name, (N, 1, 1).
        color: colors by name, (N, 3, 1, 1).
    """

    image: Tensor
    u: Tensor
    v: Tensor
    p: Tensor
    q: Tensor
    skull: Tensor
    sharp: Tensor
    f: Mapping[str, Tensor]
    color: Mapping[str, Tensor]

    def window(self, top: float, bottom: float, side: float = 1.0) -> "Canvas":
        """Return the rows from `top` to `bottom` and the columns up to `side`, all in [-1, 1]."""
        grid = self.image.shape[-1]
        reach = 0.5 * grid
        rows = slice(max(0, int((1 + top) * reach)), min(grid, int((1 + bottom) * reach) + 1))
        cols = slice(max(0, int((1 - side) * reach)), min(grid, int((1 + side) * reach) + 1))
        names = ("u", "v", "p", "q", "skull")
        planes = {name: getattr(self, name)[:, rows, cols].contiguous() for name in names}
        return replace(self, image=self.image[..., rows, cols], **planes)

    def edge(self, distance: Tensor) -> Tensor:
        """Return the coverage of a shape by signed distance: 0 outside, 1 inside, a pixel between."""
        return (distance * self.sharp).add_(0.5).clamp_(0, 1)

    def paint(self, alpha: Tensor, color: Tensor) -> None:
        """Lay a color over the picture.

        Args:
            alpha: (N, R, C) coverage in [0, 1].
            color: (N, 3, 1, 1) or (N, 3, R, C).
        """
        self.image.add_((color - self.image).mul_(alpha[:, None]))


def blob(x: Tensor, y: Tensor) -> Tensor:
    """Return a soft round spot: 1 at the origin, 0 from radius 1 on; (1 - r^2)^2 between."""
    fall = (1 - (x * x).add_(y * y)).clamp_(min=0)
    return fall.mul_(fall)


def wave(x: Tensor) -> Tensor:
    """Return the triangle wave of period 1 in [-1, 1]."""
    return (x - x.floor()).sub_(0.5).abs_().mul_(4).sub_(1)


def stage(f: Mapping[str, Tensor], *, grid: int) -> Canvas:
    """Return an empty canvas with the frames of every person set up.

    Args:
        f: identity factors in [0, 1] and nuisances by name, each (N, 1, 1) float32.
        grid: rows and columns of pixels.
    """
    f = {**f, **proportions(f)}
    axis = (torch.arange(grid, device=f["yaw"].device) * 2 + 1).float() / grid - 1
    roll = f["roll"] * _ROLL
    cos, sin = 1 - roll * roll * 0.5, roll - roll * roll * roll / 6  # Taylor: exact in float32 arithmetic
    zoom = (1 + f["zoom"] * _ZOOM) * _MAGNIFY
    x = axis - f["shift_x"] * _SHIFT
    y = axis[:, None] - f["shift_y"] * _SHIFT - 0.04
    u = (cos / zoom) * x + (sin / zoom) * y
    v = (cos / zoom) * y - (sin / zoom) * x
    w, h = f["w"], f["h"]
    fall_u = (1 - (u / (w * 1.15)).square_()).clamp_(min=0)
    fall_v = (1 - (v / (h * 1.15)).square_()).clamp_(min=0)
    return Canvas(
        image=u.new_empty((u.shape[0], 3, grid, grid)),
        u=u,
        v=v,
        p=u - fall_u * (f["yaw"] * _YAW),
        q=v - fall_v * (f["pitch"] * _PITCH),
        skull=skull(u, v, f),
        sharp=zoom * (0.5 * grid / 1.1),
        f=f,
        color=colors(f),
    )


def proportions(f: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the main measures of every face in head units, (N, 1, 1) each."""
    h = blend(0.66, 0.78, f["head_length"])
    eye_y = blend(-0.14, -0.01, f["eye_height"])
    nose_y = eye_y + blend(0.19, 0.32, f["nose_length"])
    mouth_y = blend(nose_y + 0.10, h - 0.19, blend(0.15, 0.75, f["mouth_height"]))
    return {
        "length": f["hair_length"] * (0.4 + 0.6 * f["hair_length"]),
        "w": blend(0.43, 0.57, f["head_width"]),
        "h": h,
        "eye_x": blend(0.17, 0.245, f["eye_spacing"]),
        "eye_y": eye_y,
        "nose_y": nose_y,
        "mouth_y": mouth_y,
    }


def skull(u: Tensor, v: Tensor, f: Mapping[str, Tensor]) -> Tensor:
    """Return the signed distance to the edge of the head, about true near the edge.

    The upper half is an ellipse. Below, the width tapers with the square of the height, and a quartic
    share makes the chin broad.

    Args:
        u: (N, R, C) head frame.
        v: (N, R, C) head frame.
        f: traits by name.
    """
    t = v / f["h"]
    low = t.clamp(min=0).square_()
    taper = 1 - low * blend(0.46, 0.10, f["jaw_width"])
    bones = (1 - ((v - 0.1) / 0.3).square_()).clamp_(min=0) * blend(-0.04, 0.07, f["cheekbones"])
    across = u / (f["w"] * (taper + bones))
    square = blend(0.05, 0.55, f["chin_square"])
    r2 = across.square_().add_(t * t).sub_(square * (low - low * low))
    return (1 - r2.sqrt_()).mul_(f["w"])
