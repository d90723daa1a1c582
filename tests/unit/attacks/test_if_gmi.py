"""Known answers of IF-GMI: the projection on the L1 ball, entrances of blocks, radii, stages, the choice."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.errors import PluginError, QueryBudgetError
from mibench.nets import NetSpec, build
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import WhiteBoxVictim, freeze

if_gmi: Any = importlib.import_module(get_attack("if_gmi").__module__)

SIZE = 16
SHAPE = (3, SIZE, SIZE)
CLASSES = 4
PRIOR = {"latent_dim": 6, "w_dim": 5, "width": 4, "critic_width": 4, "steps": 0, "p_samples": 100}
FIRST: dict[str, Any] = {
    "prior": PRIOR,
    "search": {"steps": 4, "lr": 0.02, "betas": [0.1, 0.1], "keep": "last"},
    "presamples": 12,
    "keep": 4,
    "candidates": 1,
    "rounds": 2,
}
TINY: dict[str, Any] = {**FIRST, "block_steps": [3, 2], "radii": [0.02, 0.02], "radius_unit": "element"}
STILL = {"scale": [1.0, 1.0]}
TARGETS = (1, 3, 1)


def attack_of(**options: Any) -> Any:
    """IF-GMI with these fields; Any, because its own methods are called."""
    return get_attack("if_gmi").from_params({**TINY, **options})


def victim_of(*, allowance: int | None = None, seen: list[Tensor] | None = None) -> WhiteBoxVictim:
    spec = NetSpec(name="mlp", width=8, size=SIZE, num_classes=CLASSES)
    net = build(spec, torch.Generator().manual_seed(0))
    freeze(net)

    def view(x: Tensor) -> Tensor:
        if seen is not None:
            seen.append(x.detach().clone())
        logits: Tensor = net(x)
        return logits

    return WhiteBoxVictim(lambda x: net(x).softmax(1), net, view=view, allowance=allowance)


def prior_of() -> Prior:
    attack, ctx = attack_of(), Context(seed=1)
    raw = attack.learn_prior(torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0)), ctx)
    prior: Prior = attack.adapt_prior(raw, victim_of(), torch.zeros(0, *SHAPE), ctx)
    return prior


def run(
    attack: Any, targets: Sequence[int] = TARGETS, victim: Any = None, max_batch: int = 256
) -> Reconstructions:
    ctx = Context(seed=5, max_batch=max_batch)
    got: Reconstructions = attack.invert(victim or victim_of(), prior_of(), torch.tensor(targets), ctx)
    return got


def effort_of(got: Reconstructions) -> Effort:
    assert got.effort is not None
    return got.effort


def styles_of(*, single_w: bool = True) -> Any:
    return attack_of(single_w=single_w).styles(prior_of(), victim_of(), Context())


def rows_at(level: int, *, single_w: bool = True, count: int = 3) -> tuple[Any, Tensor, Tensor]:
    """An entrance, rows of it that random w lead to, and these w as rows."""
    styles = styles_of(single_w=single_w)
    w = rows = styles.start(Noise.of_targets(0, torch.arange(count)))
    for before in range(level):
        rows = if_gmi.Entrance(styles, before).passed(rows)
    return if_gmi.Entrance(styles, level), rows, w


# the L1 ball


@pytest.mark.parametrize(
    ("x", "radius", "expected"),
    [
        ([3.0, 1.0, -0.5], 2.0, [2.0, 0.0, 0.0]),
        ([3.0, -2.0, 0.5], 3.0, [2.0, -1.0, 0.0]),
        ([1.0, -1.0, 1.0], 1.5, [0.5, -0.5, 0.5]),
        ([0.5, -0.25, 0.0], 1.0, [0.5, -0.25, 0.0]),
        ([3.0, -2.0, 0.5], 0.0, [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], 0.0, [0.0, 0.0, 0.0]),
    ],
)
def test_the_projection_on_the_l1_ball(x: list[float], radius: float, expected: list[float]) -> None:
    assert if_gmi.within_l1(torch.tensor([x]), radius)[0].tolist() == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 40), radius=st.floats(0.01, 30.0))
def test_the_projection_is_the_nearest_point_of_the_ball(seed: int, size: int, radius: float) -> None:
    x = 2 * torch.randn(5, size, generator=torch.Generator().manual_seed(seed))
    got = if_gmi.within_l1(x, radius)
    assert bool((got.abs().sum(1) <= radius * (1 + 1e-5)).all())
    inside = x.abs().sum(1) <= radius
    assert torch.equal(got[inside], x[inside])
    for row, near in zip(x[~inside].double(), got[~inside].double()):
        # the nearest point p of a convex set is the one with (x - p) . (q - p) <= 0 for each point q of it,
        # and a linear function is largest at a corner
        gap = row - near
        assert radius * float(gap.abs().max()) - float(gap @ near) < 1e-3 * radius * float(gap.abs().max())


def test_rows_of_a_projection_do_not_meet_and_long_rows_keep_their_radius() -> None:
    x = torch.randn(6, 20_000, generator=torch.Generator().manual_seed(0))
    got = if_gmi.within_l1(x, 1_000.0)
    torch.testing.assert_close(got.abs().sum(1), torch.full((6,), 1_000.0), rtol=1e-5, atol=0)
    assert torch.equal(if_gmi.within_l1(x[2:3], 1_000.0), got[2:3])


# entrances


@pytest.mark.parametrize("single_w", [True, False])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_entrance_holds_all_that_the_rest_of_the_synthesis_needs(level: int, single_w: bool) -> None:
    entrance, rows, w = rows_at(level, single_w=single_w)
    assert rows.shape == (3, sum(entrance.sizes))
    with torch.no_grad():
        torch.testing.assert_close(entrance.decode(rows), entrance.styles.decode(w), atol=1e-5, rtol=0)
    assert torch.equal(rows[:, -w.shape[1] :], w)


def test_map_and_w_are_variables_and_the_picture_is_none() -> None:
    entrance, rows, _ = rows_at(2)
    rows.requires_grad_(True)
    (slope,) = torch.autograd.grad(entrance.decode(rows).square().sum(), rows)
    x, picture, w = slope.split(entrance.sizes, dim=1)
    assert entrance.sizes == [4 * 8 * 8, 3 * 8 * 8, 5]
    assert bool((x.abs().amax(1) > 0).all())
    assert bool((w.abs().amax(1) > 0).all())
    assert not picture.any()
    moved = rows.detach().clone()
    moved[:, entrance.sizes[0] : -5] += 1
    with torch.no_grad():
        assert not torch.equal(entrance.decode(moved), entrance.decode(rows))


@pytest.mark.parametrize("is_bounded", [True, False])
@pytest.mark.parametrize("unit", ["total", "element"])
def test_changes_of_map_and_w_lie_in_their_balls(unit: str, is_bounded: bool) -> None:
    attack = attack_of(radii=[0.5, 0.25], radius_unit=unit, is_bounded=is_bounded)
    entrance, start, _ = rows_at(2)
    start = torch.cat([start[:, :-5], entrance.styles.project(start[:, -5:])], dim=1)
    region = attack._stage(entrance).bound(start)
    torch.testing.assert_close(region(start), start)
    far = start + 3 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    x, picture, w = (region(far) - start).split(entrance.sizes, dim=1)
    size_x, size_w = (256, 5) if unit == "element" else (1, 1)
    torch.testing.assert_close(x.abs().sum(1), torch.full((3,), 0.25 * size_x), rtol=1e-3, atol=0)
    assert not picture.any()
    reach = w.abs().sum(1)
    if is_bounded:
        assert bool((reach <= 0.25 * size_w + 1e-5).all())
        inside = region(far)[:, -5:]
        torch.testing.assert_close(inside, entrance.styles.project(inside))
    else:
        torch.testing.assert_close(reach, torch.full((3,), 0.25 * size_w), rtol=1e-3, atol=0)


# the whole attack


@pytest.mark.parametrize("single_w", [True, False])
def test_with_radius_zero_it_is_ppa(single_w: bool) -> None:
    ppa = get_attack("ppa").from_params({**FIRST, "single_w": single_w})
    still = run(attack_of(radii=[0.0, 0.0], single_w=single_w))
    torch.testing.assert_close(still.images, run(ppa).images, atol=1e-5, rtol=0)
    moved = run(attack_of(single_w=single_w))
    assert float((moved.images - still.images).abs().max()) > 1e-3


def test_without_blocks_it_is_ppa_to_the_bit() -> None:
    ppa = get_attack("ppa").from_params(FIRST)
    assert torch.equal(run(attack_of(block_steps=[], radii=[])).images, run(ppa).images)


def test_each_block_goes_on_where_the_one_before_it_ended_and_descends() -> None:
    seen: list[Tensor] = []
    attack = attack_of(views=STILL, block_steps=[8, 8], radii=[1.0, 1.0])
    effort = effort_of(run(attack, victim=victim_of(seen=seen)))
    ends = [4, 4 + 9]  # the last evaluation of a search, and the first of the next, see the same images
    for end in ends:
        torch.testing.assert_close(seen[end + 1], seen[end], atol=1e-5, rtol=0)
    losses = effort.loss[-4:-1]  # the last point is the choice
    assert all(bool((later < before).all()) for before, later in pairwise(losses))


def test_steps_queries_and_curve_run_over_all_searches() -> None:
    victim = victim_of()
    got = run(attack_of(), victim=victim)
    evaluations = [4 + 1, 4 + 1 + 3 + 1, 4 + 1 + 3 + 1 + 2 + 1]
    assert effort_of(got).queries.tolist()[-4:] == [*evaluations, evaluations[-1] + 1]
    assert len(effort_of(got).images) == len(effort_of(got).queries)
    assert victim.queries.forward == 3 * (evaluations[-1] + 1)  # and the score of the image that is reported


@pytest.mark.parametrize("report", ["last", "victim"])
@pytest.mark.parametrize("allowance", [9, 12, 15, 18])
def test_an_allowance_drops_the_last_blocks_first(allowance: int, report: str) -> None:
    victim = victim_of(allowance=allowance)
    got = run(attack_of(report=report), victim=victim)
    assert victim.queries.forward <= 3 * allowance
    whole = run(attack_of(report=report))
    full = 12 + (1 if report == "last" else 3 * 2)
    assert (victim.queries.forward == 3 * full) == (allowance >= full)
    if allowance >= full:
        assert torch.equal(got.images, whole.images)


def test_an_allowance_that_does_not_pay_for_the_start_is_refused() -> None:
    with pytest.raises(QueryBudgetError, match="budget of 1 queries"):
        run(attack_of(), victim=victim_of(allowance=1))


def test_the_victim_may_choose_the_block_that_is_reported() -> None:
    options = {"robust": STILL, "rounds": 1, "block_steps": [8, 8], "radii": [1.0, 1.0]}
    victim = victim_of()
    chosen = run(attack_of(report="victim", **options), victim=victim)
    parts = [
        run(attack_of(**{**options, "block_steps": [8] * count, "radii": [1.0] * count}))
        for count in range(3)
    ]
    table = torch.stack([part.confidence for part in parts])
    torch.testing.assert_close(chosen.confidence, table.amax(0), atol=1e-4, rtol=0)
    best = table.argmax(0).tolist()
    expected = torch.stack([parts[end].images[row] for row, end in enumerate(best)])
    torch.testing.assert_close(chosen.images, expected, atol=1e-4, rtol=0)
    assert victim.queries.forward == 3 * (5 + 9 + 9 + 3)


@pytest.mark.parametrize("report", ["last", "victim"])
def test_labels_do_not_meet_and_chunks_change_nothing(report: str) -> None:
    attack = attack_of(report=report, candidates=2)
    together = run(attack).images
    for rows, targets in (([1], [3]), ([0, 2], [1, 1])):
        torch.testing.assert_close(run(attack, targets).images, together[rows], atol=1e-5, rtol=0)
    torch.testing.assert_close(run(attack, max_batch=2).images, together, atol=1e-5, rtol=0)
    assert torch.equal(run(attack).images, together)


# fields


def test_the_defaults_are_those_of_the_authors() -> None:
    attack: Any = get_attack("if_gmi")()
    assert attack.search == get_attack("ppa")().search  # type: ignore[attr-defined]
    assert attack.block_steps == (25, 25, 25, 25)
    assert attack.radii == (2_000, 3_000, 4_000, 5_000)
    assert (attack.candidates, attack.keep, attack.radius_unit) == (1, 50, "total")


def test_more_blocks_than_the_generator_has_are_refused() -> None:
    with pytest.raises(PluginError, match=r"block_steps has 3 numbers.* images of 16 px has 2 blocks"):
        run(attack_of(block_steps=[1, 1, 1], radii=[1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radii": [1.0]}, "equally long, got 2 and 1 numbers"),
        ({"block_steps": [1, -1]}, r"must be >= 0, got \[1, -1\]"),
        ({"radii": [1.0, -2.0]}, r"must be >= 0.*\[1.0, -2.0\]"),
        ({"psi": 2.0}, "if_gmi: psi must lie"),
    ],
)
def test_impossible_fields_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attack_of(**options)
