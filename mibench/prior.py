"""Priors: what is learned from public images alone, as a value that names its architecture and training.

A `PriorSpec` is the key of a prior. The attacker trains it on the attacker's half of the public images; a
defense that knows the attack's prior (NetGuard, GAN-D) trains the same spec on the defender's half. A defense
may also choose a prior that learns from labels: the defender's public images have some, the attacker's none.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

from pydantic import ConfigDict
from torch import Tensor

from mibench.data.split import Labeled
from mibench.errors import PluginError
from mibench.noise import Noise
from mibench.plugin import Context

Prior = dict[str, Tensor]
Shape = tuple[int, int, int]
NO_LABELS = (
    "it learns from labels, and the attacker's public images have none. Choose a prior without labels, or "
    "let a defense train it as its substitute."
)


class LatentSpace(Protocol):
    """A trained generator seen as a space to search in. All tensors are float32, on one device."""

    dim: int

    def start(self, noise: Noise) -> Tensor:
        """Random latents (B, dim) of the prior's own distribution, one row per noise stream."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of latents (B, dim), differentiable, each row by itself."""
        ...

    def project(self, latents: Tensor) -> Tensor:
        """Latents (B, dim) moved to the nearest point of the region where images are natural."""
        ...

    def realism(self, images: Tensor) -> Tensor:
        """Realism loss (B,) of images by the prior's own critic; lower is more natural."""
        ...


@runtime_checkable
class LabeledSpace(LatentSpace, Protocol):
    """The space of a generator that is told a label: the latents hold a mixture of labels, to be searched."""

    def of_label(self, label: int) -> LatentSpace:
        """The space of one label of the images that the generator learned from."""
        ...

    def realism_of(self, latents: Tensor, images: Tensor) -> Tensor:
        """Realism loss (B,) of the images of latents (B, dim), told their mixtures of labels."""
        ...


@runtime_checkable
class DrawnSpace(LatentSpace, Protocol):
    """A space whose latents have a part that is drawn and not searched, so that several draws are tried."""

    draws: int


@dataclass(frozen=True, kw_only=True)
class PriorSpec(ABC):
    """Architecture and training of a generative prior; subclasses add fields and two methods.

    `is_ready`: somebody else has trained it, and `fit` looks at no image. `has_critic`: the loaded space can
    say how natural an image is.

    `search_fields` names the fields that only a search in the trained prior reads: they do not change what
    is trained, so they are no part of its key. `needs_labels`: it cannot learn from an attacker's images.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    needs_labels: ClassVar[bool] = False
    is_ready: ClassVar[bool] = False
    has_critic: ClassVar[bool] = True
    search_fields: ClassVar[frozenset[str]] = frozenset()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def training_params(self) -> dict[str, Any]:
        """The fields that decide what is trained, as JSON values."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name not in self.search_fields}

    def as_table(self) -> dict[str, Any]:
        """All fields as a suite would write them."""
        return dataclasses.asdict(self)

    def as_key(self) -> dict[str, Any]:
        """All fields as they enter a key: of a user's file the digest, and no path."""
        return self.as_table()

    def beside(self, folder: Path) -> Self:
        """The spec with the paths of its files taken relative to a folder, the suite's; it may have none."""
        return self

    @abstractmethod
    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """Weights learned from public images (M, C, H, W), float32 in [0, 1], as float16 or float32."""

    def fit_labeled(self, public: Labeled, ctx: Context) -> Prior:
        """As `fit`, from the defender's labeled public images; the default leaves the labels out."""
        return self.fit(public.images, ctx)

    @abstractmethod
    def load(self, prior: Prior, shape: Shape, ctx: Context) -> LatentSpace:
        """The trained generator for images of `shape`, frozen, on ctx.device."""


@dataclass(frozen=True, kw_only=True)
class LabeledPriorSpec(PriorSpec):
    """A prior that learns from labeled images, which the defender alone has; subclasses add two methods."""

    needs_labels: ClassVar[bool] = True

    def fit(self, public: Tensor, ctx: Context) -> Prior:
        """Always refused; see `fit_labeled`.

        Raises:
            PluginError: there are no labels to learn from.
        """
        raise PluginError(f"prior {self.kind}: {NO_LABELS}")

    @abstractmethod
    def fit_labeled(self, public: Labeled, ctx: Context) -> Prior:
        """Weights learned from the defender's labeled public images, as float16 or float32."""
