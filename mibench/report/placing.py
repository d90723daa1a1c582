"""Where labels go on a figure so that they hide neither each other nor what they name; all in points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from matplotlib import font_manager

Box = tuple[float, float, float, float]  # left, bottom, right, top
Spot = tuple[float, float]
Side = tuple[str, str, int, int]  # alignment across and up, offset

_DISTANCES = (5.0, 8.0, 11.0, 15.0, 20.0, 26.0, 33.0, 41.0, 50.0, 62.0)  # points from marker to label
_ANGLES = tuple(
    math.radians(turn) for turn in (0, 180, 90, 270, 45, 135, 225, 315, 20, 160, 200, 340, 67, 113, 247, 293)
)
_TOUCHED, _HIDDEN, _OUTSIDE, _CROSSED = 60.0, 800.0, 800.0, 30.0  # costs of a label beside its distance
_FINER = 10
_ROUNDS = 4  # labels are placed anew this often, for the first ones did not know the last


def around(x: float, y: float, half_width: float, half_height: float) -> Box:
    """The box about a point."""
    return x - half_width, y - half_height, x + half_width, y + half_height


def beside(x: float, y: float, size: Spot, side: Side) -> Box:
    """The box of a label of this (width, height) on one side of a point."""
    across, up, dx, dy = side
    width, height = size
    shift = {"center": 0.0, "left": width / 2, "right": -width / 2}[across]
    lift = {"center": 0.0, "bottom": height / 2, "top": -height / 2}[up]
    return around(x + dx + shift, y + dy + lift, width / 2, height / 2)


def overlap(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Width of text in the figures' font."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans", fallback_to_default=False))
    font.set_size(size, 72 * _FINER)  # hinting rounds to pixels
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / _FINER


def wrap(words: Sequence[str], width: float, size: float) -> list[str]:
    """Words in lines that are no wider than `width`, but for a word that is wider itself."""
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def place(spots: Sequence[Spot], sizes: Sequence[Spot], area: Box, obstacles: Sequence[Box]) -> list[Box]:
    """A box for the label of each spot: near it, inside the area, off obstacles and other labels.

    Args:
        spots: what the labels name.
        sizes: (width, height) of each label.
        area: where labels may lie.
        obstacles: what they should not cover, the markers of the spots above all.
    """
    near = [sum(math.dist(one, other) < 30 for other in spots) for one in spots]
    order = sorted(range(len(spots)), key=lambda index: (-near[index], index))  # the crowded ones first
    found: dict[int, Box] = {}
    for _ in range(_ROUNDS):
        for index in order:
            taken = [*obstacles, *(box for other, box in found.items() if other != index)]
            leaders = [leader(spots[i], box) for i, box in found.items() if i != index]
            found[index] = _best(spots[index], sizes[index], area, taken, leaders)
    return [found[index] for index in range(len(spots))]


def leader(spot: Spot, box: Box) -> tuple[Spot, Spot]:
    """The shortest line from a label's box to its spot."""
    return spot, (min(max(spot[0], box[0]), box[2]), min(max(spot[1], box[1]), box[3]))


def _best(
    spot: Spot, size: Spot, area: Box, taken: Sequence[Box], leaders: Sequence[tuple[Spot, Spot]]
) -> Box:
    """The cheapest box for one label."""
    best, least = around(*spot, size[0] / 2, size[1] / 2), math.inf
    for distance in _DISTANCES:
        if distance >= least:  # all further ones cost more
            break
        for rank, angle in enumerate(_ANGLES):
            x = spot[0] + math.cos(angle) * (distance + size[0] / 2)
            y = spot[1] + math.sin(angle) * (distance + size[1] / 2)
            box = around(x, y, size[0] / 2, size[1] / 2)
            cost = distance + rank * 0.1 + _cost(spot, box, area, taken, leaders)
            if cost < least:
                best, least = box, cost
    return best


def _cost(
    spot: Spot, box: Box, area: Box, taken: Sequence[Box], leaders: Sequence[tuple[Spot, Spot]]
) -> float:
    """What a label hides, where it leaves the area, and the lines that cross it or that its own crosses."""
    whole = (box[2] - box[0]) * (box[3] - box[1])
    hidden = sum(overlap(box, other) for other in taken) / whole
    outside = 1 - overlap(box, area) / whole
    start, end = leader(spot, box)
    crossed = sum(_crosses(start, end, other) for other in taken if not _holds(other, start))
    crossed += sum(_crosses(*line, box) for line in leaders)
    return _TOUCHED * (hidden > 0) + _HIDDEN * hidden + _OUTSIDE * outside + _CROSSED * crossed


def _crosses(start: Spot, end: Spot, box: Box) -> bool:
    """Whether a line runs through a box, looked at in eight places."""
    steps = (step / 8 for step in range(1, 9))
    return any(
        _holds(box, (start[0] + (end[0] - start[0]) * s, start[1] + (end[1] - start[1]) * s)) for s in steps
    )


def _holds(box: Box, spot: Spot) -> bool:
    return box[0] < spot[0] < box[2] and box[1] < spot[1] < box[3]
