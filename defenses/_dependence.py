"""How much two views of a batch depend on each other: Gram matrices, HSIC and COCO.

Every measure takes Gram matrices K, L (m, m), float64, of the same m images and returns a scalar. All are
differentiable in the matrices, also where rows repeat or do not vary at all. The matrices are small and in
double precision because entries that all lie near 1 and a ridge of 1e-5 leave float32 two digits.

Sources: HSIC, Gretton et al., ALT 2005; its normalized form, Fukumizu et al., NeurIPS 2007; constrained
covariance (COCO), Gretton et al., AISTATS 2005; centered alignment, Cortes et al., JMLR 2012. Its correction
for chance is ours.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["gaussian", "linear", "imq"]
MatrixNorm = Literal["frobenius", "spectral"]
Bandwidth = float | Literal["median"]
_TINY = 1e-12  # below it squares count as no variation
_ROUNDING = 1e-12  # square of the relative error of distances between rows in float32


def squared_distances(rows: Tensor) -> Tensor:
    """Squared Euclidean distances (m, m) between rows (m, d), >= 0, with finite gradients at zero."""
    # distances do not change with the mean, and rounding errors grow with what it leaves
    centered = rows - rows.mean(0)
    squares = centered.square().sum(1)
    off = 1 - torch.eye(len(rows), device=rows.device)  # a row is at no distance from itself, exactly
    return (squares[:, None] + squares - 2 * centered @ centered.T).clamp_min(0) * off


def gram(rows: Tensor, kernel: Kernel, sigma: Bandwidth) -> Tensor:
    """Gram matrix (m, m) of rows (m, ...), flattened, float64.

    Args:
        rows: any float tensor with one entry for each image.
        kernel: "linear", a @ b; "gaussian", exp(-|a - b|^2 / (2 sigma^2 d)) of rows of d numbers; "imq",
            1 / sqrt(|a - b|^2 + 1).
        sigma: bandwidth of the Gaussian kernel, > 0; "median" puts the median squared distance of two rows
            in the place of sigma^2 d, as a constant, so that the kernel does not hang on the rows' scale.
    """
    flat = rows.flatten(1).float()
    if kernel == "linear":
        return (flat @ flat.T).double()
    distances = squared_distances(flat).double()
    if kernel == "imq":
        return (distances + 1).rsqrt()
    if sigma == "median":
        scale = median_distance(distances)
    else:
        scale = torch.tensor(sigma**2 * flat.shape[1]).to(distances)
    return (-distances / (2 * scale)).exp()


def median_distance(distances: Tensor) -> Tensor:
    """Median of the squared distances (m, m) between different rows: a scalar > 0 without gradient."""
    above = torch.ones_like(distances).triu(1).bool()
    pairs = distances.detach()[above]
    return pairs.median().clamp_min(_TINY) if len(pairs) else torch.ones(()).to(distances)


def normalized_hsic(gram_a: Tensor, gram_b: Tensor, *, ridge: float) -> Tensor:
    """tr(R_A R_B) with R = C (C + ridge m I)^-1 and C the Gram matrix times the centering matrix.

    Between 0 and m - 1. With a small ridge every direction that varies at all counts as one, so the value
    is near the smaller rank of the two and says little about dependence.
    """
    trace: Tensor = (_resolved(gram_a, ridge) * _resolved(gram_b, ridge).T).sum()
    return trace


def plain_hsic(gram_a: Tensor, gram_b: Tensor) -> Tensor:
    """tr(K H L H) / (m - 1)^2, the biased estimate of HSIC; >= 0."""
    total = (_centered(gram_a) * _centered(gram_b)).sum()
    found: Tensor = total / max(1, len(gram_a) - 1) ** 2
    return found


def coco(gram_a: Tensor, gram_b: Tensor, *, norm: MatrixNorm) -> Tensor:
    """sqrt(||HKH HLH||) / m; the spectral norm makes it the constrained covariance."""
    product = _centered(gram_a) @ _centered(gram_b)
    size: Tensor = torch.linalg.matrix_norm(product, ord="fro" if norm == "frobenius" else 2)
    # the root has no finite slope at zero, which constant features reach
    root = size.clamp_min(_TINY).sqrt() * (size > _TINY)
    return root / len(gram_a)


def alignment(gram_a: Tensor, gram_b: Tensor) -> Tensor:
    """Cosine of the two centered Gram matrices, in [0, 1] for kernels; 0 where one does not vary."""
    one, other = _centered(gram_a), _centered(gram_b)
    lengths = one.square().sum() * other.square().sum()
    return (one * other).sum() / lengths.clamp_min(_TINY).sqrt()


def corrected_alignment(gram_a: Tensor, gram_b: Tensor) -> Tensor:
    """Alignment without what chance gives, in [-1, 1]: 1 for equal views, near 0 for independent ones.

    A centered Gram matrix is its mean eigenvalue on all m - 1 directions and a rest without trace. In high
    dimension rows are nearly at equal distances, and that mean is nearly all of it, whatever the rows show.
    The product of two means is also just what shuffled views give on average: the mean of tr(A P B P^T) over
    all orders P of a batch is tr A tr B / (m - 1). So this is the cosine of the two rests.
    """
    one, other = _traceless(gram_a), _traceless(gram_b)
    lengths = [
        # a rest below the rounding errors of its matrix counts as no variation
        torch.maximum(rest.square().sum(), _ROUNDING * whole.square().sum()).clamp_min(_TINY**2).sqrt()
        for rest, whole in ((one, gram_a), (other, gram_b))
    ]
    return (one * other).sum() / (lengths[0] * lengths[1])


def excess_alignment(gram_a: Tensor, gram_b: Tensor, generator: torch.Generator, *, draws: int = 20) -> float:
    """Alignment above what independent views of as many images reach: the mean over shuffled ones taken off.

    Unlike normalized HSIC it is near 0 for independent views, whatever their scale.
    """
    orders = (torch.randperm(len(gram_a), generator=generator).to(gram_a.device) for _ in range(draws))
    by_chance = [alignment(gram_a, gram_b[order][:, order]) for order in orders]
    return float(alignment(gram_a, gram_b) - torch.stack(by_chance).mean())


def _centered(matrix: Tensor) -> Tensor:
    """H K H."""
    return matrix - matrix.mean(0) - matrix.mean(1, keepdim=True) + matrix.mean()


def _traceless(matrix: Tensor) -> Tensor:
    """H K H with the mean of its m - 1 eigenvalues taken off, which H has on each: (m, m) without trace."""
    centered = _centered(matrix)
    identity = torch.eye(len(matrix)).to(matrix)
    return centered - _centered(identity) * centered.trace() / max(1, len(matrix) - 1)


def _resolved(matrix: Tensor, ridge: float) -> Tensor:
    """C (C + ridge m I)^-1, (m, m)."""
    centered = matrix - matrix.mean(1, keepdim=True)  # times H from the right, as the authors do
    identity = torch.eye(len(matrix)).to(matrix)
    # C and its shifted inverse commute
    solved: Tensor = torch.linalg.solve(centered + ridge * len(matrix) * identity, centered)
    return solved
