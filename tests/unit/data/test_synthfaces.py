from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.data.synthfaces import FACTOR_NAMES, VERSION, SynthFaces
from mibench.data.synthfaces.factors import mix

INT64 = st.integers(-(2**63), 2**63 - 1)


def album(faces: SynthFaces, people: int, pictures: int) -> Tensor:
    """Return (people, pictures, C, size, size)."""
    identities = torch.arange(people).repeat_interleave(pictures)
    x = faces.render(identities, torch.arange(pictures).repeat(people))
    return x.view(people, pictures, *x.shape[1:])


@pytest.mark.parametrize("size", [16, 32, 33, 64, 112])
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_dtype_range(size: int, channels: int) -> None:
    x = SynthFaces(size=size, channels=channels, nuisance=2).render(torch.arange(6), torch.arange(6))
    assert x.shape == (6, channels, size, size)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert x.min() >= 0
    assert x.max() <= 1
    assert x.std() > 0.05


def test_same_arguments_same_bits_and_global_generator_untouched() -> None:
    state = torch.get_rng_state()
    first = album(SynthFaces(), 3, 3)
    torch.manual_seed(1)
    assert torch.equal(album(SynthFaces(), 3, 3), first)
    torch.set_rng_state(state)
    album(SynthFaces(), 1, 1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [32, 33, 112])
def test_picture_does_not_depend_on_its_batch(size: int) -> None:
    faces = SynthFaces(size=size)
    identities = torch.arange(150).remainder(37)
    images = torch.arange(150)
    together = faces.render(identities, images)
    for i in (0, 31, 32, 77, 149):
        assert torch.equal(faces.render(identities[i : i + 1], images[i : i + 1])[0], together[i])


def test_picture_does_not_depend_on_threads() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = album(SynthFaces(size=33), 8, 8)
        torch.set_num_threads(3)
        assert torch.equal(album(SynthFaces(size=33), 8, 8), one)
    finally:
        torch.set_num_threads(threads)


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(INT64, INT64), min_size=1, max_size=5),
    seed=st.integers(),
    nuisance=st.floats(0, 2),
)
def test_any_ids_give_valid_pictures_in_any_order(
    pairs: list[tuple[int, int]], seed: int, nuisance: float
) -> None:
    faces = SynthFaces(size=16, seed=seed, nuisance=nuisance)
    identities, images = torch.tensor(pairs).unbind(1)
    x = faces.render(identities, images)
    assert x.isfinite().all()
    assert torch.equal(faces.render(identities.flip(0), images.flip(0)).flip(0), x)


def test_seed_identity_and_image_each_change_the_picture() -> None:
    one = torch.tensor([1])
    x = SynthFaces().render(one, one)
    others = (
        SynthFaces(seed=1).render(one, one),
        SynthFaces().render(one + 1, one),
        SynthFaces().render(one, one + 1),
    )
    assert all((x - other).abs().mean() > 0.01 for other in others)


def test_no_nuisance_gives_identical_portraits_of_different_people() -> None:
    x = album(SynthFaces(nuisance=0), 4, 3)
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])
    assert (x[0, 0] - x[1, 0]).abs().mean() > 0.01


def test_one_channel_is_the_luma_of_three() -> None:
    red, green, blue = album(SynthFaces(), 2, 2).unbind(2)
    luma = album(SynthFaces(channels=1), 2, 2).squeeze(2)
    assert torch.allclose(luma, 0.299 * red + 0.587 * green + 0.114 * blue, atol=1e-6)


def test_pictures_of_one_person_are_closer_than_those_of_two() -> None:
    x = album(SynthFaces(), 20, 10)
    faces = x[..., 6:28, 6:26].flatten(2)  # without most of the background
    gaps = torch.cdist(faces.flatten(0, 1), faces.flatten(0, 1)).view(20, 10, 20, 10).permute(0, 2, 1, 3)
    own = gaps[torch.arange(20), torch.arange(20)].sum((1, 2)) / 90
    other = (gaps.sum((1, 2, 3)) - own * 90) / 1900
    assert (own < other).all()


def test_pictures_grow_without_changing_content() -> None:
    args = torch.arange(4), torch.arange(4)
    small, large = SynthFaces(size=32).render(*args), SynthFaces(size=128).render(*args)
    assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().mean() < 0.03


def test_factors_are_uniform_and_uncorrelated() -> None:
    values = SynthFaces().factors(torch.arange(4000))
    assert values.shape == (4000, len(FACTOR_NAMES))
    assert values.dtype == torch.float32
    assert values.min() >= 0
    assert values.max() < 1
    assert (values.mean(0) - 0.5).abs().max() < 0.03
    assert (values.var(0) - 1 / 12).abs().max() < 0.01
    off_diagonal = values.T.corrcoef() - torch.eye(len(FACTOR_NAMES))
    assert off_diagonal.abs().max() < 0.08
    assert len(set(FACTOR_NAMES)) == len(FACTOR_NAMES)
    assert VERSION == 1


def test_factors_do_not_depend_on_pictures_or_nuisance() -> None:
    ids = torch.tensor([5, 900, -3])
    assert torch.equal(SynthFaces(size=64, nuisance=0).factors(ids), SynthFaces(channels=1).factors(ids))
    assert torch.equal(SynthFaces().factors(ids)[1:2], SynthFaces().factors(ids[1:2]))


@given(x=INT64)
def test_mix_agrees_with_arithmetic_on_unlimited_integers(x: int) -> None:
    z = x % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    assert mix(torch.tensor([x])).item() % 2**64 == z ^ (z >> 31)


def test_empty_batch() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert SynthFaces().render(none, none).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SynthFaces(size=8), r"synthfaces: size must lie in \[16, 256\], got 8\."),
        (lambda: SynthFaces(size=257), r"synthfaces: size must lie in \[16, 256\], got 257\."),
        (lambda: SynthFaces(channels=2), r"synthfaces: channels must be 1 or 3, got 2\."),
        (lambda: SynthFaces(nuisance=-0.1), r"synthfaces: nuisance must lie in \[0, 2\], got -0\.1\."),
        (lambda: SynthFaces(nuisance=float("nan")), r"synthfaces: nuisance must lie in \[0, 2\], got nan\."),
        (lambda: SynthFaces().factors(torch.rand(2)), r"identities must be a vector of int64"),
        (lambda: SynthFaces().render(torch.arange(2), torch.arange(3)), r"one length, got 2 and 3\."),
    ],
)
def test_bad_values_raise(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_cpu() -> None:
    args = torch.arange(64), torch.arange(64)
    far = SynthFaces(size=64).render(*args, device="cuda").cpu()
    assert (far - SynthFaces(size=64).render(*args)).abs().max() < 2e-3
