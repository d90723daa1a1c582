"""The discriminator of the inversion-specific GAN, which also tells the identities apart.

Source: Chen et al., ICCV 2021 (KED-MI, arXiv:2010.04092) and its authors' code, 64 px and base
width 64. It gives K logits d and no logit for fakes: that one is fixed at 0, so the probability
of being real is sigmoid(logsumexp(d)).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mibench.nets.classifier import center
from mibench.nets.shapes import pyramid

_SLOPE = 0.2  # of every leaky ReLU; KED-MI's code


class MinibatchDiscrimination(nn.Module):
    """How close each feature lies to the others of its batch, seen through `num_kernels` maps.

    For features f (N, in_dim) and a learned tensor T, M = f T and
    o[i, b] = sum over j != i of exp(-|M[i, b] - M[j, b]|_1). Output: (N, num_kernels), in [0, N - 1].
    Source: Salimans et al., NeurIPS 2016 (arXiv:1606.03498); sizes and start from KED-MI's code.

    Args:
        in_dim: length of a feature.
        num_kernels: number of maps, 64 in KED-MI.
        kernel_dim: length of a mapped feature, 50 in KED-MI.
        init_std: standard deviation of T at the start, 1 in KED-MI.
    """

    def __init__(
        self, in_dim: int, *, num_kernels: int = 64, kernel_dim: int = 50, init_std: float = 1.0
    ) -> None:
        super().__init__()
        self.kernels = (num_kernels, kernel_dim)
        self.weight = nn.Parameter(torch.randn(in_dim, num_kernels * kernel_dim) * init_std)

    def forward(self, f: Tensor) -> Tensor:
        """Closeness of features f (N, in_dim) to each other, (N, num_kernels)."""
        mapped = (f @ self.weight).unflatten(1, self.kernels).transpose(0, 1)
        distance = torch.cdist(mapped, mapped, p=1.0)  # (num_kernels, N, N)
        return (torch.exp(-distance).sum(2) - 1.0).T  # an image's distance to itself is 0


class InversionDiscriminator(nn.Module):
    """Images (N, channels, size, size) in [0, 1] to logits (N, num_classes) over public labels.

    With `minibatch` the logits depend on the whole batch.

    Args:
        num_classes: number of classes K of the attacked net.
        width: channels of the first map, 64 in KED-MI; later maps double, the last one does not.
        size: image height and width, 4 to 7 times a power of two and at least 8.
        channels: image channels.
        minibatch: append minibatch discrimination to the feature.
        init_std: see `MinibatchDiscrimination`.

    Raises:
        ValueError: `size` is no such multiple.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        width: int = 64,
        size: int = 64,
        channels: int = 3,
        minibatch: bool = True,
        init_std: float = 1.0,
    ) -> None:
        super().__init__()
        start, doublings = pyramid(size)
        widths = [channels, *(width * 2**power for power in range(doublings - 1))]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += _down(inputs, outputs, kernel=5)
        last = widths[-1] if doublings > 1 else width
        layers += _down(widths[-1], last, kernel=3)
        self.body = nn.Sequential(*layers)
        self.feature_dim = last * start**2
        self.minibatch = MinibatchDiscrimination(self.feature_dim, init_std=init_std) if minibatch else None
        extra = self.minibatch.kernels[0] if self.minibatch else 0
        self.head = nn.Linear(self.feature_dim + extra, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Features of x before the minibatch layer, (N, feature_dim); each depends on its image only."""
        hidden: Tensor = self.body(center(x))
        return hidden.flatten(1)

    def logits(self, f: Tensor) -> Tensor:
        """Logits of features f (N, feature_dim), (N, num_classes)."""
        joined = f if self.minibatch is None else torch.cat([f, self.minibatch(f)], 1)
        out: Tensor = self.head(joined)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x, (N, num_classes)."""
        return self.logits(self.features(x))


def _down(inputs: int, outputs: int, *, kernel: int) -> list[nn.Module]:
    """Strided conv, instance norm, leaky ReLU: half the height and width."""
    return [
        nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.LeakyReLU(_SLOPE),
    ]
