from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mibench.data.near_duplicates import (
    MOVES,
    SIDE,
    Move,
    bit_count,
    count_by_table,
    hashes,
    is_flat,
    matches,
    small_pictures,
)
from mibench.data.split import quantize
from mibench.data.synthfaces import SynthFaces

Pixels = NDArray[np.uint8]


def faces(count: int, *, first: int = 0, size: int = 64) -> Pixels:
    """Images (count, 3, size, size) of as many people."""
    people = first + torch.arange(count)
    return quantize(SynthFaces(size=size).render(people, torch.zeros_like(people))).numpy()


def small(pixels: Pixels) -> Pixels:
    return small_pictures(pixels, range(len(pixels)))


def encoded(pixels: Pixels) -> Pixels:
    out = []
    for one in pixels:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(one.transpose(1, 2, 0))).save(file, "JPEG", quality=50)
        out.append(np.asarray(Image.open(file)).transpose(2, 0, 1))
    return np.stack(out)


def scaled(pixels: Pixels, factor: float) -> Pixels:
    return np.asarray(np.clip(pixels * factor, 0, 255), dtype=np.uint8)


def shifted(pixels: Pixels, right: int, down: int) -> Pixels:
    padded = np.pad(pixels, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge")
    side = pixels.shape[-1]
    return padded[:, :, 4 - down : 4 - down + side, 4 - right : 4 - right + side]


def noise(pixels: Pixels) -> Pixels:
    return np.clip(pixels + np.random.default_rng(0).normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)


def gray(pixels: Pixels) -> Pixels:
    return np.asarray(pixels.mean(axis=1, keepdims=True), dtype=np.uint8).repeat(3, axis=1)


@pytest.mark.parametrize(
    "copied",
    [
        encoded,
        gray,
        noise,
        lambda x: x[:, :, :, ::-1],
        lambda x: encoded(x[:, :, :, ::-1]),
        lambda x: scaled(x, 0.6),
        lambda x: scaled(x, 1.15),
        lambda x: shifted(x, 1, 1),
        lambda x: shifted(x, -2, 2),
        lambda x: encoded(shifted(x[:, :, :, ::-1], 2, -1)),
    ],
)
def test_copies_are_found_and_strangers_are_not(copied: object) -> None:
    assert callable(copied)
    ours = faces(12)
    theirs = np.concatenate([faces(12, first=100), copied(ours[4:8])])
    found = matches(small(ours), small(theirs))
    assert [(one.left, one.right) for one in found] == [(4, 12), (5, 13), (6, 14), (7, 15)]


def test_a_match_says_what_was_done_to_the_image() -> None:
    ours = faces(3)
    found = matches(small(ours), small(shifted(ours[1:2, :, :, ::-1], 2, -1)))
    assert [(one.left, one.right, one.move) for one in found] == [
        (1, 0, Move(mirrored=True, right=2, down=-1))
    ]
    assert found[0].bits <= 2  # what the move fills at the edge is hashed too
    assert found[0].correlation == pytest.approx(1, abs=1e-5)


def test_the_most_alike_of_several_is_told() -> None:
    original = faces(1)
    ours = np.concatenate([noise(original), original, scaled(original, 0.5)])
    assert [one.left for one in matches(small(ours), small(original))] == [1]


def test_other_sizes_are_compared_alike() -> None:
    large = faces(4, size=128)
    half = large.reshape(4, 3, 64, 2, 64, 2).mean(axis=(3, 5)).astype(np.uint8)
    assert [(one.left, one.right) for one in matches(small(large), small(half))] == [(k, k) for k in range(4)]


def test_flat_images_match_nothing_and_other_pairs_stay() -> None:
    flat = np.stack([np.full((3, 64, 64), level, dtype=np.uint8) for level in (0, 128, 255)])
    speckled = (flat[1:2] + np.random.default_rng(0).integers(0, 2, (1, 3, 64, 64))).astype(np.uint8)
    both = np.concatenate([flat, speckled, faces(1)])
    assert is_flat(small(both)).tolist() == [True, True, True, True, False]
    assert [(one.left, one.right) for one in matches(small(both), small(both))] == [(4, 4)]


def test_nearly_equal_hashes_alone_are_no_match() -> None:
    """Any pair passes the hash at 64 bits, so what remains is what correlates."""
    ours, theirs = small(faces(8)), small(faces(8, first=50))
    everything = matches(ours, theirs, most_bits=64, least_correlation=-1.0, moves=(Move(),))
    assert len(everything) == 8
    assert matches(ours, theirs, most_bits=64) == []


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (0, 0)])
def test_empty_parts_match_nothing(left: int, right: int) -> None:
    assert matches(small(faces(3)[:left]), small(faces(3)[:right])) == []


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = small(faces(9))
    theirs = small(noise(faces(9))[::-1])
    whole = matches(ours, theirs)
    monkeypatch.setattr("mibench.data.near_duplicates._CHUNK", 20)
    monkeypatch.setattr("mibench.data.near_duplicates._PICTURES", 2)
    assert matches(ours, theirs) == whole
    assert len(whole) == 9


def test_hashes_are_those_of_imagehash() -> None:
    halves = np.stack([np.asarray(Image.fromarray(one).resize((32, 32))) for one in small(faces(20))])
    wanted = [np.packbits(imagehash.phash(Image.fromarray(one)).hash).tobytes() for one in halves]
    assert [code.tobytes() for code in hashes(halves.astype(np.float32))] == wanted


def test_hashes_know_neither_brightness_nor_contrast() -> None:
    halves = small(faces(10))[:, ::2, ::2].astype(np.float32)
    assert np.array_equal(hashes(halves), hashes(halves * 0.5))
    apart = bit_count(hashes(halves) ^ hashes(halves + 20))
    assert apart.max() <= 2  # the mean itself is one of the frequencies


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
def test_both_ways_of_counting_bits_agree(words: list[int]) -> None:
    array = np.array(words, dtype=np.uint64)
    wanted = [word.bit_count() for word in words]
    assert bit_count(array).tolist() == wanted
    assert count_by_table(array[None]).tolist() == [wanted]


def test_gray_and_color_give_pictures_of_one_size() -> None:
    color = faces(2, size=32)
    assert small(color).shape == small(color[:, :1]).shape == (2, SIDE, SIDE)
    assert small(color).dtype == np.uint8


def test_every_move_is_reported_once() -> None:
    steps: list[int] = []
    matches(small(faces(1)), small(faces(1)), advance=steps.append)
    assert steps == [1] * len(MOVES)
