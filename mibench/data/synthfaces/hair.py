"""Painters of what surrounds the face: background, shoulders, neck, ears, hair."""

from collections.abc import Mapping

import torch
from torch import Tensor

from .factors import blend, gate
from .frame import Canvas, blob, wave


def tint(level: Tensor, warmth: Tensor, shift: Tensor) -> Tensor:
    """Return a muted color, (N, 3, 1, 1): a gray with a little warmth and a little green or violet.

    Args:
        level: (N, 1, 1) lightness in [0, 1].
        warmth: (N, 1, 1) red against blue.
        shift: (N, 1, 1) green against violet.
    """
    return torch.stack([level + warmth, level + shift, level - warmth], dim=1)


def paint_ground(c: Canvas) -> None:
    """Fill the picture with a soft vertical gradient of a muted color."""
    f, grid = c.f, c.image.shape[-1]
    color = tint(0.58 + 0.20 * f["ground_level"], 0.07 * f["ground_warmth"], 0.035 * f["ground_tint"])
    fall = (torch.arange(grid, device=color.device).float() / grid - 0.5)[:, None]
    c.image.copy_(color * (1 - (0.16 + 0.14 * f["ground_slope"]) * fall)[:, None])


def paint_back_hair(c: Canvas) -> None:
    """Paint the hair behind neck and shoulders, where it is long."""
    f = c.f
    bulk = blend(0.02, 0.17, f["hair_volume"])
    wide = f["w"] + bulk + 0.02
    ragged = curls(c)
    ends = hair_end(c)
    side = wide - c.u.abs() + ragged - (c.v - ends + 0.2).clamp(min=0).square_() * 1.2
    crown = (1 - ((c.u / wide).square() + (c.v / (f["h"] + bulk)).square()).sqrt_()) * wide
    # Short hair draws back behind the head: fading it out would let the background through.
    hidden = 0.35 * gate(f["length"], 0.44, 0.36) + 0.6 * bald(f)
    shape = torch.where(c.v < 0, crown, side).minimum(ends - c.v) - hidden
    fall = 0.62 - 0.12 * (c.v - 0.2).clamp(0, 1)
    c.paint(c.edge(shape), c.color["hair"] * fall[:, None])


def curls(c: Canvas) -> Tensor:
    """Return how far curls stand out from the outline of the hair, (N, R, C)."""
    return (wave(c.u * 3.1).square_() + wave(c.v * 2.7).square_() - 0.7) * (c.f["hair_curl"] * -0.026)


def hair_end(c: Canvas) -> Tensor:
    """Return how far down the hair reaches, (N, 1, 1): ears when short, shoulders when long."""
    return blend(-0.30, 1.15, c.f["length"] * (1 - 0.75 * bald(c.f)))


def bald(f: Mapping[str, Tensor]) -> Tensor:
    """Return how bald the crown is, (N, 1, 1) in [0, 1]."""
    return gate(f["hairline"], 0.12, 0.09)


def paint_body(c: Canvas) -> None:
    """Paint neck and shoulders; the head throws a shadow on the neck."""
    f = c.f
    side = c.u.abs()
    neck = f["w"] * blend(0.50, 0.74, f["neck_width"])
    flare = (c.v - 0.72).clamp(min=0)
    shade = 0.50 + 0.36 * gate(c.skull, 0.0, -0.28) - 0.16 * (side / neck).clamp(0, 1).square_()
    shade = shade + c.u * (f["light_x"] * 0.25)
    alpha = c.edge(neck + flare * flare * 2 - side) * c.edge(c.v - 0.1)
    c.paint(alpha, c.color["skin"] * shade[:, None])
    dip = (1 - (side / neck).square()).clamp_(-1, 1)
    collar = c.v - 0.96 - 0.30 * (side - neck).clamp(min=0) + 0.10 * dip
    shirt = tint(0.36 + 0.22 * f["shirt_level"], 0.10 * f["shirt_warmth"], 0.03 * f["shirt_tint"])
    c.paint(c.edge(collar), shirt * (1.05 - 0.35 * side)[:, None])


