"""What becomes of every kind of image file, and of files that are none."""

from __future__ import annotations

import hashlib
import io
import os
import random
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mibench.data import decode as module
from mibench.data.decode import BROKEN, EMPTY, MISSING, NO_FILE, NO_IMAGE, UnusableImageError, decode
from mibench.data.folder import FolderData

LIMIT = 64_000_000


def picture(height: int = 12, width: int = 16, channels: int = 3) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def saved(file: Path, pixels: np.ndarray, **options: Any) -> Path:
    Image.fromarray(pixels).save(file, **options)
    return file


def read(file: Path, channels: int = 3) -> np.ndarray:
    return np.asarray(decode(file, channels=channels, max_bytes=LIMIT).image)


def reason_of(file: Path, max_bytes: int | None = LIMIT) -> str:
    with pytest.raises(UnusableImageError) as caught:
        decode(file, channels=3, max_bytes=max_bytes)
    assert str(caught.value) == f"the file {caught.value.reason}. Replace or remove it."
    return caught.value.reason


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"])
def test_ordinary_images_are_as_pillow_gives_them(
    tmp_path: Path, name: str, channels: int, mode: str
) -> None:
    file = saved(tmp_path / name, picture())
    found = decode(file, channels=channels, max_bytes=LIMIT)
    with Image.open(file) as opened:
        assert np.array_equal(
            np.asarray(found.image), np.asarray(ImageOps.exif_transpose(opened).convert(mode))
        )
    assert (found.image.mode, found.mode, found.width, found.height) == (mode, "RGB", 16, 12)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.converted == ()


def test_the_folder_source_gives_the_pixels_that_it_always_gave(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.jpg", picture(30, 20))
    data = FolderData(path=str(tmp_path), size=8)
    with Image.open(file) as opened:
        square = ImageOps.fit(opened.convert("RGB"), (8, 8), method=Image.Resampling.BICUBIC)
    assert np.array_equal(data._decode(file).permute(1, 2, 0).numpy(), np.asarray(square))


@pytest.mark.parametrize(("tag", "shape"), [(1, (12, 16)), (3, (12, 16)), (6, (16, 12)), (8, (16, 12))])
def test_the_exif_turn_is_made(tmp_path: Path, tag: int, shape: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    file = saved(tmp_path / "a.png", picture(), exif=exif)
    found = decode(file, channels=3, max_bytes=LIMIT)
    turns = {1: 0, 3: 2, 6: -1, 8: 1}  # 6: the camera lay on its side, so the image is turned clockwise
    assert np.array_equal(np.asarray(found.image), np.rot90(picture(), turns[tag]))
    assert (found.height, found.width) == shape
    assert found.converted == (() if tag == 1 else ("turned as its EXIF tag says",))


def test_a_broken_exif_tag_does_not_cost_the_image(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.png", picture(), exif=b"Exif\0\0no such header at all")
    found = decode(file, channels=3, max_bytes=LIMIT)
    assert np.array_equal(np.asarray(found.image), picture())
    assert found.converted == ("EXIF tag not readable",)


def test_sixteen_bits_are_divided_by_257_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 128, 129, 257, 32768, 65278, 65407, 65535]], dtype=np.uint16)
    wanted = [[0, 0, 1, 1, 128, 254, 255, 255]]
    big = levels.astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 8 1 65535\n" + big.tobytes())
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels).save(tmp_path / "a.tif")
    for name in ("a.pgm", "a.png", "a.tif"):
        found = decode(tmp_path / name, channels=1, max_bytes=LIMIT)
        assert np.asarray(found.image).tolist() == wanted, name
        assert found.converted == ("16-bit gray",)
        assert read(tmp_path / name)[..., 2].tolist() == wanted


def test_transparent_pixels_are_white_whatever_lies_below(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0] = (200, 0, 0, 255)
    pixels[1, 0] = (9, 9, 9, 0)
    pixels[1, 1] = (0, 0, 0, 128)
    found = decode(saved(tmp_path / "a.png", pixels), channels=3, max_bytes=LIMIT)
    assert np.asarray(found.image)[0].tolist() == [[200, 0, 0]] * 2
    assert np.asarray(found.image)[1, 0].tolist() == [255] * 3
    assert abs(int(np.asarray(found.image)[1, 1, 0]) - 127) <= 1
    assert found.converted == ("RGB with transparency, shown over white",)
    gray = saved(tmp_path / "b.png", pixels[..., 2:])
    assert read(gray, 1)[1].tolist()[0] == 255


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    flat = np.zeros((4, 4, 3), dtype=np.uint8)
    flat[:2] = (10, 20, 30)
    flat[2:] = (250, 0, 0)
    image = Image.fromarray(flat).quantize(4)
    image.save(tmp_path / "a.png")
    index = image.getpixel((0, 0))
    image.save(tmp_path / "b.png", transparency=index)
    plain, clear = (decode(tmp_path / name, channels=3, max_bytes=LIMIT) for name in ("a.png", "b.png"))
    assert np.array_equal(np.asarray(plain.image), flat)
    assert plain.converted == ("palette",)
    assert np.asarray(clear.image)[0, 0].tolist() == [255] * 3
    assert np.asarray(clear.image)[3, 3].tolist() == [250, 0, 0]
    assert clear.converted == ("palette with transparency, shown over white",)


