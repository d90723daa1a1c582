"""Generators, critics and the decoder: published shapes, ranges and known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mibench.nets import (
    Critic,
    DcganGenerator,
    InversionDiscriminator,
    InversionNet,
    MinibatchDiscrimination,
    prepare_prediction,
)
from mibench.nets.shapes import pool_to, pyramid, resize


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_generator_has_the_shapes_of_gmi() -> None:
    net = DcganGenerator(latent_dim=100, width=64, size=64, channels=3)
    shapes = [tuple(hidden.shape[1:]) for hidden in net.maps(draw(2, 100))]
    assert shapes == [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32)]
    assert net.project[0].weight.shape == (8192, 100)
    assert net(draw(2, 100)).shape == (2, 3, 64, 64)
    biased = [m.bias is not None for m in net.modules() if isinstance(m, nn.Linear | nn.ConvTranspose2d)]
    assert biased == [False, False, False, False, True]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 28, 32, 64, 112])
def test_gan_nets_take_every_size(size: int, channels: int) -> None:
    generator = DcganGenerator(latent_dim=5, width=2, size=size, channels=channels).eval()
    images = generator(draw(3, 5))
    assert images.shape == (3, channels, size, size)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.allclose(generator(draw(3, 5)[:1]), images[:1], atol=1e-5)
    critic = Critic(width=2, size=size, channels=channels)
    assert critic(images).shape == (3,)
    assert critic.features(images).shape == (3, critic.feature_dim)
    assert torch.allclose(critic(images[:1]), critic(images)[:1], atol=1e-4)
    discriminator = InversionDiscriminator(num_classes=4, width=2, size=size, channels=channels)
    assert discriminator(images).shape == (3, 4)
    assert discriminator.features(images).shape == (3, discriminator.feature_dim)
    decoder = InversionNet(num_classes=4, width=2, size=size, channels=channels).eval()
    decoded = decoder(draw(3, 4))
    assert decoded.shape == (3, channels, size, size)
    assert 0 <= decoded.min() <= decoded.max() <= 1
    assert torch.allclose(decoder(draw(3, 4)[:1]), decoded[:1], atol=1e-5)


def test_sizes_without_a_pyramid_are_refused() -> None:
    for size in (4, 30, 100):
        with pytest.raises(ValueError, match=f"size {size}"):
            pyramid(size)


def test_critic_has_the_shape_of_gmi_and_a_second_derivative() -> None:
    critic = Critic(width=64, size=64)
    convs = [m for m in critic.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convs] == [
        (3, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1),
    ]
    tiny = Critic(width=4, size=32)
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    (grad,) = torch.autograd.grad(tiny(x).sum(), x, create_graph=True)
    grad.square().sum().backward()
    grads = [p.grad for p in tiny.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert sum(float(grad.abs().sum()) for grad in grads) > 0


def test_discriminator_has_the_shape_of_ked() -> None:
    net = InversionDiscriminator(num_classes=10, width=64, size=64)
    assert net.feature_dim == 4096
    assert net.minibatch is not None
    assert net.minibatch.weight.shape == (4096, 64 * 50)
    assert net.head.weight.shape == (10, 4160)
    plain = InversionDiscriminator(num_classes=10, width=4, size=32, minibatch=False)
    x = torch.rand(4, 3, 32, 32)
    assert torch.allclose(plain(x[:1]), plain(x)[:1], atol=1e-5)


def test_minibatch_discrimination_known_answers() -> None:
    net = MinibatchDiscrimination(6, num_kernels=5, kernel_dim=3)
    same = draw(1, 6).expand(4, -1)
    assert torch.allclose(net(same), torch.full((4, 5), 3.0))
    assert torch.equal(net(draw(1, 6)), torch.zeros(1, 5))
    far = torch.arange(4.0)[:, None] * 1e4 * torch.ones(6)
    assert torch.allclose(net(far), torch.zeros(4, 5), atol=1e-6)
    batch, order = draw(4, 6, seed=1) * 0.1, torch.tensor([2, 0, 3, 1])
    assert torch.allclose(net(batch[order]), net(batch)[order], atol=1e-6)


def test_minibatch_discrimination_equals_its_formula() -> None:
    net = MinibatchDiscrimination(6, num_kernels=5, kernel_dim=3, init_std=0.3)
    f = draw(4, 6).requires_grad_()
    mapped = (f @ net.weight).reshape(4, 5, 3)
    closeness = (-(mapped[:, None] - mapped[None]).abs().sum(3)).exp()
    expected = (closeness * (1 - torch.eye(4))[:, :, None]).sum(1)
    assert torch.allclose(net(f), expected, atol=1e-5)
    weights = draw(4, 5, seed=2)
    (got,) = torch.autograd.grad((net(f) * weights).sum(), f)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), f)
    assert torch.allclose(got, wanted, atol=1e-5)


def test_decoder_has_the_shape_of_ami() -> None:
    net = InversionNet(num_classes=530, width=128, size=64, channels=1)
    shapes = [tuple(m.weight.shape[:2]) for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert shapes == [(530, 1024), (1024, 512), (512, 256), (256, 128), (128, 1)]


def test_prepared_predictions_known_answers() -> None:
    log_p = torch.tensor([[0.9, 0.05, 0.03, 0.015, 0.005]]).log()
    full = torch.tensor([[49.89, 47.00, 46.49, 45.80, 44.70]])
    assert torch.allclose(prepare_prediction(log_p, 5), full, atol=6e-3)
    assert torch.allclose(prepare_prediction(log_p, 1), torch.tensor([[49.89, 0, 0, 0, 0]]), atol=6e-3)
    one_hot = torch.tensor([[0.0, 1.0, 0.0]]).log()
    assert prepare_prediction(one_hot, 3).tolist() == [[0.0, 1000.0, 0.0]]
    assert prepare_prediction(one_hot, 1).tolist() == [[0.0, 50.0, 0.0]]


@pytest.mark.parametrize(("epsilon", "sure", "rest"), [(1e-6, 50, 36.2), (1e-20, 50, 3.9), (1e-30, 69.1, 0)])
def test_prepared_predictions_of_smoothed_one_hots(epsilon: float, sure: float, rest: float) -> None:
    log_p = torch.tensor([[1.0, epsilon]], dtype=torch.float64).log()
    got = prepare_prediction(log_p, 2)
    assert torch.allclose(got, torch.tensor([[sure, rest]], dtype=torch.float64), atol=0.06)


def test_prepared_predictions_keep_order_and_classes() -> None:
    log_p = draw(6, 8).log_softmax(1)
    got = prepare_prediction(log_p, 3)
    assert ((got > 0).sum(1) == 3).all()
    assert torch.equal(got.argmax(1), log_p.argmax(1))
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(prepare_prediction(log_p[:, order], 3), got[:, order])
    for truncation in (0, 9):
        with pytest.raises(ValueError, match="truncation"):
            prepare_prediction(log_p, truncation)


def test_pooling_and_resizing_keep_means() -> None:
    x = draw(2, 3, 6, 6)
    for cells in (6, 3, 2, 1):
        pooled = pool_to(x, cells)
        assert pooled.shape == (2, 3, cells, cells)
        assert torch.allclose(pooled.mean((2, 3)), x.mean((2, 3)), atol=1e-6)
    assert pool_to(x, 4).shape == (2, 3, 4, 4)
    assert resize(x, 6) is x
    flat = torch.full((1, 1, 8, 8), 0.25)
    for size in (4, 16):
        assert torch.allclose(resize(flat, size), torch.full((1, 1, size, size), 0.25))