def paint_ears(c: Canvas) -> None:
    """Paint both ears; a turned head hides the far one."""
    f = c.f
    size = blend(0.055, 0.105, f["ear_size"])
    side = c.u.abs() - f["w"] * 0.985
    turn = c.u.sign() * f["yaw"] * 0.05
    x, y = (side + turn) / size, (c.v - f["eye_y"] - 0.11) / (size * 1.75)
    r2 = (x * x).add_(y * y)
    inner = blob((x - 0.25) * 1.5, y * 1.4)
    lit = 0.80 - 0.34 * inner + c.u * (f["light_x"] * 0.4)
    c.paint(c.edge((1 - r2.sqrt_()) * size), c.color["skin"] * lit[:, None])


def paint_hair(c: Canvas) -> None:
    """Paint the hair around the face: a cap around the skull, less an opening for the face."""
    f = c.f
    bulk = blend(0.015, 0.15, f["hair_volume"]) * blend(0.10, 1.0, gate(f["length"], 0.0, 0.30))
    wide = f["w"] + bulk * 0.75
    t = (c.v + bulk * 0.2) / (f["h"] + bulk)
    long = gate(f["length"], 0.36, 0.5) * (1 - bald(f))
    ends = hair_end(c)
    r2 = (c.u / wide).square_() + torch.where(c.v < 0, t * t, t * t * (1 - long))
    cap = (1 - r2.sqrt()).mul_(wide) + curls(c) * gate(f["length"], 0.05, 0.3)
    cap -= bald(f) * 0.4 * gate(-c.v, 0.0, 0.32)
    hair = c.edge(cap.minimum(ends - c.v)) * (1 - opening(c, long))
    thin = blend(0.55, 1.0, gate(f["length"], 0.02, 0.2))
    c.paint(hair * thin, c.color["hair"] * strands(c, r2)[:, None])


def opening(c: Canvas, long: Tensor) -> Tensor:
    """Return the part of the picture that hair leaves free for the face, (N, R, C) in [0, 1]."""
    f = c.f
    part = blend(-0.30, 0.30, f["parting"])
    fringe = gate(f["fringe"], 0.55, 0.85) * (1 - bald(f))
    top = blend(f["h"] * blend(-0.84, -0.58, f["hairline"]), f["eye_y"] - 0.19, fringe)
    lock = wave(c.p * 6 + 0.3) * (0.03 * fringe) + (c.p - part).abs() * (0.45 * (1 - fringe))
    wide = blend(f["w"] * 1.0, f["w"] * 0.86, long)
    x = (c.p * 0.5 + c.u * 0.5) / wide
    corner = x * x
    line = c.q - top - lock * (1 - 0.5 * fringe) - corner * corner * 0.22
    return c.edge(line.minimum((1 - x.abs()) * wide))


def strands(c: Canvas, r2: Tensor) -> Tensor:
    """Return the light on the hair, (N, R, C): a band of gloss, a darker rim, and strands.

    Args:
        c: the canvas.
        r2: (N, R, C) squared radius in the cap of hair.
    """
    f = c.f
    part = blend(-0.30, 0.30, f["parting"])
    x = c.u - part * (0.6 - c.v).clamp(0, 1)
    curl = f["hair_curl"] * wave(c.v * 5 + c.u) * 0.5
    comb = wave(x * 9 / (1.15 + c.v.clamp(-0.9, 0.6)) + curl) * 0.06
    gloss = (1 - ((r2 - 0.62) * 4).square_()).clamp_(min=0) * 0.30 * (0.35 - c.v).clamp_(0, 1)
    return (0.90 + comb + gloss + c.u * (f["light_x"] * 0.45) - 0.16 * r2.clamp(0, 1.2)).clamp_(0.2, 1.5)
