"""Which labels are attacked, and what an attack may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from mibench.noise import derive_seed

_FORBID = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Which labels are attacked.

    Args:
        protected: number of labels l_t that the defenses protect, >= 1.
        bystanders: number of other labels attacked on each model that protects one label, >= 0.
        attacked: number of labels attacked on every other model, the protected ones included.
        images: reconstructions of each label, >= 1.
        labels: the protected labels; empty draws them by the seed.
    """

    protected: int = 1
    bystanders: int = 1
    attacked: int = 4
    images: int = 4
    labels: tuple[int, ...] = ()
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        for name, least in (("protected", 1), ("bystanders", 0), ("images", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be >= {least}, got {getattr(self, name)}.")
        if self.attacked < self.protected:
            raise ValueError(
                f"attacked must be >= protected = {self.protected}, got {self.attacked}. It includes them."
            )
        if self.labels and (len(set(self.labels)) != self.protected or len(self.labels) != self.protected):
            raise ValueError(f"labels must be {self.protected} different labels, got {list(self.labels)}.")

    def draw(self, num_classes: int, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The protected labels, and the other attacked ones, of `num_classes` labels for a seed."""
        order = sorted(range(num_classes), key=lambda label: derive_seed(seed, "targets", label))
        protected = self.labels or tuple(order[: self.protected])
        others = [label for label in order if label not in protected]
        return protected, tuple(others[: max(self.attacked - self.protected, self.bystanders)])


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an attack may use.

    Args:
        max_queries: images that an attack may ask the victim about for each reconstruction; None counts only.
        max_batch: images in one chunk; changes speed and memory; results are equal up to rounding.
    """

    max_queries: int | None = None
    max_batch: int = 256
    __pydantic_config__: ClassVar[ConfigDict] = _FORBID

    def __post_init__(self) -> None:
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"max_queries must be >= 1, got {self.max_queries}.")
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be >= 1, got {self.max_batch}.")
