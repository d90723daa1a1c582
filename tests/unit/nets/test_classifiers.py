"""Every classifier keeps its contract, and the published ones have their published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mibench.errors import UnknownPluginError
from mibench.nets import CLASSIFIERS, Classifier, NetSpec, build, count_macs
from mibench.nets.seeding import seeded

WIDTHS = {
    "ir50": 4,
    "mlp": 7,
    "vgg16": 4,
    "vgg16_bn": 4,
    "small_vgg": 4,
    "small_resnet": 4,
    "small_resnet14": 4,
    "small_convnext": 4,
}
RESIZED = {"ir50", "inception_resnet_v1"}


def small(name: str, *, channels: int = 3, size: int = 32, seed: int = 0) -> Classifier:
    spec = NetSpec(name=name, width=WIDTHS.get(name, 0), channels=channels, size=size, num_classes=5)
    return build(spec, torch.Generator().manual_seed(seed))


def images(num: int, *, channels: int = 3, size: int = 32) -> torch.Tensor:
    return torch.rand(num, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_keeps_its_contract(name: str, channels: int) -> None:
    net = small(name, channels=channels).eval()
    x = images(3, channels=channels).requires_grad_()
    blocks = net.blocks(x)
    logits = net(x)
    assert logits.shape == (3, 5)
    assert logits.dtype == torch.float32
    assert blocks[-1].shape == (3, net.feature_dim)
    assert all(block.dim() == 4 and len(block) == 3 for block in blocks[:-1])
    assert torch.equal(logits, net.head(net.features(x)))
    assert torch.equal(net.features(x), blocks[-1])
    scale = logits.detach().abs().max().item()
    assert torch.allclose(net(x[:1]), logits[:1], atol=1e-5 * scale)
    (grad,) = torch.autograd.grad(logits.sum(), x)
    assert grad.isfinite().all()
    assert grad.abs().sum() > 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifier_has_no_module_that_breaks_others(name: str) -> None:
    net = small(name)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            assert module.kernel_size != (1, 1) or module.stride == (1, 1)
    assert not any(getattr(module, "inplace", False) for module in net.modules())
    assert not any(hasattr(module, "parametrizations") for module in net.modules())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_build_depends_on_its_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first = small(name)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    again, other = small(name), small(name, seed=1)
    pairs = list(zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first(images(4)), other(images(4)))
    for module in first.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [16, 28, 48, 64, 112])
@pytest.mark.parametrize("name", ["small_vgg", "small_resnet", "small_resnet14", "small_convnext"])
def test_small_nets_take_any_size(name: str, size: int) -> None:
    net = small(name, size=size).eval()
    assert net(images(2, size=size)).shape == (2, 5)


def test_small_nets_refuse_images_that_vanish() -> None:
    for name, size in {"small_vgg": 15, "small_resnet": 8, "small_convnext": 8, "vgg16_bn": 28}.items():
        with pytest.raises(ValueError, match="px, got"):
            small(name, size=size)


@pytest.mark.parametrize(("size", "feature_dim"), [(32, 32), (64, 128), (112, 128)])
def test_vgg16_feature_is_2x2_from_64_px_on(size: int, feature_dim: int) -> None:
    net = small("vgg16_bn", size=size).eval()
    assert net.feature_dim == feature_dim
    assert net.features(images(2, size=size)).shape == (2, feature_dim)


def test_vgg16_bn_has_the_published_shape() -> None:
    net = CLASSIFIERS["vgg16_bn"](NetSpec(name="vgg16_bn", size=64, num_classes=1000)).eval()
    assert sum(p.numel() for p in net.parameters()) == 16_776_232
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 13
    shapes = [tuple(block.shape[1:]) for block in net.blocks(images(1, size=64))]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (2048,)]


def test_ir50_has_the_published_shape() -> None:
    with torch.device("meta"):
        net = CLASSIFIERS["ir50"](NetSpec(name="ir50", size=112, num_classes=2)).eval()
        shapes = [tuple(block.shape[1:]) for block in net.blocks(torch.rand(1, 3, 112, 112))]
    assert shapes == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7), (512,)]
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == 1 + 2 * 24 + 3


@pytest.mark.parametrize("name", ["inception_resnet_v1", "softmax_regression"])
def test_nets_of_one_width_refuse_another(name: str) -> None:
    with pytest.raises(ValueError, match="Leave it 0"):
        build(NetSpec(name=name, width=8), torch.Generator())


def test_small_nets_are_small() -> None:
    x = images(1)
    for name, limit in {"small_vgg": 3.5e6, "small_resnet": 3.5e6, "small_convnext": 2.5e6}.items():
        net = build(NetSpec(name=name, num_classes=20), torch.Generator())
        assert count_macs(net, x) < limit
        assert net.training


def test_count_macs_of_a_convolution() -> None:
    net = nn.Conv2d(3, 8, 5, padding=2)
    assert count_macs(net, torch.rand(2, 3, 10, 10)) == 2 * 100 * 8 * 3 * 25


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_count_macs_agrees_with_the_counter_of_torch(name: str) -> None:
    net = build(NetSpec(name=name, num_classes=7), torch.Generator())
    with torch.inference_mode(), FlopCounterMode(display=False) as reference:
        net.eval()(images(2))
    assert 2 * count_macs(net, images(2)) == reference.get_total_flops()


def test_count_macs_of_products_and_transposed_convolutions() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(2)
            square = flat @ flat.transpose(1, 2) + torch.bmm(flat, flat.transpose(1, 2))
            square = torch.baddbmm(square, square, torch.matmul(square, square))
            rows = torch.addmm(square[0], square[0], square[0]).mm(square[0])
            return nn.functional.conv_transpose2d(x, torch.ones(4, 3, 5, 5), rows.sum() * torch.ones(3))

    x = torch.ones(2, 4, 6, 6)
    with FlopCounterMode(display=False) as reference:
        Net()(x)
    assert 2 * count_macs(Net(), x) == reference.get_total_flops() > 0


def test_unknown_network_is_named_with_its_neighbor() -> None:
    with pytest.raises(UnknownPluginError, match=r"unknown network 'smal_vgg'\. Did you mean 'small_vgg'"):
        build(NetSpec(name="smal_vgg"), torch.Generator())


def test_seeded_restores_the_global_state_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(torch.Generator()):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
