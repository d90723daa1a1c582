"""Painters of the face itself: skin, nose, eyes, brows, mouth, beard, glasses."""

from typing import Final

from torch import Tensor

from .factors import blend, gate, rgb
from .frame import Canvas, blob, wave

# Shadows on skin turn red: light that has gone through it lost its blue (by eye, from photographs).
_SHADOW: Final = (0.86, 1.0, 1.06)


def shade_skin(c: Canvas) -> Tensor:
    """Return the light on bare skin without the features, (N, R, C) float32, about 1 on the brow."""
    f = c.f
    side = c.u / f["w"]
    rise = c.v / f["h"]
    facing = (1 - 0.85 * (side * side + rise * rise)).clamp_(min=0.05).sqrt_()
    lamp_x, lamp_y = f["light_x"] * 0.48, f["light_y"] * 0.25 - 0.15
    lit = side.mul_(lamp_x).add_(rise.mul_(lamp_y)).add_(facing.mul_(0.60)).add_(0.38)
    return lit.clamp_(0.25, 1.25)


def paint_skin(c: Canvas) -> None:
    """Paint the bare head: skin color, relief, blush, freckles, mole."""
    f, sharp = c.f, shade_skin(c)
    relief(c, sharp)
    skin = c.color["skin"] * shadows(sharp)
    cheek = blob((c.p.abs() - 0.30) / 0.26, (c.q - 0.17) / 0.24) * (f["blush"] * 0.24)
    skin += (c.color["skin"] * rgb(0xF0786E, skin) - skin).mul_(cheek[:, None])
    c.paint(c.edge(c.skull), skin)
    paint_spots(c.window(-0.5, 0.9, 0.8))


def shadows(lit: Tensor) -> Tensor:
    """Return (N, 3, R, C) factors on skin color for a light level of (N, R, C)."""
    hue = lit.new_tensor(_SHADOW).view(1, 3, 1, 1)
    return 1 + (lit - 1)[:, None] * hue


def relief(c: Canvas, lit: Tensor) -> None:
    """Darken the hollows of a face in place: sockets, nose, folds, under the lips.

    Args:
        c: the canvas.
        lit: (N, R, C) light level.
    """
    f = c.f
    fold = c.p.abs()
    socket = blob((fold - f["eye_x"]) / 0.17, (c.q - f["eye_y"] + 0.01) / 0.13)
    lit -= socket * blend(0.02, 0.26, f["eye_depth"])
    wing = blend(0.055, 0.125, f["nose_width"])
    bridge = blend(0.035, 0.075, f["nose_bridge"])
    nose_p = c.p - f["yaw"] * 0.05
    along = (c.q - f["eye_y"]) / (f["nose_y"] - f["eye_y"])
    flank = blob((nose_p.abs() - bridge - (wing - bridge) * along) / 0.06, (along - 0.5) / 0.72)
    lean = (nose_p * 8).clamp_(-1, 1) * f["light_x"].clamp(-1, 1)
    lit -= flank * (0.19 - 0.20 * lean)
    lit += blob(nose_p / (0.5 * wing + 0.02), (along - 0.62) / 0.62) * 0.15
    under = blob(nose_p / (wing * 1.25), (c.q - f["nose_y"] - 0.035) / 0.06)
    lit -= under * 0.42
    chin = blob(c.p / 0.16, (c.q - f["mouth_y"] - 0.13) / 0.06)
    lit -= chin * 0.16
    crease = (f["smile"] * 0.5 + 0.5).clamp(0, 1) * 0.18
    line = fold - wing * 1.2 - 0.06 - (c.q - f["nose_y"]) * 0.45
    lit -= blob(line / 0.05, (c.q - 0.5 * (f["nose_y"] + f["mouth_y"])) / 0.16) * crease


