"""Weights drawn from one generator, and the global random state left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def seeded(generator: torch.Generator, *, device: torch.device | None = None) -> Iterator[None]:
    """Draw what is drawn inside from `generator` alone; the global states are restored after.

    Advances `generator` by one draw. Seeds the CPU's global state, and that of `device` if it is a CUDA
    device; other accelerators are left alone, so nets must be built on the CPU.

    >>> first, second = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    >>> with seeded(first):
    ...     a = nn.Linear(2, 2)
    >>> with seeded(second):
    ...     b = nn.Linear(2, 2)
    >>> torch.equal(a.weight, b.weight)
    True
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    indices = []
    if device is not None and device.type == "cuda":
        indices = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=indices):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators too
        for index in indices:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def he_init(net: nn.Module) -> None:
    """Set the convolutions of `net` to He's normal initialization and their biases to zero.

    Source: He et al., ICCV 2015 (arXiv:1502.01852), fan-out, gain of a ReLU. Without it the 13
    plain convolutions of VGG-16 do not train.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
