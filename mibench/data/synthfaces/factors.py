"""Identity factors, per-image nuisances and the colors that follow from them.

Every number comes from a counter-based hash of (seed, identity, image, slot), so a value depends
on its own counters alone: not on the batch it is drawn in, nor on any random generator.
Only additions, products, quotients and square roots occur below and in the renderer: IEEE 754 rounds
them correctly in scalar and vector code alike, which `exp` or `sin` do not promise. That is what
makes images bit-identical in every batch on a CPU.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

VERSION: Final = 1

FACTOR_NAMES: Final[tuple[str, ...]] = (
    "head_width",
    "head_length",
    "jaw_width",
    "chin_square",
    "cheekbones",
    "skin_tone",
    "skin_warmth",
    "blush",
    "freckles",
    "mole",
    "mole_x",
    "mole_y",
    "eye_size",
    "eye_open",
    "eye_spacing",
    "eye_height",
    "eye_tilt",
    "iris",
    "eye_depth",
    "brow_thickness",
    "brow_angle",
    "brow_height",
    "nose_length",
    "nose_width",
    "nose_bridge",
    "mouth_width",
    "lip_fullness",
    "mouth_height",
    "lip_color",
    "hair_tone",
    "hair_red",
    "hair_gray",
    "hair_length",
    "hair_volume",
    "hairline",
    "parting",
    "fringe",
    "hair_curl",
    "ear_size",
    "beard",
    "beard_shape",
    "moustache",
    "glasses",
    "glasses_size",
    "glasses_tone",
    "neck_width",
)

NUISANCE_NAMES: Final[tuple[str, ...]] = (
    "yaw",
    "pitch",
    "roll",
    "shift_x",
    "shift_y",
    "zoom",
    "light_x",
    "light_y",
    "light_gain",
    "light_warmth",
    "mouth_open",
    "smile",
    "brow_raise",
    "lid",
    "ground_level",
    "ground_warmth",
    "ground_tint",
    "ground_slope",
    "shirt_level",
    "shirt_warmth",
    "shirt_tint",
    "blur",
)

# Monk Skin Tone scale, tones 1 to 9 (Monk, 2019, CC BY 4.0; skintone.google), sRGB hexadecimal.
_MONK: Final = (0xF6EDE4, 0xF3E7DB, 0xF7EAD0, 0xEADABA, 0xD7BD96, 0xA07E56, 0x825C43, 0x604134, 0x3A312A)
# Anchors by eye, from photographs: black, dark brown, brown, light brown, blond; brown to blue irises.
_HAIR: Final = (0x17130F, 0x2F1E14, 0x5A3A22, 0x94683C, 0xD9B370)
_IRIS: Final = (0x2A170D, 0x5B3517, 0x7A6428, 0x4F7A4C, 0x3F78A8, 0x8CA9B8)

_GOLDEN: Final = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64: the odd integer next to 2**64 / phi


def mix(x: Tensor) -> Tensor:
    """Return the splitmix64 finalizer of every element.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with
    Stafford's mix 13. int64 products wrap around modulo 2**64; the masks make the shifts logical.

    Args:
        x: int64 of any shape.

    Returns:
        int64 of the same shape.
    """
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def keys(seed: int, identities: Tensor, images: Tensor | None = None) -> Tensor:
    """Return one hash key per identity, or per (identity, image) pair.

    Args:
        seed: any integer; its lowest 64 bits count.
        identities: (N,) int64.
        images: (N,) int64, or None for the key of the identities themselves.

    Returns:
        (N,) int64. Keys of identities and of images come from different streams.
    """
    start = (seed + 2**63) % 2**64 - 2**63
    key = mix(torch.full_like(identities, start) + _GOLDEN)
    key = mix((key ^ identities) + _GOLDEN)
    return key if images is None else mix((key ^ mix(images + _GOLDEN)) - _GOLDEN)


def uniforms(key: Tensor, count: int) -> Tensor:
    """Return `count` uniform numbers per key.

    Args:
        key: (N,) int64.
        count: numbers per key, >= 1.

    Returns:
        (N, count) float32, multiples of 2**-24 in [0, 1).
    """
    slots = torch.arange(1, count + 1, device=key.device)
    bits = mix(key[:, None] + slots * _GOLDEN)
    return ((bits >> 40) & 0xFFFFFF).float() * 2.0**-24


def nuisances(key: Tensor, strength: float) -> Tensor:
    """Return the nuisances of every image, centered on zero.

    Args:
        key: (N,) int64, one per image.
        strength: scale of all nuisances, >= 0.

    Returns:
        (N, len(NUISANCE_NAMES)) float32 in [-strength, strength], triangular: rarely extreme.
    """
    count = len(NUISANCE_NAMES)
    pair = uniforms(key, 2 * count)
    return (pair[:, :count] + pair[:, count:] - 1) * strength


def gate(x: Tensor, low: float, high: float) -> Tensor:
    """Return 0 below `low`, 1 above `high` and the smoothstep between.

    Args:
        x: float32 of any shape.
        low: where the rise starts.
        high: where it ends, unequal to `low`.

    Returns:
        float32 in [0, 1], same shape.
    """
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def blend(low: Tensor | float, high: Tensor | float, t: Tensor) -> Tensor:
    """Return low + (high - low) * t, broadcast; float32."""
    return t * (high - low) + low


def ramp(palette: tuple[int, ...], t: Tensor) -> Tensor:
    """Return the color at t along a palette, linear between neighbors.

    Args:
        palette: at least two sRGB colors as 0xRRGGBB.
        t: (N, 1, 1, 1) float32 in [0, 1].

    Returns:
        (N, 3, 1, 1) float32 in [0, 1].
    """
    place = t * (len(palette) - 1)
    color = t.new_zeros(()).expand(t.shape[0], 3, 1, 1)
    for i, code in enumerate(palette):
        color = color + rgb(code, t) * (1 - (place - i).abs()).clamp(min=0)
    return color


def rgb(code: int, like: Tensor) -> Tensor:
    """Return 0xRRGGBB as a (1, 3, 1, 1) float32 tensor in [0, 1] on the device of `like`."""
    return (
        torch.tensor([code >> 16, (code >> 8) & 255, code & 255], device=like.device).view(1, 3, 1, 1) / 255
    )


def colors(f: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the natural colors of each person: skin, lips, hair, brows, iris.

    Args:
        f: factors by name, each (N, 1, 1) float32 in [0, 1].

    Returns:
        (N, 3, 1, 1) float32 in [0, 1] by name.
    """
    g = {name: value[:, None] for name, value in f.items()}
    skin = ramp(_MONK, g["skin_tone"] * 0.94)
    cool, warm = rgb(0xFFDCD6, skin), rgb(0xFFE8CE, skin)
    skin = skin * blend(cool, warm, g["skin_warmth"])
    rose = rgb(0xB8303C, skin)
    lips = skin * (1 - 0.30 * g["lip_color"]) * rgb(0xF0A8A0, skin)
    lips = blend(lips, rose, 0.10 + 0.40 * g["lip_color"] * gate(g["beard"], 0.75, 0.45))
    # Dark skin goes with dark hair more often than not, and pale hair on it would hide the brows.
    tone = g["hair_tone"] * (1 - 0.7 * gate(g["skin_tone"], 0.40, 0.80))
    hair = ramp(_HAIR, tone)
    red = rgb(0x8A4426, skin) * (0.6 + 0.5 * tone)
    hair = blend(hair, red, 0.9 * gate(g["hair_red"], 0.72, 0.9) * gate(g["skin_tone"], 0.7, 0.5))
    hair = blend(hair, rgb(0xB4B2AE, skin), 0.95 * gate(g["hair_gray"], 0.80, 0.92))
    iris_tone = g["iris"] * (1 - 0.75 * gate(g["skin_tone"], 0.5, 0.75))
    frame = ramp((0x16161A, 0x3A2218, 0x7A1F24, 0x9A8F80), g["glasses_tone"])
    return {
        "skin": skin,
        "lips": lips,
        "hair": hair,
        "brow": blend(hair * 0.62, skin * 0.42, skin.new_tensor(0.25)),
        "iris": ramp(_IRIS, iris_tone),
        "frame": frame,
    }