def paint_spots(c: Canvas) -> None:
    """Paint freckles on nose and cheeks, and one mole somewhere on the face."""
    f = c.f
    seed = f["mole_x"] + 3 * f["mole_y"]
    dots = wave(c.p * 11 + c.q * 5 + seed) * wave(c.q * 13 - c.p * 6 + seed * 5)
    area = blob(c.p / 0.42, (c.q - 0.10) / 0.2)
    dots = (dots - 0.35).clamp_(0, 0.3).mul_(area) * (gate(f["freckles"], 0.62, 0.9) * 1.9)
    spot = c.color["skin"] * rgb(0x9A5A3C, c.image)
    c.paint(dots, spot)
    mole_x = blend(-0.2, 0.2, f["mole_x"]) + (f["mole_x"] - 0.5).sign() * 0.12  # clear of the nose
    far = ((c.p - mole_x).square_() + (c.q - blend(0.05, 0.45, f["mole_y"])).square_()).sqrt_()
    c.paint(
        c.edge((0.024 - far).minimum(c.skull - 0.02)) * gate(f["mole"], 0.6, 0.75), c.color["skin"] * 0.28
    )


def paint_nose(c: Canvas) -> None:
    """Paint nostrils and the outer line of the wings."""
    f = c.f
    wing = blend(0.055, 0.125, f["nose_width"])
    side = (c.p - f["yaw"] * 0.05).abs()
    drop = c.q - f["nose_y"]
    hole = blob((side - wing * 0.55) / (wing * 0.42), (drop - 0.012) / 0.026)
    c.paint(hole.mul_(1.8).clamp_(max=0.85), c.color["skin"] * rgb(0x5A2E28, c.image))
    curl = blob((side - wing) / 0.026, (drop + 0.028) / 0.055)
    c.paint(curl.mul_(0.7), c.color["skin"] * rgb(0x8A4A3C, c.image))


def paint_eyes(c: Canvas) -> None:
    """Paint both eyes at once, in a frame mirrored at the nose."""
    f = c.f
    wide = blend(0.082, 0.136, f["eye_size"])
    lid = (1 + f["lid"] * 0.28).clamp(min=0.25)
    tall = wide * blend(0.42, 0.74, f["eye_open"]) * lid
    x = c.p.abs() - f["eye_x"]
    y = c.q - f["eye_y"] + blend(-0.22, 0.30, f["eye_tilt"]) * x
    bow = 1 - (x / wide).square_()
    upper = y + tall * bow
    white = c.edge(upper.minimum(tall * 0.62 * bow - y))
    shade = 0.80 + 0.16 * (upper / (tall * 0.8)).clamp_(0, 1)
    c.paint(white, rgb(0xF6F2EE, c.image) * shade[:, None])
    radius = wide * 0.50
    gaze = y + tall * 0.12
    r = (x * x + gaze * gaze).sqrt_()
    c.paint(white * c.edge(radius - r), c.color["iris"] * (0.62 + 0.5 * (r / radius).clamp_(0, 1))[:, None])
    c.paint(white * c.edge(radius * 0.46 - r), rgb(0x0A0808, c.image))
    glint_x = c.p - c.p.sign() * f["eye_x"] + radius * 0.35
    glint = ((glint_x * glint_x) + (gaze + radius * 0.35).square_()).sqrt_()
    c.paint(white * c.edge(radius * 0.26 - glint) * 0.9, rgb(0xFFFFFF, c.image))
    lash = c.edge(0.012 + 0.008 * bow - upper.abs()) * c.edge(wide * 1.04 - x.abs())
    c.paint(lash * 0.88, c.color["brow"] * 0.35)
    fold = c.edge(0.007 - (upper + 0.032 + 0.012 * bow).abs()) * (bow - 0.1).clamp_(0, 1)
    c.paint(fold * 0.5, c.color["skin"] * rgb(0x80503E, c.image))


def paint_brows(c: Canvas) -> None:
    """Paint both brows: thick at the nose, thin at the temples, arched by their angle."""
    f = c.f
    thick = blend(0.014, 0.050, f["brow_thickness"])
    x = c.p.abs() - f["eye_x"] - 0.005
    reach = 0.145
    s = x / reach
    lift = blend(0.115, 0.19, f["brow_height"]) + f["brow_raise"] * 0.035
    y = c.q - f["eye_y"] + lift + blend(-0.30, 0.38, f["brow_angle"]) * x - 0.05 * s * s
    body = thick * (1 - 0.35 * s - 0.25 * s * s)
    brow = c.edge(body - y.abs()) * (1 - s * s * s * s).clamp_(0, 1)
    c.paint(brow * 0.9, c.color["brow"])


