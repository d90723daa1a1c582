"""The metric abstraction, and the estimate with its interval that every metric returns."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.data.split import Labeled
from mibench.embedder import Embedder, centroids, embed
from mibench.errors import PluginError, WeightsError
from mibench.memory import in_chunks
from mibench.nets.classifier import Classifier, head_logits
from mibench.plugin import Context, Plugin
from mibench.precision import exact
from mibench.victim import LabelVictim
from mibench.weights import weights_digest

Need = Literal["audit", "embedder", "public"]
NEEDS: tuple[Need, ...] = get_args(Need)


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
    """One deployed model of a cell and the labels that it protects.

    Args:
        victim: the model.
        protects: labels.
        decoy: label of the defender's public person that is to mislead, or None.
        test_answers: (N,), int64, the labels that it gives to all private test images; None to ask it.
        public_answers: (M,), int64, the same of all of the defender's public images.
    """

    victim: LabelVictim
    protects: tuple[int, ...]
    decoy: int | None = None
    test_answers: Tensor | None = None
    public_answers: Tensor | None = None


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
        embedder: a space of faces that knows nobody private, or None where the suite has none.
        public: the attacker's labeled public images; None unless a metric of the suite needs them.
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
    embedder: Embedder | None = None
    public: Labeled | None = None

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
        return head_logits(self.judge, self.features, max_batch=self.max_batch)

    def judge_logits(self, images: Tensor) -> Tensor:
        """The judge's logits of images (N, C, H, W), float32 in [0, 1]: (N, K), float32, on the CPU."""
        return head_logits(self.judge, self.judge_features(images), max_batch=self.max_batch)

    def judge_features(self, images: Tensor) -> Tensor:
        """The judge's penultimate features of images (N, C, H, W): (N, D), float32, on the CPU."""
        device = next(self.judge.parameters()).device

        def told(part: Tensor) -> Tensor:
            return self.judge.features(part.to(device)).cpu()

        with torch.no_grad(), exact(device):
            return in_chunks(told, images, rows=self.max_batch, what="features of the judge")

    @cached_property
    def audit_logits(self) -> Tensor:
        """The audit judge's logits of the reconstructions, (B, K), float32, on the CPU."""
        audit = given(self.audit, "audit")
        device = next(audit.parameters()).device

        def told(part: Tensor) -> Tensor:
            logits: Tensor = audit(part.to(device))
            return logits.cpu()

        with torch.no_grad(), exact(device):
            return in_chunks(told, self.got.images, rows=self.max_batch, what="answers of the audit judge")

    def test_answers(self, model: ProtectedVictim) -> Tensor:
        """The labels (N,), int64, that a model of the cell gives to the private test images."""
        known = model.test_answers
        return model.victim.labels(self.private_test.images) if known is None else known

    def public_answers(self, model: ProtectedVictim, person: int | None = None) -> Tensor:
        """The labels (M,), int64, that a model gives to the defender's public images, or to one person's."""
        public, known = self.defender_public, model.public_answers
        if known is not None:
            return known if person is None else known[public.labels == person]
        return model.victim.labels((public if person is None else public.of(person)).images)

    @cached_property
    def points(self) -> Tensor:
        """Where the reconstructions lie in the embedder's space: (B, D), float32, of length 1."""
        return embed(given(self.embedder, "embedder"), self.got.images, max_batch=self.max_batch)

    @cached_property
    def private_points(self) -> Tensor:
        """The same of the private training images, (N, D)."""
        images = self.private_train.pixels
        return embed(given(self.embedder, "embedder"), images, max_batch=self.max_batch)

    @cached_property
    def public_points(self) -> Tensor:
        """The same of the attacker's public images, (M, D)."""
        images = given(self.public, "public").pixels
        return embed(given(self.embedder, "embedder"), images, max_batch=self.max_batch)

    @cached_property
    def likeness(self) -> Tensor:
        """Cosines of reconstructions and private people's centroids in the embedder's space, (B, K)."""
        return self.points @ centroids(self.private_points, self.private_train.labels).T


T = TypeVar("T")


def given(part: T | None, name: str) -> T:
    """A part of a case that a metric declared in `needs`; PluginError where the case lacks it."""
    if part is None:
        raise PluginError(
            f"metric: the cell has no '{name}'. Name it in the metric's `needs`, and in the suite."
        )
    return part


@dataclass(frozen=True, kw_only=True)
class Metric(Plugin):
    """A number about a cell. `better` is the defender's view; `percent` metrics are fractions in [0, 1].

    `needs` names the parts of a case that not every suite has: `audit` and `embedder`, which a suite without
    such a table lacks, and `public`, which is read only where a metric asks for it. `asks_public`: whether it
    asks the deployed models about all of the defender's public images, which is then done once for all
    cells. `files` names the fields that are paths of a user's files.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()
    asks_public: ClassVar[bool] = False
    better: ClassVar[Literal["lower", "higher"]]
    percent: ClassVar[bool] = False
    title: ClassVar[str]
    files: ClassVar[tuple[str, ...]] = ()

    def key_params(self) -> dict[str, Any]:
        """See Plugin.key_params; of a user's file the digest, so that no key holds a path.

        Raises:
            WeightsError: a field of `files` is empty, or its file cannot be read.
        """
        empty = [name for name, path in self.paths().items() if not path]
        if empty:
            raise WeightsError(
                f"metric '{self.name}': field '{empty[0]}' is empty. Give the path of a file in "
                f"[metric.{self.name}] of the suite."
            )
        digests = {name: weights_digest(path) for name, path in self.paths().items()}
        return {**super().key_params(), **digests}

    def paths(self) -> dict[str, str]:
        """The fields that `files` names; they travel beside the key."""
        return {name: getattr(self, name) for name in self.files}

    @classmethod
    def planned(cls, params: dict[str, Any], paths: dict[str, str]) -> Self:
        """The metric of a task: `params` are its hashed fields, `paths` those of a user's files.

        Raises:
            WeightsError: a file is not the one that was planned with.
        """
        metric = cls.from_params({**params, **paths})
        if paths and metric.key_params() != params:
            raise WeightsError(
                f"metric '{cls.name}': {', '.join(paths.values())} has changed since the plan. Run again."
            )
        return metric

    @abstractmethod
    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        """The estimate, or None where the metric makes no sense for the case (far_decoy without a decoy)."""
