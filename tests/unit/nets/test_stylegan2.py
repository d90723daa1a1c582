"""StyleGAN2: its parts against their definitions, its size against the published, both namings, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from mibench.errors import WeightsError
from mibench.nets import seeded
from mibench.nets.stylegan2 import Framing, StyleGan2Generator, StyleGan2Shape, enlarge, smooth
from mibench.nets.stylegan2_names import NVIDIA, ROSINALITY, Naming, generator_of, names_of, shape_of_own

SMALL = StyleGan2Shape(latent_dim=6, w_dim=8, hidden=(8,), widths=(8, 8, 6, 4))
TAPS = np.array([1, 3, 3, 1]) / 8


def small(**changes: Any) -> StyleGan2Generator:
    with seeded(torch.Generator().manual_seed(1)):
        net = StyleGan2Generator(SMALL, **changes)
        for name, value in net.named_parameters():
            if name.endswith(("bias", "strength")):
                value.data.add_(0.3 * torch.randn(value.shape))
        net.w_avg.normal_()
    return net.eval().requires_grad_(requires_grad=False)


def published(net: StyleGan2Generator, naming: Naming) -> dict[str, Tensor]:
    """The tensors of a net as a package stores them, with its axes of length 1 and its filters."""
    state = net.state_dict()
    found = {theirs: state[ours].clone() for ours, theirs in names_of(net.shape, naming)}
    if naming is NVIDIA:
        return {**found, "synthesis.b8.resample_filter": torch.ones(4, 4)}
    for name, value in found.items():
        if value.dim() == 4 or name == "input.input":
            found[name] = value[None]
        elif name.startswith("noises."):
            found[name] = value[None, None]
        elif name.endswith("noise.weight"):
            found[name] = value[None]
        elif name.startswith("to_rgb") and name.endswith("bias") and "modulation" not in name:
            found[name] = value.view(1, -1, 1, 1)
    return {
        **found,
        "convs.0.conv.blur.kernel": torch.ones(4, 4),
        "to_rgbs.0.upsample.kernel": torch.ones(4, 4),
    }


def latents(count: int = 2) -> Tensor:
    return torch.randn(count, SMALL.latent_dim, generator=torch.Generator().manual_seed(3))


def test_configuration_f_has_the_published_size() -> None:
    # what NVIDIA's training prints for its generator of 1,024 px: parameters, and styles of one image
    with torch.device("meta"):
        net = StyleGan2Generator(StyleGan2Shape())
    assert sum(one.numel() for one in net.parameters()) == 30_370_060
    assert (net.shape.size, net.num_ws) == (1024, 18)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mapping.fc0.weight", (512, 512)),
        ("mapping.fc7.bias", (512,)),
        ("mapping.w_avg", (512,)),
        ("synthesis.b4.const", (512, 4, 4)),
        ("synthesis.b4.conv1.affine.weight", (512, 512)),
        ("synthesis.b64.conv0.weight", (512, 512, 3, 3)),
        ("synthesis.b128.conv0.weight", (256, 512, 3, 3)),
        ("synthesis.b1024.conv0.affine.bias", (64,)),
        ("synthesis.b1024.conv1.noise_const", (1024, 1024)),
        ("synthesis.b1024.conv1.noise_strength", ()),
        ("synthesis.b1024.torgb.weight", (3, 32, 1, 1)),
    ],
)
def test_names_and_shapes_of_configuration_f_are_the_published_ones(
    name: str, shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        net = StyleGan2Generator(StyleGan2Shape())
    own = {theirs: ours for ours, theirs in names_of(net.shape, NVIDIA)}
    assert sorted(own.values()) == sorted(net.state_dict())
    assert tuple(net.state_dict()[own[name]].shape) == shape


def test_names_by_place_count_as_the_other_package_does() -> None:
    theirs = dict(names_of(StyleGan2Shape(), ROSINALITY))
    assert theirs["fc.0.weight"] == "style.1.weight"
    assert theirs["levels.0.conv1.noise_const"] == "noises.noise_0"
    assert theirs["levels.1.conv0.weight"] == "convs.0.conv.weight"
    assert theirs["levels.8.conv1.noise_const"] == "noises.noise_16"
    assert theirs["levels.8.torgb.bias"] == "to_rgbs.7.bias"
    assert len(set(theirs.values())) == len(theirs)


def resampled(x: Tensor) -> Tensor:
    """Maps at twice the size by scipy: zeros between pixels, the filter along rows, then along columns."""
    out = x.double().numpy()
    for axis in (2, 3):
        out = scipy.signal.upfirdn(2 * TAPS, out, up=2, axis=axis)
        out = np.take(out, np.arange(1, out.shape[axis] - 1), axis=axis)
    return torch.from_numpy(out).float()


def test_pictures_are_enlarged_as_scipy_resamples() -> None:
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(enlarge(x), resampled(x), rtol=1e-5, atol=1e-6)


def test_smoothing_of_maps_is_the_filter_of_scipy() -> None:
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    kernel = 4 * np.outer(TAPS, TAPS)
    wanted = [
        [scipy.signal.convolve2d(np.pad(one, 1), kernel, mode="valid") for one in row] for row in x.numpy()
    ]
    torch.testing.assert_close(smooth(x), torch.from_numpy(np.array(wanted)).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("level", [0, 2])
def test_demodulation_gives_unit_variance(level: int) -> None:
    shape = StyleGan2Shape(latent_dim=4, w_dim=4, hidden=(), widths=(64, 64, 64, 64))
    with seeded(torch.Generator().manual_seed(0)):
        layer: Any = StyleGan2Generator(shape).get_submodule(f"levels.{level}.conv1")
        x, style = torch.randn(8, 64, 32, 32), 5 * torch.rand(8, 64)
    with torch.no_grad():
        inner = layer.convolved(x, style)[:, :, 1:-1, 1:-1]  # the rim sees zeros
    assert float(inner.var((0, 2, 3)).mean()) == pytest.approx(1, abs=0.03)


def test_modulating_maps_equals_modulating_the_weights_of_each_image() -> None:
    net: Any = small()
    layer, rng = net.get_submodule("levels.1.conv1"), torch.Generator().manual_seed(5)
    x, style = (torch.randn(shape, generator=rng) for shape in ((2, 8, 8, 8), (2, 8)))
    for one, s, out in zip(x, style, layer.convolved(x, style)):
        weight = layer.weight * s[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        plain = torch.nn.functional.conv2d(one[None], weight, padding=1)[0]
        torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)


def test_both_namings_give_one_image() -> None:
    net, z = small(), latents()
    images = net(z)
    assert float(images.std()) > 0.05
    for naming in (NVIDIA, ROSINALITY):
        again = generator_of(published(net, naming), where="weights f").eval()
        with torch.no_grad():
            assert torch.equal(again(z), images)
            assert torch.equal(again.truncate(again.mapping(z), 0.5), net.truncate(net.mapping(z), 0.5))
        assert again.shape == SMALL == shape_of_own(again.state_dict())


def test_a_batch_is_its_rows_and_repeats() -> None:
    net, z = small(), latents(3)
    assert torch.equal(net(z), net(z))
    torch.testing.assert_close(net(z)[1:2], net(z[1:2]), rtol=1e-5, atol=1e-6)


def test_gradients_reach_each_style() -> None:
    net = small()
    ws = net.mapping(latents()).unsqueeze(1).repeat(1, net.num_ws, 1).requires_grad_()
    (slope,) = torch.autograd.grad(net.synthesis(ws).square().sum(), ws)
    assert bool((slope.abs().sum(2) > 0).all())


def test_blocks_add_up_to_the_synthesis() -> None:
    net = small()
    ws = net.mapping(latents())[:, None].expand(-1, net.num_ws, -1)
    x, rgb = net.stem(2)
    for level, shape in enumerate(net.map_shapes):
        x, rgb = net.block(level, x, rgb, ws)
        assert tuple(x.shape[1:]) == shape
    assert torch.equal(net.finish(rgb), net.synthesis(ws))


def test_noise_is_the_stored_one_or_none_or_fresh() -> None:
    net, silent, z = small(), small(noise="none"), latents()
    assert not torch.equal(net(z), silent(z))
    assert torch.equal(net(z, noise="none"), silent(z))
    fresh = [net(z, noise="random", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(fresh[0], fresh[1])
    assert not torch.equal(fresh[0], fresh[2])
    with pytest.raises(ValueError, match="random noise needs a generator"):
        net(z, noise="random")


def test_the_middle_is_kept_resized_and_cut_off() -> None:
    net = small(framing=Framing(crop=0.5, size=8, channels=3))
    picture = torch.full((1, 3, 32, 32), -9.0)
    picture[:, 0, 8:24, 8:24] = 0.5
    picture[:, 1, 8:24, 8:24] = 7.0
    image = net.finish(picture)
    assert image.shape == (1, 3, 8, 8)
    assert [image[0, c].unique().tolist() for c in range(3)] == [[0.75], [1.0], [0.0]]


def test_gray_images_are_what_pillow_makes_of_colors() -> None:
    from PIL import Image

    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gray = small(framing=Framing(size=32, channels=1)).finish(2 * picture - 1)
    colors = Image.fromarray((255 * picture[0]).round().byte().permute(1, 2, 0).numpy())
    wanted = torch.from_numpy(np.asarray(colors.convert("L")).copy()).float() / 255
    assert float((gray[0, 0] - wanted).abs().max()) < 1.1 / 255


def _spoiled(name: str, value: Tensor | None) -> dict[str, Tensor]:
    tensors = published(small(), NVIDIA)
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (
            {"features.0.weight": torch.ones(1)},
            r"has neither 'synthesis\.b4\.const' nor 'input\.input' \(its first",
        ),
        (
            _spoiled("synthesis.b8.conv0.weight", None),
            r"^weights f: 'synthesis\.b8\.conv0\.weight' is missing",
        ),
        (_spoiled("mapping.w_avg", None), r"'mapping\.w_avg' is missing"),
        (_spoiled("mapping.fc0.weight", None), r"mapping\.fc0\.weight is missing"),
        (
            _spoiled("mapping.fc0.weight", torch.ones(3)),
            r"'mapping\.fc0\.weight' has the shape \[3\], needs 2",
        ),
        (_spoiled("mapping.embed.weight", torch.ones(3)), "'mapping.embed' tells it labels"),
        (
            _spoiled("synthesis.b16.torgb.weight", None),
            "the picture ends at 8 px, since 'synthesis.b16.torgb",
        ),
        (
            _spoiled("synthesis.b8.conv1.weight", torch.ones(8, 8, 1, 1)),
            r"conv1\.weight' has the shape \[8, 8, 1, 1\], the generator needs \[8, 8, 3, 3\]",
        ),
        (
            _spoiled("synthesis.b8.conv1.bias", torch.full((8,), torch.inf)),
            r"conv1\.bias' holds NaN or infinite",
        ),
        (_spoiled("synthesis.b8.conv1.bias", torch.ones(8).int()), r"conv1\.bias' holds torch\.int32"),
        (
            _spoiled("synthesis.b8.skip.weight", torch.ones(8)),
            r"'synthesis\.b8\.skip\.weight' is no part of the",
        ),
        (_spoiled("bad\n\x1b[2J", torch.ones(8)), r"'bad\\n\\x1b\[2J' is no part"),
    ],
)
def test_tensors_of_no_such_generator_are_refused_by_name(tensors: dict[str, Tensor], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        generator_of(tensors, where="weights f")
