"""Faces brought into one position: five points found or given, and the similarity transform onto a template.

Points are (x, y) in pixels; the center of the first pixel is (0, 0), as in the lists that data sets publish.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mibench.data.layouts.layout import Points
from mibench.errors import DataError
from mibench.nets.seeding import seeded

TEMPLATE: Points = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""Eyes, nose and corners of the mouth, left first, in an image of 112 x 112 pixels.

Source: Deng et al., CVPR 2019 (arXiv:1801.07698), the points of the authors' code, InsightFace; they are
those of SphereFace (Liu et al., CVPR 2017, arXiv:1704.08063) for 96 x 112 pixels, moved right by 8.
"""
TEMPLATE_SIZE = 112
_LEAST_FACE = 20  # pixels; the package's own default, and below it the first net's pyramid is empty
_MOST_SIDE = 1024  # pixels; larger photos are shrunk for the search alone, or it takes seconds and gigabytes
_CENTER_WEIGHT = 2.0  # facenet-pytorch's, of its rule `center_weighted_size`
_AROUND = 12  # pixels around what is sampled; a cubic spline's memory fades by 0.27 a pixel, to 2e-7
_MOST_OUTSIDE = 8  # times the photo's longer side that an aligned image may span before points are refused


def template(size: int) -> NDArray[np.float64]:
    """The template for square images of `size` pixels, (5, 2), float64: TEMPLATE times size / 112."""
    return np.array(TEMPLATE, dtype=np.float64) * (size / TEMPLATE_SIZE)


