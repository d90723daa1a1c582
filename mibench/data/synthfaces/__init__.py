"""Procedural faces: any number of people, any size, with known identity factors and no download.

A person is a point in a space of continuous factors (head, skin, eyes, brows, nose, mouth, hair, beard,
glasses); a picture of that person adds pose, light, expression and background. Both come from a
counter-based hash, so picture (identity, image) is the same in every batch and on every machine's CPU.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from .factors import FACTOR_NAMES, NUISANCE_NAMES, VERSION, keys, nuisances, uniforms
from .render import picture

__all__ = ["FACTOR_NAMES", "VERSION", "SynthFaces"]

_CHUNK_PIXELS: Final = {"cpu": 2**17, "cuda": 2**22}  # painted at once: stays in cache; fills a GPU


@dataclass(frozen=True, kw_only=True)
class SynthFaces:
    """A world of procedural faces.

    Args:
        size: rows and columns of a picture in pixels, in [16, 256]; 32 or more to look human.
        channels: 3 for sRGB, 1 for its luma.
        seed: which world; another seed has other people.
        nuisance: scale of pose, light, expression, background and noise, in [0, 2]; 0 gives identical
            portraits of a person.

    Raises:
        ValueError: a field lies outside its range.

    Example:
        >>> SynthFaces(size=32).render(torch.tensor([7, 7]), torch.tensor([0, 1])).shape
        torch.Size([2, 3, 32, 32])
    """

    size: int = 32
    channels: int = 3
    seed: int = 0
    nuisance: float = 1.0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 256:
            raise ValueError(f"synthfaces: size must lie in [16, 256], got {self.size}.")
        if self.channels not in (1, 3):
            raise ValueError(f"synthfaces: channels must be 1 or 3, got {self.channels}.")
        if not 0 <= self.nuisance <= 2:
            raise ValueError(f"synthfaces: nuisance must lie in [0, 2], got {self.nuisance}.")

    def factors(self, identities: Tensor) -> Tensor:
        """Return the identity factors of people.

        Args:
            identities: (N,) int64, any values.

        Returns:
            (N, F) float32 in [0, 1), on the device of `identities`; columns as in FACTOR_NAMES.

        Raises:
            ValueError: `identities` is not a vector of int64.
        """
        check_ids("identities", identities)
        return uniforms(keys(self.seed, identities), len(FACTOR_NAMES))

    def render(self, identities: Tensor, images: Tensor, *, device: torch.device | str = "cpu") -> Tensor:
        """Return one picture for each pair of identity and image number.

        Args:
            identities: (N,) int64, any values.
            images: (N,) int64, any values; which picture of that person.
            device: where to paint and to return. A GPU differs from a CPU in the last bits only.

        Returns:
            (N, channels, size, size) float32 in [0, 1].

        Raises:
            ValueError: the arguments are not vectors of int64 of one length.
        """
        check_ids("identities", identities)
        check_ids("images", images)
        if len(identities) != len(images):
            lengths = f"{len(identities)} and {len(images)}"
            raise ValueError(f"synthfaces: identities and images must have one length, got {lengths}.")
        place = torch.device(device)
        out = torch.empty((len(images), self.channels, self.size, self.size), device=place)
        step = max(1, _CHUNK_PIXELS.get(place.type, _CHUNK_PIXELS["cpu"]) // (self.size * self.size * 4))
        for i in range(0, len(images), step):
            part = slice(i, i + step)
            out[part] = self._paint(identities[part].to(place), images[part].to(place))
        return out

    def _paint(self, identities: Tensor, images: Tensor) -> Tensor:
        """Return the pictures of one chunk."""
        key = keys(self.seed, identities, images)
        values = torch.cat([self.factors(identities), nuisances(key, self.nuisance)], dim=1)
        traits = dict(zip(FACTOR_NAMES + NUISANCE_NAMES, values[:, :, None, None].unbind(1)))
        image = picture(traits, key, size=self.size, strength=self.nuisance)
        if self.channels == 3:
            return image
        red, green, blue = image.unbind(1)
        return (red * 0.299 + green * 0.587 + blue * 0.114)[:, None]  # luma of ITU-R BT.601


def check_ids(name: str, ids: Tensor) -> None:
    """Raise ValueError unless `ids` is a vector of int64."""
    if ids.dim() != 1 or ids.dtype != torch.int64:
        raise ValueError(f"synthfaces: {name} must be a vector of int64, got {ids.dtype} {tuple(ids.shape)}.")
