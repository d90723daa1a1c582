"""An image file, which may be anything, as gray or RGB pixels, or the reason why it is not usable."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mibench.errors import DataError

MB = 10**6
MAX_PIXELS = 89_478_485
"""Pillow's own limit (`Image.MAX_IMAGE_PIXELS`, 256 MiB of RGB), above which it suspects a bomb."""
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is tried. Pillow knows more, some of which run other programs (EPS) or are hardly used."""

MISSING, UNREADABLE, NO_FILE = "is not there", "cannot be read", "is no regular file"
EMPTY, NO_IMAGE, BROKEN = "is empty", "is no image of a known format", "cannot be decoded"
TOO_MANY_PIXELS = f"has more than {MAX_PIXELS // 10**6} million pixels"
UNKNOWN_RANGE = "has 32-bit pixels, whose range is not known"

_MODES = {
    "1": "1-bit", "L": "gray", "LA": "gray", "La": "gray", "P": "palette", "PA": "palette", "RGBA": "RGB",
    "RGBa": "RGB",
}  # fmt: skip
"""Words for Pillow's pixel formats; the others are words already: CMYK, YCbCr, LAB, HSV."""

# what Pillow's decoders were seen to raise on damaged files; none of it is a mistake of ours
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError,
    RuntimeError, MemoryError, struct.error, zlib.error,
)  # fmt: skip


class UnusableImageError(DataError):
    """A file that gives no image; `reason` is a short phrase that many files can share ("is empty")."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the file {reason}. Replace or remove it.")
        self.reason = reason


@dataclass(frozen=True)
class Decoded:
    """A decoded file.

    Args:
        image: in mode RGB or L, turned as the EXIF tag says.
        mode: Pillow's name of the pixel format in the file.
        width: of `image`, in pixels.
        height: of `image`, in pixels.
        sha256: of the file's bytes, in hexadecimal.
        converted: what was unusual and had to be converted, as short phrases; empty for most files.
    """

    image: Image.Image
    mode: str
    width: int
    height: int
    sha256: str
    converted: tuple[str, ...] = ()


def decode(file: Path, *, channels: int, max_bytes: int | None) -> Decoded:
    """The image in a file.

    Transparent pixels show white, as they do on a page: the colors stored below full transparency are
    arbitrary and were never seen by anyone. 16-bit gray is divided by 257 and rounded, so that 0 stays 0 and
    65535 becomes 255 (Pillow alone clips it at 255). Of several frames the first is taken.

    Args:
        file: where it lies.
        channels: 3 for RGB, 1 for gray.
        max_bytes: larger files are refused before they are opened; None takes any.

    Raises:
        UnusableImageError: with the reason.
    """
    data = _read(file, max_bytes)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise UnusableImageError(TOO_MANY_PIXELS)
            return _decoded(opened, "RGB" if channels == 3 else "L", hashlib.sha256(data).hexdigest())
    except UnidentifiedImageError as error:
        raise UnusableImageError(NO_IMAGE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnusableImageError(TOO_MANY_PIXELS) from error
    except (*_DAMAGE, UserWarning) as error:  # a warning where they are set to be errors
        raise UnusableImageError(BROKEN) from error


def _read(file: Path, max_bytes: int | None) -> bytes:
    """The bytes of a file; its size is looked at first, so that a huge one costs nothing."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
            raise UnusableImageError(NO_FILE)
        _check_size(state.st_size, max_bytes)
        with file.open("rb") as opened:
            # one byte more than allowed tells of a file that grows
            data = opened.read(-1 if max_bytes is None else max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnusableImageError(MISSING) from error
    except (OSError, ValueError, MemoryError) as error:
        raise UnusableImageError(UNREADABLE) from error
    _check_size(len(data), max_bytes)
    return data


def _check_size(size: int, max_bytes: int | None) -> None:
    if size == 0:
        raise UnusableImageError(EMPTY)
    if max_bytes is not None and size > max_bytes:
        raise UnusableImageError(f"is larger than {max_bytes / MB:g} MB")


def _decoded(opened: Image.Image, wanted: str, sha256: str) -> Decoded:
    """The first frame in the wanted mode, and what had to be done for it."""
    notes = ["several frames, the first taken"] if getattr(opened, "n_frames", 1) > 1 else []
    opened.load()
    image, turns = _turned(opened)
    mode, notes = opened.mode, notes + turns
    if image.has_transparency_data:
        image = _over_white(image)
        notes.append(f"{_MODES.get(mode, mode)} with transparency, shown over white")
    elif mode.startswith("I;16") or (mode == "I" and opened.format in ("PNG", "PPM")):
        # before version 11 Pillow gave 16-bit PNG, and it still gives 16-bit PGM, as 32-bit integers
        image = _eight_bits(image)
        notes.append("16-bit gray")
    elif mode in ("I", "F"):
        raise UnusableImageError(UNKNOWN_RANGE)
    elif mode not in ("RGB", "L") or (mode == "L" and wanted == "RGB"):
        notes.append(_MODES.get(mode, mode))
    image = image.convert(wanted)
    return Decoded(image, mode, image.width, image.height, sha256, tuple(notes))


def _turned(opened: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image as its EXIF tag says, and a note if that changed it or was not to be read."""
    try:
        turned = ImageOps.exif_transpose(opened)
        tag = opened.getexif().get(0x0112, 1)
    except (*_DAMAGE, UserWarning):
        # the pixels are sound; cameras and editors write broken tags, and then no turn is known
        return opened, ["EXIF tag not readable"]
    return turned, ["turned as its EXIF tag says"] if tag in range(2, 9) else []


def _over_white(image: Image.Image) -> Image.Image:
    """An image with transparency as RGB over white."""
    full = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", full.size, "white"), full).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray as 8-bit gray: each value divided by 257, rounded; 257 is 65535 / 255."""
    wide = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))
