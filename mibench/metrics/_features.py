"""The judge's features of what was reconstructed and of what is real, for distances between the two."""

from __future__ import annotations

from torch import Tensor

from mibench.metric import Case


def compared(case: Case) -> tuple[Tensor, Tensor]:
    """Features of the protected labels' reconstructions, (N, D), and of their real images, (M, D).

    Real are the private training images of the labels that occur, so a label attacked less often weighs as
    much among them as any other.
    """
    got = case.features[case.protected]
    labels = case.got.targets[case.protected].unique().tolist()
    return got, case.judge_features(case.private_train.of(*labels).images) if labels else got
