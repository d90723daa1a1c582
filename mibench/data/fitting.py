"""From a photo of any size to a square: what is kept of it, and how it is resized."""

from __future__ import annotations

import math

from PIL import Image, ImageOps

from mibench.data.decode import UnusableImageError
from mibench.data.layouts.layout import Box

WRONG_BOX = "has a face box that is not in the image"
_ROOM = 2.0  # a face is looked for in a square of this many times its box, so that a bystander is not found


def middle_square(image: Image.Image, *, size: int, crop: int = 0) -> Image.Image:
    """The middle of an image, (size, size), resized by bicubic interpolation with antialiasing.

    Args:
        image: in mode L or RGB.
        size: height and width of the result in pixels.
        crop: side of the square that is kept, in pixels of the image; an image that is smaller than it, and
            every image where it is 0, keeps its largest square.
    """
    if not crop:
        # crops to the middle, at fractions of a pixel, and resizes in one step
        return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)
    side = min(crop, image.width, image.height)
    # whole pixels, as the code that fixed crops come from does it: columns 35 to 143 of 178 for 108
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)


def padded(image: Image.Image, *, size: int) -> Image.Image:
    """The whole of an image in the middle of a black square (size, size)."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    inner = image.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new(image.mode, (size, size))
    square.paste(inner, ((size - width) // 2, (size - height) // 2))
    return square


def face_square(image: Image.Image, box: Box, *, size: int) -> Image.Image:
    """The square around a face box, (size, size), as `around` gives it.

    Raises:
        UnusableImageError: the box is empty or does not meet the image.
    """
    return image.resize((size, size), Image.Resampling.BICUBIC, box=around(image, box))


def search_area(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    """Whole pixels (left, top, right, bottom) in which the face of a box is looked for.

    Raises:
        UnusableImageError: the box is empty or does not meet the image.
    """
    left, top, right, bottom = around(image, box, times=_ROOM)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def around(image: Image.Image, box: Box, *, times: float = 1.0) -> Box:
    """A square of `times` the longer side of a box with the box's middle, moved and shrunk into the image.

    Raises:
        UnusableImageError: the box is empty or does not meet the image.
    """
    left, top, right, bottom = box
    meets = left < image.width and top < image.height and right > 0 and bottom > 0
    if not (all(map(math.isfinite, box)) and left < right and top < bottom and meets):
        raise UnusableImageError(WRONG_BOX)
    side = min(times * max(right - left, bottom - top), image.width, image.height)
    x = min(max((left + right - side) / 2, 0.0), image.width - side)
    y = min(max((top + bottom - side) / 2, 0.0), image.height - side)
    return x, y, x + side, y + side