def paint_mouth(c: Canvas) -> None:
    """Paint lips, and teeth where the mouth is open; corners rise with a smile."""
    f = c.f
    wide = blend(0.125, 0.235, f["mouth_width"]) * (1 + 0.10 * f["smile"])
    full = blend(0.024, 0.066, f["lip_fullness"])
    s2 = (c.p / wide).square_()
    bow = 1 - s2
    y = c.q - f["mouth_y"] + (f["smile"] * 0.060 + 0.030) * (s2 - 0.3)
    gap = (f["mouth_open"] * 0.075).clamp(min=0)
    top, low = y + gap * 0.35 * bow, y - gap * 0.65 * bow
    peak = (1 - (c.p / (wide * 0.32)).square_()).clamp_(min=0) * 0.22
    above = c.edge((top + full * (bow - peak)).minimum(-top))
    below = c.edge((full * 1.25 * bow - low).minimum(low))
    lips = c.color["lips"]
    c.paint(below, lips)
    c.paint(blob(c.p / (wide * 0.5), (low - full * 0.55) / (full * 0.6)) * below * 0.22, lips * 0.5 + 0.5)
    c.paint(above, lips * 0.78)
    inside = c.edge(top.minimum(-low)) * gate(gap, 0.004, 0.02)
    c.paint(inside, rgb(0x3A1214, c.image))
    teeth = c.edge((gap * 0.55 * bow - top).minimum(top)) * inside
    c.paint(teeth * 0.92, rgb(0xEFE8DE, c.image))
    seam = c.edge(0.008 - y.abs()) * c.edge(wide * 1.03 - c.p.abs()) * (1 - gate(gap, 0.004, 0.02))
    c.paint(seam * 0.85, lips * 0.30)


def paint_beard(c: Canvas) -> None:
    """Paint the beard along the jaw, and the moustache under the nose."""
    f = c.f
    strong = gate(f["beard"], 0.58, 0.92)
    side = c.p.abs()
    full = gate(f["beard_shape"], 0.25, 0.6)
    start = blend(f["mouth_y"] + 0.03, f["mouth_y"] - 0.04, full) - (side / f["w"]).square() * 0.34 * full
    tuft = (1 - ((side / 0.2).square() + ((c.q - f["mouth_y"] - 0.14) / 0.19).square()).sqrt_()) * 0.2
    grown = gate(blend(tuft, c.q - start, full), -0.03, 0.06)
    chin = c.edge(c.skull + 0.09 * strong * f["beard_shape"] * gate(c.v, 0.1, 0.6))
    grain = 0.94 + 0.06 * wave(c.p * 15 + c.q * c.p * 6)
    color = c.color["brow"] * (grain * (1 - 0.25 * gate(side / f["w"], 0.5, 1.1)))[:, None]
    c.paint(grown * chin * (strong * 0.92), color)
    bar = f["nose_y"] * 0.42 + f["mouth_y"] * 0.58
    s = side / 0.20
    drop = c.q - bar - 0.045 * s * s
    hair = gate(0.034 * (1.25 - 0.7 * s * s) - drop.abs(), -0.012, 0.016)
    c.paint(hair * (gate(f["moustache"], 0.62, 0.88) * 0.92), color)


def paint_glasses(c: Canvas) -> None:
    """Paint glasses, whose opacity rises from nothing as their factor grows."""
    f = c.f
    worn = gate(f["glasses"], 0.64, 0.76)
    half = blend(0.120, 0.172, f["glasses_size"])
    tall = half * blend(0.62, 0.92, f["glasses_tone"])
    side = c.p.abs()
    x, y = side - (f["eye_x"] + 0.01), c.q - f["eye_y"] - 0.012
    round_ = 0.55 * tall
    dx, dy = (x.abs() - half + round_).clamp_(min=0), (y.abs() - tall + round_).clamp_(min=0)
    rim = (dx * dx + dy * dy).sqrt_() - round_
    c.paint(c.edge(-rim) * (worn * 0.10), rgb(0xDCE8F4, c.image))
    ring = c.edge(0.016 - rim.abs())
    bridge = c.edge(0.012 - (y + 0.02).abs()) * c.edge(f["eye_x"] - half + 0.01 - side)
    temple = c.edge(0.012 - (y + 0.03).abs()) * c.edge(side - f["eye_x"] - half) * c.edge(c.skull + 0.01)
    c.paint(ring.maximum(bridge).maximum(temple) * (worn * 0.95), c.color["frame"])
