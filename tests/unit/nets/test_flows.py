"""Known answers of normalizing flows: they invert, their volumes are right, rows do not meet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.nets import CouplingFlow

KINDS = pytest.mark.parametrize("coupling", ["additive", "affine"])


def flow_of(dim: int = 4, **options: Any) -> CouplingFlow:
    """A small flow."""
    sizes = {"steps": 2, "levels": 2, "hidden": 5, **options}
    return CouplingFlow(dim, generator=torch.Generator().manual_seed(3), **sizes)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@KINDS
@pytest.mark.parametrize("dim", [4, 7])
def test_the_inverse_takes_back_what_was_drawn(dim: int, coupling: str) -> None:
    flow = flow_of(dim, coupling=coupling)
    weights, noise = 0.5 * normal(3, flow.size), normal(3, 6, dim, seed=1)
    latents, _ = flow.draw(weights, noise)
    assert latents.shape == noise.shape
    assert not torch.allclose(latents, noise, atol=0.1)
    torch.testing.assert_close(flow.invert(weights, latents), noise, atol=1e-4, rtol=1e-4)


@KINDS
def test_the_volume_is_the_determinant_of_the_jacobian(coupling: str) -> None:
    flow = flow_of(coupling=coupling)
    weights, noise = 0.5 * normal(1, flow.size), normal(1, 3, 4, seed=1)
    _, volume = flow.draw(weights, noise)
    assert volume.shape == (1, 3)
    for i in range(3):
        jacobian = torch.autograd.functional.jacobian(
            lambda x: flow.draw(weights, x[None, None])[0].flatten(), noise[0, i]
        )
        torch.testing.assert_close(volume[0, i], torch.linalg.slogdet(jacobian).logabsdet)
    same = bool(volume.std() < 1e-5)
    assert same is (coupling == "additive")


@KINDS
def test_at_the_start_coordinates_are_only_reordered(coupling: str) -> None:
    flow = flow_of(6, coupling=coupling)
    noise = normal(2, 5, 6)
    latents, volume = flow.draw(flow.start(2), noise)
    assert torch.equal(latents.sort(2).values, noise.sort(2).values)
    assert not torch.equal(latents, noise)
    assert torch.equal(volume, torch.zeros(2, 5))


def test_every_coordinate_comes_to_depend_on_every_other() -> None:
    flow = flow_of(6, steps=16, levels=1, hidden=8)
    weights = 0.3 * normal(1, flow.size)
    meets = torch.zeros(6, 6, dtype=torch.bool)
    for noise in normal(20, 6, seed=1):  # where a ReLU is closed, one point alone may show nothing
        meets |= (
            torch.autograd.functional.jacobian(
                lambda x: flow.draw(weights, x[None, None])[0].flatten(), noise
            )
            != 0
        )
    assert bool(meets.all())


def test_the_second_half_meets_only_the_last_level() -> None:
    flow = flow_of(8, steps=1, levels=2)
    assert [step.dim for step in flow.steps] == [4, 8]


def test_rows_do_not_meet() -> None:
    flow = flow_of(6)
    weights, noise = normal(3, flow.size), normal(3, 5, 6, seed=1)
    latents, volume = flow.draw(weights, noise)
    for i in range(3):
        alone, own = flow.draw(weights[i : i + 1], noise[i : i + 1])
        torch.testing.assert_close(alone[0], latents[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(own[0], volume[i], atol=1e-5, rtol=1e-5)


def test_the_generator_decides_the_start_and_the_shuffles() -> None:
    one, two = (CouplingFlow(6, steps=2, levels=1, hidden=3, generator=torch.Generator()) for _ in range(2))
    assert torch.equal(one.start(2), two.start(2))
    assert torch.equal(one.start(2)[0], one.start(2)[1])
    noise = normal(1, 2, 6)
    assert torch.equal(one.draw(one.start(1), noise)[0], two.draw(two.start(1), noise)[0])
    assert not torch.equal(one.start(1), flow_of(6, steps=2, levels=1, hidden=3).start(1))


@pytest.mark.parametrize("options", [{"steps": 0}, {"levels": 0}, {"hidden": 0}, {"levels": 3}])
def test_sizes_that_leave_nothing_to_do_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="flow: steps, levels and hidden must be >= 1, and 4 coordinates"):
        flow_of(**options)
