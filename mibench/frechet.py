"""The Frechet distance between two clouds of points."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The Frechet distance between the Gaussians with the means and sample covariances of two clouds.

    |m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a^1/2 S_b S_a^1/2)^1/2, in float64, S with divisor N - 1.
    Source: Dowson and Landau, J. Multivariate Anal. 12 (1982); as the FID: Heusel et al., NeurIPS 2017.

    With S = R^T R, where R is the triangular factor of the centered points / sqrt(N - 1), the last trace is
    the sum of the singular values of R_a R_b^T. That needs no square root of a singular matrix, whose
    rounding (about 1e-8 for each null direction) a decomposition of S_a^1/2 S_b S_a^1/2 would add up.

    Args:
        a: (N, D), N >= 2.
        b: (M, D), M >= 2.

    Raises:
        ValueError: fewer than two points in a cloud.

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
    9.0
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"frechet_distance: a covariance needs two points, got {len(a)} and {len(b)}.")
    x, y = a.double(), b.double()
    r, s = _factor(x), _factor(y)
    cross = torch.linalg.svdvals(r @ s.T).sum()
    apart = (x.mean(0) - y.mean(0)).square().sum()
    distance = apart + r.square().sum() + s.square().sum() - 2 * cross
    return max(0.0, float(distance))  # rounding takes equal clouds a hair below 0


def _factor(points: Tensor) -> Tensor:
    """Triangular R, (min(N, D), D), with R^T R the sample covariance of points (N, D)."""
    centered = (points - points.mean(0)) / (len(points) - 1) ** 0.5
    factor: Tensor = torch.linalg.qr(centered, mode="r")[1]
    return factor
