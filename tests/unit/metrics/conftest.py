"""A cell small enough to count by hand: images of one row, whose pixels are the judge's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from mibench.attack import Reconstructions
from mibench.data.split import Labeled
from mibench.metric import Case, ProtectedVictim
from mibench.nets import Classifier, NetSpec
from mibench.victim import LabelVictim, freeze

CLASSES = 8
Rows = Sequence[tuple[float, ...]]


class PixelJudge(Classifier):
    """Features are the pixels; the logits say how near each pixel row is to a label's one-hot."""

    def __init__(self, pixels: int = CLASSES) -> None:
        super().__init__(NetSpec(name="pixels", channels=1, size=pixels, num_classes=CLASSES))
        self.feature_dim = pixels
        self.head = nn.Linear(pixels, CLASSES, bias=False)
        nn.init.eye_(self.head.weight)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x.flatten(1),)


def labeled(rows: Rows, labels: Sequence[int]) -> Labeled:
    return Labeled(torch.tensor(rows)[:, None, None, :], torch.tensor(labels))


def one_hots(labels: Sequence[int]) -> Rows:
    return [tuple(float(place == label) for place in range(CLASSES)) for label in labels]


def victim() -> LabelVictim:
    """Says the place of the brightest pixel."""
    return LabelVictim(lambda x: x.flatten(1).softmax(1), shape=(1, 1, CLASSES), num_classes=CLASSES)


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case() -> MakeCase:
    def make(
        images: Rows,
        targets: Sequence[int],
        *,
        protected: Sequence[int] | None = None,
        models: Sequence[tuple[tuple[int, ...], int | None]] = (((0,), None),),
        train: Labeled | None = None,
        test: Labeled | None = None,
        public: Labeled | None = None,
    ) -> Case:
        """A cell; by default every target is protected and real images are one-hots of their label."""
        real = labeled(one_hots(range(CLASSES)), range(CLASSES))
        got = labeled(images, targets)
        shielded = set(targets if protected is None else protected)
        judge = PixelJudge(len(images[0]))
        freeze(judge)
        return Case(
            got=Reconstructions.collect(got.images, got.labels),
            protected=torch.tensor([target in shielded for target in targets]),
            victims=tuple(ProtectedVictim(victim(), protects, decoy) for protects, decoy in models),
            private_train=real if train is None else train,
            private_test=real if test is None else test,
            defender_public=real if public is None else public,
            judge=judge,
        )

    return make
