"""Opacus can take every classifier: its per-sample gradients equal those of a loop."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mibench.nets import CLASSIFIERS, NetSpec, build

opacus_validators = pytest.importorskip("opacus.validators")
opacus_grad_sample = pytest.importorskip("opacus.grad_sample")

# Batch norm on 32 features would become a group norm of one value per group, so vgg16_bn is wider.
WIDTHS = {"ir50": 8, "mlp": 6, "vgg16": 4, "vgg16_bn": 8}
WIDTHS |= {"small_vgg": 8, "small_resnet": 8, "small_resnet14": 8, "small_convnext": 4}
SLOW = {"inception_resnet_v1": pytest.mark.slow}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def private_net(name: str) -> nn.Module:
    """A classifier with group norms, no dropout, in float64 so that tolerances can be tight."""
    spec = NetSpec(name=name, width=WIDTHS.get(name, 0), num_classes=4)
    net: nn.Module = opacus_validators.ModuleValidator.fix(build(spec, torch.Generator().manual_seed(0)))
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net.double().train()


def batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.tensor([0, 3, 1])


def compare(net: nn.Module) -> None:
    x, y = batch()
    wrapped = opacus_grad_sample.GradSampleModule(copy.deepcopy(net), loss_reduction="sum")
    F.cross_entropy(wrapped(x), y, reduction="sum").backward()
    together = {key: p.grad_sample for key, p in wrapped._module.named_parameters()}
    for row in range(3):
        net.zero_grad()
        F.cross_entropy(net(x[row : row + 1]), y[row : row + 1]).backward()
        for key, p in net.named_parameters():
            assert p.grad is not None
            assert torch.allclose(together[key][row], p.grad, rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in CLASSIFIERS])
def test_per_sample_gradients_equal_a_loop(name: str) -> None:
    # Not channels last: see the next test.
    compare(private_net(name).to(memory_format=torch.contiguous_format))


@pytest.mark.xfail(strict=True, reason="opacus 1.6 unfolds activations as if channels came first")
def test_per_sample_gradients_of_a_channels_last_net() -> None:
    compare(private_net("small_vgg").to(memory_format=torch.channels_last))
