"""Labeled images and the frozen division of a data set by identity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.errors import DataError, LeakError
from mibench.noise import repeats


@dataclass(frozen=True)
class Labeled:
    """Images with labels.

    Args:
        images: (N, C, H, W), float32 in [0, 1], multiples of 1/255 (they are stored as bytes).
        labels: (N,), int64, in [0, num_classes).
        identities: names of the people; `identities[label]` is who the label stands for.
    """

    images: Tensor
    labels: Tensor
    identities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise DataError(
                f"labeled images: {tuple(self.images.shape)} images and {tuple(self.labels.shape)} labels do "
                "not fit. Give (N, C, H, W) images and (N,) labels."
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, c, h, w = self.images.shape
        return c, h, w

    def of(self, *labels: int) -> Labeled:
        """The images of some labels."""
        rows = torch.isin(self.labels, torch.tensor(labels, dtype=self.labels.dtype))
        return Labeled(self.images[rows], self.labels[rows], self.identities)

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
        return self.images[torch.tensor(rows, dtype=torch.int64)]

    def to(self, device: torch.device) -> Labeled:
        """The same images on a device."""
        return Labeled(self.images.to(device), self.labels.to(device), self.identities)


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


def check_disjoint(parts: dict[str, tuple[str, ...]]) -> None:
    """Raise LeakError where one identity name stands in two of the named parts."""
    names = list(parts)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            shared = sorted(set(parts[one]) & set(parts[other]))
            if shared:
                raise LeakError(
                    f"split: identity '{shared[0]}' is both in the {one} and the {other} part "
                    f"({len(shared)} such). Give every person to one part."
                )


def quantize(images: Tensor) -> Tensor:
    """Images in [0, 1] as bytes, uint8, as they are stored."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def dequantize(pixels: Tensor) -> Tensor:
    """Bytes as images in [0, 1], float32."""
    return pixels.to(torch.float32) / 255