def similarity(points: NDArray[np.float64], onto: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least-squares similarity transform that takes points onto a template, without reflection.

    Source: Umeyama, IEEE TPAMI 13 (1991), problem (40). In the plane scale and rotation are one complex
    factor, so the minimum is that of a linear least-squares problem with one unknown.

    Args:
        points: (N, 2), x and y in pixels, N >= 2.
        onto: (N, 2), where they belong.

    Returns:
        (2, 3), float64: [x', y'] = M[:, :2] @ [x, y] + M[:, 2].

    Raises:
        DataError: the points coincide, are not finite, or no rotation brings them nearer to the template
            than shrinking them to a point.

    >>> similarity(np.array([[0.0, 0], [2, 0]]), np.array([[5.0, 5], [5, 6]])).round(6).tolist()
    [[0.0, -0.5, 5.0], [0.5, 0.0, 5.0]]
    """
    given = np.asarray(points, dtype=np.float64)
    if not np.isfinite(given).all():
        raise DataError(f"landmarks {given.tolist()}: are not all numbers. Correct or remove them.")
    own, wanted = (pair[:, 0] + 1j * pair[:, 1] for pair in (given, np.asarray(onto)))
    middle, target = own.mean(), wanted.mean()
    spread = float((np.abs(own - middle) ** 2).sum())
    factor = complex(np.vdot(own - middle, wanted - target)) / spread if spread > 0 else 0j
    if factor == 0:
        raise DataError(f"landmarks {given.tolist()}: make no face. Correct or remove them.")
    moved = complex(target - factor * middle)
    return np.array([[factor.real, -factor.imag, moved.real], [factor.imag, factor.real, moved.imag]])


def aligned(image: Image.Image, points: Points, *, size: int) -> Image.Image:
    """The face of a photo in the template's position, (size, size), in the photo's mode.

    Where it shrinks, whole factors above 2 are averaged first, the rest is sampled by cubic splines more
    densely than the result and then resized with antialiasing (bicubic). Outside the photo its edge pixels
    are repeated.

    Args:
        image: in mode L or RGB.
        points: five landmarks, as in Item.
        size: height and width of the result in pixels, >= 1.

    Raises:
        DataError: the points make no face (see `similarity`), or one far larger than the photo.
        ValueError: another mode, or not five points.
    """
    if image.mode not in ("L", "RGB") or len(points) != len(TEMPLATE):
        raise ValueError(f"aligned: takes five points in mode L or RGB, got {len(points)} in {image.mode}.")
    forth = similarity(np.array(points, dtype=np.float64), template(size))
    back = np.linalg.inv(np.vstack([forth, [0.0, 0.0, 1.0]]))[:2]
    zoom = math.hypot(back[0, 0], back[1, 0])  # photo pixels for each pixel of the result
    if zoom * size > _MOST_OUTSIDE * max(image.size):
        raise DataError(
            f"landmarks {[list(point) for point in points]}: the face would span {zoom * size:.0f} pixels, "
            f"the photo has {image.width} x {image.height}. Correct or remove them."
        )
    # from centers at whole numbers to Pillow's pixels, which begin at whole numbers
    back[:, 2] += 0.5 - back[:, :2] @ [0.5, 0.5]
    whole = max(1, int(zoom / 2))
    small = image.reduce(whole) if whole > 1 else image
    back /= whole
    dense = math.ceil(zoom / whole)
    back[:, :2] /= dense
    return _sampled(small, back, size, dense)


def _sampled(image: Image.Image, back: NDArray[np.float64], size: int, dense: int) -> Image.Image:
    """An image (size, size): `dense` samples a pixel each way by cubic splines, then reduced.

    Args:
        image: in mode L or RGB.
        back: (2, 3), takes (x, y, 1) in samples to the image, both counted from pixels' corners.
        size: height and width of the result in pixels.
        dense: 1 or more.
    """
    from scipy.ndimage import affine_transform

    side = size * dense
    corners = back[:, :2] @ np.array([[0, side, 0, side], [0, 0, side, side]]) + back[:, 2:]
    first = np.floor(corners.min(axis=1)).astype(int) - _AROUND
    last = np.ceil(corners.max(axis=1)).astype(int) + _AROUND
    columns = np.arange(first[0], last[0]).clip(0, image.width - 1)
    rows = np.arange(first[1], last[1]).clip(0, image.height - 1)
    turn = back[::-1, 1::-1]  # y before x, as arrays have it
    offset = back[::-1, 2] - first[::-1] + turn @ [0.5, 0.5] - 0.5  # from corners to centers
    channels = []
    for channel in image.split():
        # not by Image.transform: for bytes it cuts fractions off, and its kernel sharpens
        part = np.asarray(channel)[rows[:, None], columns[None]].astype(np.float32)
        found = affine_transform(part, turn, offset, (side, side), order=3, mode="nearest")
        reduced = Image.fromarray(found).resize((size, size), Image.Resampling.BICUBIC)
        channels.append(Image.fromarray(np.asarray(reduced).round().clip(0, 255).astype(np.uint8)))
    return channels[0] if image.mode == "L" else Image.merge("RGB", channels)


class FaceFinder:
    """Finds the five points of a photo's main face by MTCNN (Zhang et al., IEEE SPL 2016, arXiv:1604.02878).

    The nets and their weights are those of facenet-pytorch, which carries them in its package. The same
    photo gives the same points, and the global random state stays as it is.

    Args:
        device: where the nets run.
    """

    def __init__(self, device: torch.device) -> None:
        from facenet_pytorch import MTCNN

        with seeded(torch.Generator()):  # weights are loaded over those that are drawn here
            self._net = MTCNN(min_face_size=_LEAST_FACE, device=device)

    def find(self, image: Image.Image) -> Points | None:
        """The points of the main face, in pixels of the image; None where there is no face.

        Of several faces it is the one whose box has the largest area less twice the squared distance of its
        middle from the photo's (facenet-pytorch's `center_weighted_size`). Faces below 20 pixels are not
        found; photos longer than 1024 pixels are shrunk to that for the search.

        Args:
            image: of any size, in mode L or RGB.
        """
        shrunk = max(1.0, max(image.size) / _MOST_SIDE)
        if shrunk > 1:
            wanted = (max(1, round(image.width / shrunk)), max(1, round(image.height / shrunk)))
            image, full = image.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=3.0), image
            ratio = np.array([full.width / image.width, full.height / image.height])
        else:
            ratio = np.ones(2)
        if min(image.size) < _LEAST_FACE:
            return None
        boxes, _, points = self._net.detect(image.convert("RGB"), landmarks=True)
        if boxes is None:
            return None
        chosen = _main(np.asarray(boxes, dtype=np.float64), image.size)
        # a pixel's center moves with its middle, not with its corner
        found = (np.asarray(points[chosen], dtype=np.float64) + 0.5) * ratio - 0.5
        return tuple((float(x), float(y)) for x, y in found)


def _main(boxes: NDArray[np.float64], size: tuple[int, int]) -> int:
    """Which of some boxes (N, 4), left, top, right, bottom, is the main face; the first of equal ones."""
    sides = boxes[:, 2:] - boxes[:, :2]
    away = (boxes[:, 2:] + boxes[:, :2]) / 2 - np.array(size) / 2
    return int(np.argmax(sides.prod(axis=1) - _CENTER_WEIGHT * (away**2).sum(axis=1)))
