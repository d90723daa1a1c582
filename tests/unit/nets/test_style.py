"""The style generator passes what an attack on W and P space expects of it."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mibench.nets import StyleDiscriminator, StyleGenerator, count_macs, from_p, seeded, to_p
from mibench.nets.style import ModulatedConv, with_spread


def tiny(
    *, size: int = 16, channels: int = 3, mapping_layers: int = 2, equalized: bool = True
) -> StyleGenerator:
    with seeded(torch.Generator().manual_seed(0)):
        net = StyleGenerator(
            latent_dim=6,
            w_dim=5,
            mapping_layers=mapping_layers,
            width=8,
            size=size,
            channels=channels,
            equalized=equalized,
        )
    for name, parameter in net.named_parameters():
        if name.endswith("strength"):
            torch.nn.init.constant_(parameter, 0.5)
    return net.eval()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("equalized", [True, False])
@pytest.mark.parametrize(("size", "channels", "num_ws"), [(16, 1, 6), (32, 3, 8), (64, 3, 10), (112, 3, 10)])
def test_generator_is_fit_for_attacks(size: int, channels: int, num_ws: int, equalized: bool) -> None:
    net = tiny(size=size, channels=channels, equalized=equalized)
    assert net.num_ws == num_ws
    w = net.mapping(draw(3, 6)).detach().requires_grad_()
    images = net.synthesis(w)
    assert w.shape == (3, 5)
    assert images.shape == (3, channels, size, size)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, net.synthesis(w))
    assert torch.allclose(net.synthesis(w[:1]), images[:1], atol=1e-5)
    (grad,) = torch.autograd.grad(images.square().sum(), w)
    assert (grad.abs().sum(1) > 0).all()
    assert torch.equal(net(draw(3, 6)), net.synthesis(net.mapping(draw(3, 6))))


def test_default_is_cheap() -> None:
    net = StyleGenerator().eval()
    assert count_macs(net, draw(1, 128)) < 3e6
    assert sum(p.numel() for p in net.parameters()) < 500_000


def test_one_style_per_layer() -> None:
    net = tiny()
    w = net.mapping(draw(2, 6))
    ws = w[:, None].repeat(1, net.num_ws, 1)
    assert torch.allclose(net.synthesis(w), net.synthesis(ws), atol=1e-5)
    for layer in range(net.num_ws):
        changed = ws.clone()
        changed[:, layer] = -changed[:, layer] + 1
        assert not torch.equal(net.synthesis(changed), net.synthesis(ws)), layer


def test_noise_is_stored_fresh_or_absent() -> None:
    net = tiny()
    w = net.mapping(draw(2, 6))
    fresh = [
        net.synthesis(w, noise="random", generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    ]
    assert torch.equal(fresh[0], fresh[1])
    assert not torch.equal(fresh[0], fresh[2])
    assert not torch.equal(net.synthesis(w), net.synthesis(w, noise="none"))
    with pytest.raises(ValueError, match="needs a generator"):
        net.synthesis(w, noise="random")


def test_p_space_is_inverted() -> None:
    w = draw(50, 5) * 3
    assert torch.allclose(from_p(to_p(w)), w, atol=1e-6)
    w = torch.tensor([10.0, -10.0, 0.1, -0.05])
    boxed = from_p(to_p(w).clamp(-0.5, 0.5))
    assert torch.allclose(boxed, torch.tensor([0.5, -0.1, 0.1, -0.05]))
    assert torch.allclose(from_p(to_p(boxed).clamp(-0.5, 0.5)), boxed)


def test_p_space_is_what_enters_the_last_leaky_relu() -> None:
    net = tiny(mapping_layers=1)
    z = draw(4, 6)
    before = net.layers[0](z / z.square().mean(1, keepdim=True).sqrt())
    assert torch.allclose(to_p(net.mapping(z)), before, atol=1e-5)


def test_p_stats_are_those_of_the_draws() -> None:
    net = tiny()
    mean, std = net.p_stats(40, torch.Generator().manual_seed(0))
    p = to_p(net.mapping(draw(40, 6)))
    assert torch.allclose(mean, p.mean(0), atol=1e-6)
    assert torch.allclose(std, p.std(0, correction=0), atol=1e-6)


def test_mean_w_moves_in_training_only() -> None:
    net = tiny()
    w = net.mapping(draw(8, 6))
    assert torch.equal(net.w_avg, torch.zeros(5))
    net.train().mapping(draw(8, 6))
    assert torch.allclose(net.w_avg, 0.005 * w.mean(0), atol=1e-6)
    assert not net.w_avg.requires_grad
    assert torch.allclose(net.truncate(w, 1.0), w, atol=1e-6)
    assert torch.allclose(net.truncate(w, 0.0), net.w_avg.expand(8, -1))


@pytest.mark.parametrize("equalized", [True, False])
def test_modulation_equals_weights_of_each_image(equalized: bool) -> None:
    conv = ModulatedConv(4, 6, w_dim=5, kernel=3, demodulate=True, equalized=equalized)
    x, w = draw(3, 4, 7, 7), draw(3, 5, seed=1)
    rows = []
    for image, style in zip(x, conv.style(w)):
        weight = conv.weight * conv.scale * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        rows.append(F.conv2d(image[None], weight, padding=1) * 2**0.5)
    assert torch.allclose(conv(x, w), torch.cat(rows), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num", [1, 3, 4, 6, 8])
def test_discriminator_takes_any_batch(num: int, channels: int) -> None:
    net = StyleDiscriminator(width=8, size=32, channels=channels)
    x = torch.rand(num, channels, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert net(x).shape == (num,)
    (grad,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)
    assert net.from_rgb.weight.grad is not None
    alone = StyleDiscriminator(width=8, size=32, channels=channels, group=1)
    assert torch.allclose(alone(x[:1]), alone(x)[:1], atol=1e-5)


def test_spread_known_answers() -> None:
    same = draw(1, 2, 3, 3).expand(4, -1, -1, -1)
    assert torch.allclose(with_spread(same, 4)[:, 2], torch.full((4, 3, 3), 1e-4))
    apart = torch.tensor([0.0, 2.0])[:, None, None, None].expand(-1, 2, 3, 3)
    assert torch.allclose(with_spread(apart, 4)[:, 2], torch.ones(2, 3, 3))


def test_mapping_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="mapping_layers"):
        StyleGenerator(mapping_layers=0)


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("size", [16, 112])
def test_blocks_one_after_another_are_the_synthesis(size: int, per_layer: bool) -> None:
    net = tiny(size=size)
    w = net.mapping(draw(3, 6)).detach()
    ws = w[:, None] + per_layer * draw(3, net.num_ws, 5, seed=1)
    x, rgb = net.stem(3)
    for level, shape in enumerate(net.map_shapes):
        x, rgb = net.block(level, x, rgb, ws)
        assert x.shape == (3, *shape)
        assert rgb.shape == (3, 3, *shape[1:])
    assert torch.equal(torch.sigmoid(rgb), net.synthesis(ws))
    assert torch.allclose(torch.sigmoid(rgb), net.synthesis(w), atol=1e-5) != per_layer
    assert net.map_shapes[-1][1:] == (size, size)
