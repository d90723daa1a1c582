"""The rank of the candidate that each repeat of a label takes."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor


def repeats(targets: Tensor) -> Tensor:
    """How often each of targets (B,) int64 stood before it: (B,), int64, on the CPU.

    >>> repeats(torch.tensor([7, 3, 7, 7]))
    tensor([0, 0, 1, 2])
    """
    seen: Counter[int] = Counter()
    counts = []
    for label in targets.tolist():
        counts.append(seen[label])
        seen[label] += 1
    return torch.tensor(counts, dtype=torch.int64)
