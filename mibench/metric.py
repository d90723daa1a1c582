"""The metric abstraction, and the estimate with its interval that every metric returns."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.data.split import Labeled
from mibench.nets.classifier import Classifier
from mibench.plugin import Context, Plugin
from mibench.victim import LabelVictim


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Args:
        value: the estimate; NaN where nothing could be measured.
        low: lower end of the interval; equal to value where the metric has none.
        high: upper end.
        count: number of things averaged (images, draws); printed beside FID, whose bias depends on it.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class ProtectedVictim:
    """One deployed model of a cell and the labels that it protects."""

    victim: LabelVictim
    protects: tuple[int, ...]
    decoy: int | None = None


@dataclass
class Case:
    """Everything about one cell that a metric may look at.

    Args:
        got: reconstructions of every attacked label, over all models of the cell.
        protected: (B,) bool, whether the reconstructed label is one that its model protects.
        victims: the deployed models: one, or one per protected label.
        private_train: real private training images.
        private_test: real private test images.
        defender_public: the defender's labeled public images.
        judge: the evaluation classifier, never seen by an attack or a defense.
        audit: a second judge of another architecture, or None where the suite has none.
        truth: (B, C, H, W), float32 in [0, 1]; the image behind each reconstruction, where the attack had
            the goal "instance"; None where it had the goal "class".
    """

    got: Reconstructions
    protected: Tensor
    victims: tuple[ProtectedVictim, ...]
    private_train: Labeled
    private_test: Labeled
    defender_public: Labeled
    judge: Classifier
    max_batch: int = 256
    audit: Classifier | None = None
    truth: Tensor | None = None

    @cached_property
    def features(self) -> Tensor:
        """The judge's penultimate features of the reconstructions, (B, D), float32, on the CPU."""
        return self.judge_features(self.got.images)

    @cached_property
    def real_features(self) -> tuple[Tensor, Tensor]:
        """The same of the training images of attacked protected labels, (M, D), and their labels, (M,)."""
        labels = self.got.targets[self.protected].unique().tolist()
        real = self.private_train.of(*labels)
        return self.judge_features(real.images) if labels else self.features[:0], real.labels

    @cached_property
    def logits(self) -> Tensor:
        """The judge's logits of the reconstructions, (B, K), float32, on the CPU."""
        device = next(self.judge.parameters()).device
        with torch.no_grad():
            return torch.cat(
                [self.judge.head(part.to(device)).cpu() for part in self.features.split(self.max_batch)]
            )

    def judge_features(self, images: Tensor) -> Tensor:
        """The judge's penultimate features of images (N, C, H, W): (N, D), float32, on the CPU."""
        device = next(self.judge.parameters()).device
        with torch.no_grad():
            parts = [self.judge.features(part.to(device)).cpu() for part in images.split(self.max_batch)]
        return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Metric(Plugin):
    """A number about a cell. `better` is the defender's view; `percent` metrics are fractions in [0, 1]."""

    better: ClassVar[Literal["lower", "higher"]]
    percent: ClassVar[bool] = False
    title: ClassVar[str]

    @abstractmethod
    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The estimate, or None where the metric makes no sense for the case (far_decoy without a decoy)."""
