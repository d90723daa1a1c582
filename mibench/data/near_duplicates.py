"""Images that are one picture: re-encoded, mirrored, brighter, or moved by a few pixels.

Candidates have nearly the same perceptual hash; a candidate counts where the two small pictures also
correlate, because a hash of 64 bits keeps little of a face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels of a small picture; it is moved at this size, and hashed at half of it
MOST_SHIFT = 2  # pixels of a small picture each way: 3 % of an image's side
MOST_BITS = 6
LEAST_CORRELATION = 0.95
_LEAST_SPREAD = 2.0  # levels: the standard deviation below which a picture has no structure to compare
_KEPT = 8  # low frequencies each way, so 64 bits
_CHUNK = 2**20  # pairs at a time: what fits into a core's cache
_PICTURES = 2048  # small pictures at a time as float numbers

Words = NDArray[np.uint64]
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Move:
    """How a picture is changed before it is compared: mirrored first, then moved by whole pixels of SIDE."""

    mirrored: bool = False
    right: int = 0
    down: int = 0


@dataclass(frozen=True)
class Match:
    """The image of the left part that is nearest to one of the right part.

    Args:
        left: index of the left image.
        right: index of the right image.
        bits: hash bits that differ, 0 to 64.
        correlation: of the two small pictures, in [-1, 1].
        move: what was done to the left image.
    """

    left: int
    right: int
    bits: int
    correlation: float
    move: Move


MOVES = tuple(
    Move(mirrored, right, down)
    for mirrored, right, down in product(
        (False, True), range(-MOST_SHIFT, MOST_SHIFT + 1), range(-MOST_SHIFT, MOST_SHIFT + 1)
    )
)


def small_pictures(pixels: NDArray[np.uint8], rows: Sequence[int]) -> NDArray[np.uint8]:
    """Gray pictures (len(rows), SIDE, SIDE), uint8, of some rows of images (N, C, H, W), uint8."""
    found = np.empty((len(rows), SIDE, SIDE), dtype=np.uint8)
    for place, row in enumerate(rows):
        one = pixels[row]
        image = Image.fromarray(np.ascontiguousarray(one[0] if len(one) == 1 else one.transpose(1, 2, 0)))
        found[place] = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return found


def hashes(halves: NDArray[np.float32]) -> Words:
    """Perceptual hashes: which low frequencies of a picture lie above their median.

    The bits are those of the package ImageHash's `phash`, which takes one image at a time and ten times as
    long; the method is from hackerfactor.com, "Looks Like It" (2011).

    Args:
        halves: (N, 32, 32) gray.

    Returns:
        (N,), 64 bits each.
    """
    from scipy.fft import dctn

    low = dctn(halves, axes=(1, 2))[:, :_KEPT, :_KEPT].reshape(len(halves), -1)
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def bit_count(words: Words) -> NDArray[np.uint8]:
    """The number of ones in each word, of any shape."""
    if hasattr(np, "bitwise_count"):  # since numpy 2
        return np.asarray(np.bitwise_count(words), dtype=np.uint8)
    return count_by_table(words)


def count_by_table(words: Words) -> NDArray[np.uint8]:
    """As `bit_count`, for older numpy, and some five times slower."""
    table = np.unpackbits(np.arange(2**16, dtype=np.uint16).view(np.uint8).reshape(-1, 2), axis=1).sum(axis=1)
    quarters = np.ascontiguousarray(words).view(np.uint16).reshape(*words.shape, 4)
    counted: NDArray[np.uint8] = table.astype(np.uint8)[quarters].sum(axis=-1, dtype=np.uint8)
    return counted


def is_flat(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which small pictures (N, SIDE, SIDE) have no structure, so that nothing is like them: (N,)."""
    flags = [part.std(axis=(1, 2)) < _LEAST_SPREAD for part in _parts(pictures)]
    return np.concatenate(flags) if flags else np.zeros(0, dtype=np.bool_)


def matches(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    *,
    most_bits: int = MOST_BITS,
    least_correlation: float = LEAST_CORRELATION,
    moves: Sequence[Move] = MOVES,
    advance: Advance = lambda _count: None,
) -> list[Match]:
    """For each right picture that some left picture shows too, the most alike one, by right index.

    Every pair is compared under every move of the left picture; flat pictures match nothing.

    Args:
        left: (N, SIDE, SIDE), uint8, see `small_pictures`.
        right: (M, SIDE, SIDE), uint8.
        most_bits: hash bits that may differ, 0 to 64.
        least_correlation: of the small pictures without their outermost pixels, in [-1, 1]; on faces it is
            what keeps apart two people photographed alike.
        moves: what may have been done to an image; the first of equal ones is told.
        advance: called with 1 after each move.
    """
    ours, theirs = (np.flatnonzero(~is_flat(part)) for part in (left, right))
    codes = _codes(right[theirs], Move())
    best: dict[int, Match] = {}
    for move in moves:
        for one, other, bits in _near(_codes(left[ours], move), codes, most_bits):
            rows, columns = ours[one], theirs[other]
            alike = _correlation(left, right, rows, columns, move)
            for place in np.flatnonzero(alike >= least_correlation):
                found = Match(
                    int(rows[place]), int(columns[place]), int(bits[place]), float(alike[place]), move
                )
                if found.right not in best or found.correlation > best[found.right].correlation:
                    best[found.right] = found
        advance(1)
    return [best[place] for place in sorted(best)]


def _near(
    left: Words, right: Words, most_bits: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    """Pairs of hashes that differ in few bits, as indices and numbers of bits, a few thousand at a time."""
    step = max(1, _CHUNK // max(1, len(right)))
    for start in range(0, len(left), step):
        apart = bit_count(left[start : start + step, None] ^ right[None]).reshape(-1)
        hits = np.flatnonzero(apart <= most_bits)
        for first in range(0, len(hits), _PICTURES):
            some = hits[first : first + _PICTURES]
            rows, columns = np.divmod(some, len(right))
            yield rows + start, columns, apart[some]


def _correlation(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
    move: Move,
) -> NDArray[np.float32]:
    """Pearson's correlation of the halved pictures of some pairs, without the pixels that a move fills."""
    ours, theirs = _standard(_halved(left[rows], move)), _standard(_halved(right[columns], Move()))
    alike: NDArray[np.float32] = np.einsum("nk,nk->n", ours, theirs)
    return alike


def _standard(halves: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = halves[:, 1:-1, 1:-1].reshape(len(halves), -1)
    inner = inner - inner.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(inner, axis=1, keepdims=True)
    return np.asarray(inner / np.maximum(lengths, 1e-6), dtype=np.float32)


def _codes(pictures: NDArray[np.uint8], move: Move) -> Words:
    found = [hashes(_halved(part, move)) for part in _parts(pictures)]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.uint64)


def _halved(pictures: NDArray[np.uint8], move: Move) -> NDArray[np.float32]:
    """Pictures after a move, (N, SIDE / 2, SIDE / 2): edge pixels repeated, then the mean of 2 x 2."""
    if move.mirrored:
        pictures = pictures[:, :, ::-1]
    places = np.arange(SIDE)
    rows, columns = (places - move.down).clip(0, SIDE - 1), (places - move.right).clip(0, SIDE - 1)
    moved = pictures[:, rows[:, None], columns[None]].astype(np.float32)
    halved: NDArray[np.float32] = moved.reshape(len(moved), SIDE // 2, 2, SIDE // 2, 2).mean(axis=(2, 4))
    return halved


def _parts(pictures: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pictures), _PICTURES):
        yield pictures[start : start + _PICTURES]
