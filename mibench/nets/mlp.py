"""The two victims of the first model-inversion attack: softmax regression and a perceptron.

Source: Fredrikson, Jha and Ristenpart, CCS 2015 (MI-Face), face recognition on AT&T.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.nets.classifier import Classifier, NetSpec, center

_HIDDEN = 3000  # CCS 2015: one hidden layer of 3000 sigmoid units


class SoftmaxRegression(Classifier):
    """One linear layer on the pixels, which are also its features; spec.width must be 0.

    Raises:
        ValueError: spec.width is not 0; there is no hidden layer.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        if spec.width:
            raise ValueError(f"softmax_regression: has no hidden layer, got width {spec.width}. Leave it 0.")
        self.feature_dim = spec.channels * spec.size**2
        self.head = nn.Linear(self.feature_dim, spec.num_classes)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """The centered pixels of x, (N, feature_dim), alone."""
        return (center(x).flatten(1),)


class Mlp(Classifier):
    """One hidden layer of sigmoid units; spec.width counts them, 0 means 3000."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        self.feature_dim = spec.width or _HIDDEN
        self.hidden = nn.Linear(spec.channels * spec.size**2, self.feature_dim)
        self.head = nn.Linear(self.feature_dim, spec.num_classes)

    def blocks(self, x: Tensor) -> tuple[Tensor, ...]:
        """The hidden units of x, (N, feature_dim), alone."""
        return (torch.sigmoid(self.hidden(center(x).flatten(1))),)
