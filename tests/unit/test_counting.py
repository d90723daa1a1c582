"""Operations are counted as torch's own counter counts them, and by precision."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mibench.counting import FlopCounter
from mibench.nets import CLASSIFIERS, NetSpec, build

SIZES = {
    "inception_resnet_v1": (0, 64),
    "ir50": (4, 32),
    "softmax_regression": (0, 32),
    "vgg16": (4, 32),
    "vgg16_bn": (4, 32),
}


def both(work: Callable[[], object]) -> tuple[int, int]:
    """What both counters find."""
    with FlopCounter() as ours:
        work()
    with FlopCounterMode(display=False) as torchs:
        work()
    return ours.flops.total(), int(torchs.get_total_flops())


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("is_learned", [True, False], ids=["learned", "asked"])
def test_nets_cost_what_torchs_counter_says(name: str, is_learned: bool) -> None:
    width, size = SIZES.get(name, (8, 32))
    net = build(NetSpec(name=name, width=width, size=size, num_classes=5), torch.Generator().manual_seed(0))
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))

    def work() -> None:
        if is_learned:
            net(x).sum().backward()
        else:
            with torch.inference_mode():
                net(x)

    ours, torchs = both(work)
    assert ours == torchs > 0


def test_a_product_is_two_operations_a_multiply_add_of_its_own_precision() -> None:
    with FlopCounter() as counter:
        for dtype in (torch.float32, torch.float64, torch.float64):
            torch.ones(2, 3, dtype=dtype) @ torch.ones(3, 5, dtype=dtype)
    assert counter.flops == {"float32": 60, "float64": 120}


def test_what_runs_is_not_changed() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    plain = net(x)
    with FlopCounter(), torch.inference_mode():
        assert torch.equal(net(x), plain)
