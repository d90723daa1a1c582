"""A split of procedural faces: no download, any number of people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict

from mibench.data.source import PARTS, Part
from mibench.data.split import Labeled, quantize
from mibench.data.synthfaces import VERSION, SynthFaces

# far apart, so that a part keeps its people and its images when another part grows
_PART_STRIDE = 10_000_000
_FIRST_TEST_IMAGE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class SynthFacesData:
    """Numbers of procedural people and images; see `mibench.data.synthfaces.SynthFaces`.

    Args:
        size: image height and width in pixels, in [16, 256].
        channels: 3 or 1.
        seed: which world of people.
        nuisance: scale of pose, light, expression and background, in [0, 2].
        private: people that the victim knows, >= 2.
        private_images: training images of each, >= 1.
        test_images: test images of each, >= 1.
        public: people on the attacker's public images, >= 1.
        public_images: images of each, >= 1.
        defender: people on the defender's public images, >= 2.
        defender_images: images of each, >= 1.
    """

    kind: ClassVar[str] = "synthfaces"
    version: ClassVar[int] = VERSION
    size: int = 32
    channels: int = 3
    seed: int = 0
    nuisance: float = 1.0
    private: int = 20
    private_images: int = 40
    test_images: int = 10
    public: int = 100
    public_images: int = 10
    defender: int = 40
    defender_images: int = 10
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        self._world()
        for name in ("private", "defender"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be >= 2 people, got {getattr(self, name)}.")
        for name in ("private_images", "test_images", "public", "public_images", "defender_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}.")

    def part_params(self, part: Part) -> dict[str, Any]:
        """The world, and the numbers of this part alone; see Source."""
        own = {"private": ("private", "private_images", "test_images")}.get(part, (part, f"{part}_images"))
        names = ("size", "channels", "seed", "nuisance", *own)
        return {"part": part, **{name: getattr(self, name) for name in names}}

    def locator(self) -> dict[str, Any]:
        """All numbers; see Source."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def beside(self, _folder: Path) -> SynthFacesData:
        """The same, for it reads no file; see Source."""
        return self

    def told(self) -> dict[str, Any]:
        """Nothing; see Source."""
        return {}

    def identities(self) -> dict[Part, tuple[str, ...]]:
        """Names by world and number; see Source."""
        counts = {"private": self.private, "public": self.public, "defender": self.defender}
        return {
            part: tuple(f"synthfaces-{self.seed}-{index * _PART_STRIDE + i}" for i in range(counts[part]))
            for index, part in enumerate(PARTS)
        }

    def load(self, part: Part) -> tuple[Labeled, Labeled | None]:
        """The rendered images of a part; see Source."""
        images = {"private": self.private_images, "public": self.public_images}.get(
            part, self.defender_images
        )
        test = self._render(part, _FIRST_TEST_IMAGE, self.test_images) if part == "private" else None
        return self._render(part, 0, images), test

    def _world(self) -> SynthFaces:
        return SynthFaces(
            size=self.size, channels=self.channels, seed=self.seed, nuisance=float(self.nuisance)
        )

    def _render(self, part: Part, first: int, count: int) -> Labeled:
        names = self.identities()[part]
        labels = torch.arange(len(names)).repeat_interleave(count)
        numbers = (first + torch.arange(count)).repeat(len(names))
        faces = self._world().render(PARTS.index(part) * _PART_STRIDE + labels, numbers)
        return Labeled(quantize(faces), labels, names)
