"""Conditional GANs: published shapes, classes that count, a start that changes nothing, known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mibench.nets import DcganGenerator, NetSpec
from mibench.nets.conditional import (
    AuxiliaryDiscriminator,
    ConditionalBatchNorm,
    ConditionalDcgan,
    ConditionalGenerator,
    ProjectionDiscriminator,
    SpectralBody,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def set_classes(net: nn.Module) -> None:
    """Give each class scales and shifts of its own, which are equal at the start."""
    for module in net.modules():
        if isinstance(module, ConditionalBatchNorm):
            for weights in module.parameters():
                weights.data.copy_(draw(*weights.shape))


def test_the_nets_have_the_shapes_of_plg_at_64_pixels() -> None:
    g = ConditionalGenerator(num_classes=10, latent_dim=128, width=64, size=64)
    assert g.project.weight.shape == (16 * 64 * 4 * 4, 128)
    widths = [tuple(module.weight.shape[:2]) for module in g.modules() if isinstance(module, nn.Conv2d)]
    assert widths[::3] == [(512, 1024), (256, 512), (128, 256), (64, 128), (3, 64)]
    d = ProjectionDiscriminator(num_classes=10, width=64, size=64)
    assert d.body.feature_dim == 1024
    assert d.embedding.weight.shape == (10, 1024)
    assert d.body.blocks(images(1, 3, 64, 64)).shape == (1, 1024, 2, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [16, 20, 28, 32])
def test_every_size_and_each_row_by_itself(size: int, channels: int) -> None:
    plain = DcganGenerator(latent_dim=5, width=2, size=size, channels=channels)
    residual = ConditionalGenerator(num_classes=3, latent_dim=5, width=2, size=size, channels=channels)
    y = torch.tensor([0, 2, 2])
    for g in (residual, ConditionalDcgan(plain, 3)):
        set_classes(g)
        g.eval()
        x = g(draw(3, 5), y)
        assert x.shape == (3, channels, size, size)
        assert x.dtype == torch.float32
        assert 0 <= x.min() < x.max() <= 1
        torch.testing.assert_close(g(draw(3, 5)[1:2], y[1:2]), x[1:2], atol=1e-5, rtol=0)
    x = images(3, channels, size, size)
    projected = ProjectionDiscriminator(num_classes=3, width=2, size=size, channels=channels).eval()
    assert projected(x, y).shape == projected.realness(x).shape == (3,)
    torch.testing.assert_close(projected(x[:1], y[:1]), projected(x, y)[:1], atol=1e-5, rtol=1e-5)
    spec = NetSpec(name="d", width=2, channels=channels, size=size, num_classes=3)
    auxiliary = AuxiliaryDiscriminator(spec).eval()
    real, classes = auxiliary.both(x)
    assert (real.shape, classes.shape) == ((3,), (3, 3))
    assert torch.equal(auxiliary.realness(x), real)
    assert torch.equal(auxiliary(x), classes)
    assert torch.equal(auxiliary.head(auxiliary.features(x)), classes)


def test_sizes_without_a_pyramid_are_refused() -> None:
    with pytest.raises(ValueError, match="size 30"):
        ConditionalGenerator(num_classes=2, width=2, size=30)
    with pytest.raises(ValueError, match="size 30"):
        SpectralBody(width=2, size=30)


def test_a_conditional_norm_is_a_plain_one_with_a_scale_and_shift_for_each_class() -> None:
    norm = ConditionalBatchNorm(4, 3)
    x, y = draw(6, 4, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    torch.testing.assert_close(norm(x, y), nn.BatchNorm2d(4)(x))
    set_classes(norm)
    normal = nn.BatchNorm2d(4, affine=False)(x)
    for row, label in enumerate(y.tolist()):
        scale, shift = norm.scale.weight[label], norm.shift.weight[label]
        wanted = normal[row] * scale[:, None, None] + shift[:, None, None]
        torch.testing.assert_close(norm(x, y)[row], wanted)


def test_a_trained_generator_keeps_its_images_in_every_class_at_first() -> None:
    plain = DcganGenerator(latent_dim=5, width=3, size=32)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.weight.data = draw(len(module.weight), seed=1)
            module.bias.data = draw(len(module.bias), seed=2)
    plain(draw(16, 5, seed=3))  # moves the running statistics away from their start
    z = draw(4, 5)
    wanted = plain.eval()(z).detach()
    g = ConditionalDcgan(plain, 4)
    torch.testing.assert_close(g.eval()(z, torch.arange(4)), wanted, atol=1e-6, rtol=0)
    set_classes(g)
    moved = g(z, torch.arange(4)).detach()
    assert float((moved - wanted).abs().amax((1, 2, 3)).min()) > 1e-3


def test_only_the_own_class_gets_a_gradient() -> None:
    g = ConditionalGenerator(num_classes=3, latent_dim=5, width=2, size=16)
    g(draw(4, 5), torch.tensor([1, 1, 2, 1])).sum().backward()
    grads = [weights.grad for weights in g.class_parameters() if weights.grad is not None]
    assert len(grads) == len(g.class_parameters())
    assert all(not bool(grad[0].any()) for grad in grads)
    assert sum(bool(grad[1].any()) and bool(grad[2].any()) for grad in grads) > 0


def test_class_parameters_are_the_scales_and_shifts_alone() -> None:
    g = ConditionalDcgan(DcganGenerator(latent_dim=5, width=2, size=32), 7)
    own = {id(weights) for weights in g.class_parameters()}
    named = {name for name, weights in g.named_parameters() if id(weights) in own}
    assert named == {f"norms.{i}.{part}.weight" for i in range(3) for part in ("scale", "shift")}


def test_the_score_is_the_realness_plus_a_projection_on_the_class() -> None:
    d = ProjectionDiscriminator(num_classes=4, width=2, size=16).eval()
    x, y = images(3, 3, 16, 16), torch.tensor([3, 0, 3])
    projection = (d.embedding(y) * d.body(x)).sum(1)
    torch.testing.assert_close(d(x, y), d.realness(x) + projection)


def test_weights_of_discriminators_have_spectral_norm_one() -> None:
    d = ProjectionDiscriminator(num_classes=6, width=2, size=16).train()
    for _ in range(60):  # each pass is one step of the power iteration
        d(images(2, 3, 16, 16), torch.tensor([0, 1]))
    d.eval()
    layers = [m for m in d.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 3 * 3 + 2
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(norm) == pytest.approx(1, abs=0.02)