def test_cmyk_black_and_white_and_gray_in_color(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    found = decode(tmp_path / "a.jpg", channels=3, max_bytes=LIMIT)
    red, green, blue = np.asarray(found.image)[0, 0].tolist()
    assert red > 250
    assert max(green, blue) < 5
    assert (found.mode, found.converted) == ("CMYK", ("CMYK",))
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "b.png")
    bits = decode(tmp_path / "b.png", channels=1, max_bytes=LIMIT)
    assert (np.asarray(bits.image).tolist(), bits.converted) == ([[255, 0]], ("1-bit",))
    gray = saved(tmp_path / "c.png", picture(channels=1))
    assert decode(gray, channels=3, max_bytes=LIMIT).converted == ("gray",)
    assert decode(gray, channels=1, max_bytes=LIMIT).converted == ()


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(channels=1) // (i + 1)) for i in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    found = decode(tmp_path / "a.tif", channels=1, max_bytes=LIMIT)
    assert np.array_equal(np.asarray(found.image), picture(channels=1))
    assert found.converted == ("several frames, the first taken",)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_known_range_are_refused(tmp_path: Path, kind: type) -> None:
    file = saved(tmp_path / "a.tif", np.ones((4, 4), dtype=kind))
    assert reason_of(file) == module.UNKNOWN_RANGE


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "ring.jpg").symlink_to(tmp_path / "ring.jpg")
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert reason_of(tmp_path / "empty.jpg") == EMPTY
    assert reason_of(tmp_path / "text.jpg") == NO_IMAGE
    assert reason_of(tmp_path / "folder.jpg") == NO_FILE
    assert reason_of(tmp_path / "pipe.jpg") == NO_FILE
    assert reason_of(tmp_path / "lost.jpg") == MISSING
    assert reason_of(tmp_path / "ring.jpg") == module.UNREADABLE
    assert reason_of(tmp_path / "page.jpg") == NO_IMAGE  # Pillow would run Ghostscript on it


def test_a_truncated_image_is_broken_and_half_of_it_is_not_taken(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.jpg", picture(64, 64)).read_bytes()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    assert reason_of(tmp_path / "b.jpg") == BROKEN


def test_a_huge_sparse_file_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    with file.open("wb") as opened:
        opened.truncate(10 * 10**9)
    began = time.perf_counter()
    assert reason_of(file) == "is larger than 64 MB"
    assert time.perf_counter() - began < 1
    small = saved(tmp_path / "b.png", picture())
    size = small.stat().st_size
    assert reason_of(small, size - 1) == f"is larger than {(size - 1) / 1e6:g} MB"
    assert decode(small, channels=3, max_bytes=size).width == 16


@pytest.mark.parametrize("side", [10_000, 20_000])  # below and above Pillow's own error
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path: Path, side: int) -> None:
    head = Image.new("1", (side, 1))
    whole = io.BytesIO()
    head.save(whole, "PNG")
    data = bytearray(whole.getvalue())
    data[20:24] = side.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(bytes(data))
    assert reason_of(tmp_path / "a.png") == "has more than 89 million pixels"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.bmp", "a.gif", "a.jp2", "a.ppm"])
def test_damage_gives_an_image_or_a_reason_and_nothing_else(tmp_path: Path, name: str) -> None:
    whole = saved(tmp_path / name, picture(24, 24)).read_bytes()
    draw = random.Random(name)
    outcomes = set()
    for _ in range(150):
        data = bytearray(whole[: draw.randrange(1, len(whole) + 1)])
        for _ in range(draw.randrange(4)):
            # damage to the first bytes meets more branches than damage to the pixels
            data[draw.randrange(min(len(data), draw.choice((64, len(data)))))] = draw.randrange(256)
        (tmp_path / name).write_bytes(bytes(data))
        try:
            outcomes.add(decode(tmp_path / name, channels=3, max_bytes=LIMIT).image.mode)
        except UnusableImageError as error:
            outcomes.add(error.reason)
    assert outcomes & {BROKEN, NO_IMAGE}
    assert outcomes <= {
        "RGB", BROKEN, NO_IMAGE, module.TOO_MANY_PIXELS, module.UNKNOWN_RANGE,
    }  # fmt: skip
