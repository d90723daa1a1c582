"""Labeled images and the frozen division of a data set by identity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from mibench.data.disjoint import check_disjoint
from mibench.errors import DataError
from mibench.noise import repeats


@dataclass(frozen=True)
class Labeled:
    """Images with labels, held as bytes where they come from a data set.

    Bytes may lie in a memory-mapped file: of those only what is asked for is ever read.

    Args:
        pixels: (N, C, H, W); bytes, uint8, or float32 in [0, 1].
        labels: (N,), int64, in [0, num_classes).
        identities: names of the people; `identities[label]` is who the label stands for.
    """

    pixels: Tensor
    labels: Tensor
    identities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or len(self.pixels) != len(self.labels):
            raise DataError(
                f"labeled images: {tuple(self.pixels.shape)} images and {tuple(self.labels.shape)} labels do "
                "not fit. Give (N, C, H, W) images and (N,) labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, c, h, w = self.pixels.shape
        return c, h, w

    @cached_property
    def images(self) -> Tensor:
        """All images, (N, C, H, W), float32 in [0, 1]; made when first asked for, and then kept.

        They take four times the memory of the bytes; `rows` and `chunks` never hold more than their share.
        """
        return as_float(self.pixels)

    @property
    def stored(self) -> Tensor:
        """All images as they are stored, (N, C, H, W), uint8."""
        return self.pixels if self.pixels.dtype == torch.uint8 else quantize(self.pixels)

    def rows(self, index: Tensor) -> Tensor:
        """The images of row numbers (B,), int64, each >= 0: (B, C, H, W), float32, where the pixels lie."""
        return as_float(self.taken(index))

    def taken(self, index: Tensor) -> Tensor:
        """The same in the type of `pixels`."""
        # of bytes, indexing by brackets takes twenty times as long: it copies one by one
        return self.pixels.index_select(0, index.to(self.pixels.device))

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Up to `size` images after another, float32, with their labels; in order, each once."""
        for x, y in zip(self.pixels.split(size), self.labels.split(size)):
            yield as_float(x), y

    def of(self, *labels: int) -> Labeled:
        """The images of some labels."""
        wanted = torch.tensor(labels, dtype=self.labels.dtype, device=self.labels.device)
        return self.subset(torch.isin(self.labels, wanted).nonzero().flatten())

    def subset(self, index: Tensor) -> Labeled:
        """The images of row numbers (B,), int64, each >= 0, with their labels."""
        return Labeled(self.taken(index), self.labels[index], self.identities)

    def in_turn(self, labels: Tensor) -> Tensor:
        """An image of each of labels (B,), int64: for its i-th repeat the i-th one, again after the last.

        Returns:
            (B, C, H, W), float32.

        Raises:
            DataError: a label has no image.
        """
        turns = zip(labels.tolist(), repeats(labels).tolist())
        rows = []
        for label, turn in turns:
            own = (self.labels == label).nonzero().flatten()
            if len(own) == 0:
                raise DataError(f"labeled images: none shows label {label}. Choose another label.")
            rows.append(own[turn % len(own)])
        return self.rows(torch.tensor(rows, dtype=torch.int64))

    def to(self, device: torch.device) -> Labeled:
        """The same images on a device; bytes stay bytes."""
        return Labeled(self.pixels.to(device), self.labels.to(device), self.identities)


@dataclass(frozen=True)
class Split:
    """A named, frozen division; no identity stands in two of its three parts.

    Args:
        private_train: images that the victim and the judges are trained on.
        private_test: other images of the same people.
        public: (M, C, H, W), float32 in [0, 1]; the attacker's half of the public images, without labels.
        public_identities: who is on `public`, for the leak check alone.
        defender_public: the defender's half: other people, labeled.
        num_classes: number of private identities K.
    """

    private_train: Labeled
    private_test: Labeled
    public: Tensor
    public_identities: tuple[str, ...]
    defender_public: Labeled
    num_classes: int

    def check(self) -> Split:
        """This split; LeakError where one identity stands in two parts."""
        check_disjoint(
            {
                "private": self.private_train.identities,
                "attacker's public": self.public_identities,
                "defender's public": self.defender_public.identities,
            }
        )
        return self


def quantize(images: Tensor) -> Tensor:
    """Images in [0, 1] as bytes, uint8, as they are stored."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def dequantize(pixels: Tensor) -> Tensor:
    """Bytes as images in [0, 1], float32; the same bits on every device."""
    if pixels.device.type == "cpu":
        return pixels.to(torch.float32, copy=True).div_(255)  # in place: memory is what this waits for
    return _levels(pixels.device)[pixels.int()]


def as_float(pixels: Tensor) -> Tensor:
    """Images in [0, 1], float32: dequantized bytes, or the same tensor if it is none of bytes."""
    return dequantize(pixels) if pixels.dtype == torch.uint8 else pixels


@cache
def _levels(device: torch.device) -> Tensor:
    """The 256 values that a byte can mean, (256,), float32, divided on the CPU.

    By a number CUDA does not divide: it multiplies with the rounded reciprocal, and the last bit may differ.
    """
    return (torch.arange(256, dtype=torch.float32) / 255).to(device)
