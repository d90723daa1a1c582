"""On CUDA, operations that may be rounded are told from those that may not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mibench.counting import FlopCounter
from mibench.precision import exact, rounded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_float32_on_cuda_is_told_from_what_may_be_rounded() -> None:
    device = torch.device("cuda")
    x, kernel = torch.ones(4, 4, 8, 8, device=device), torch.ones(4, 4, 3, 3, device=device)
    with FlopCounter() as counter:
        for mode in (exact, rounded):
            with mode(device):
                nn.functional.conv2d(x, kernel)
                x[0, 0] @ x[0, 1]
    assert set(counter.flops) == {"float32", "tf32"}
    assert counter.flops["float32"] == counter.flops["tf32"] > 0
