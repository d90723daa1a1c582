"""Known answers of BREP-MI: the direction at a flat boundary, radii, refused moves, starts and queries."""

from __future__ import annotations

import dataclasses
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Reconstructions
from mibench.errors import QueryBudgetError
from mibench.gan import WganPrior
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.prior import Prior
from mibench.registry import get_attack
from mibench.victim import LabelVictim

brep_mi: Any = importlib.import_module(get_attack("brep_mi").__module__)

DIM = 12
TINY: dict[str, Any] = {"start_batch": 8, "start_rounds": 3, "points": 8, "draws": 20}
Rule = Callable[[Tensor], Tensor]


class Plain:
    """A space whose images are its latents, in a box of half-width 1.5 around 0."""

    dim = DIM

    def start(self, noise: Noise) -> Tensor:
        return noise.normal("start", DIM)

    def decode(self, latents: Tensor) -> Tensor:
        # pixels in [0, 1], so that nothing is clamped away
        return (latents / 3 + 0.5)[:, :, None, None]

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(-1.5, 1.5)

    def realism(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainPrior(WganPrior):
    def load(self, prior: Prior, shape: tuple[int, int, int], ctx: Context) -> Any:
        return Plain()


def latents_of(images: Tensor) -> Tensor:
    return 3 * (images.flatten(1) - 0.5)


def attack_of(**options: Any) -> Any:
    """The attack in the plain space; Any, because its own methods are called."""
    attack: Any = get_attack("brep_mi").from_params({**TINY, **options})
    return dataclasses.replace(attack, prior=PlainPrior())


def victim_of(rule: Rule, seen: list[Tensor] | None = None, **limits: Any) -> LabelVictim:
    """Two labels: 1 where the rule on latents (N, DIM) holds, else 0."""

    def released(x: Tensor) -> Tensor:
        z = latents_of(x)
        if seen is not None:
            seen.append(z.clone())
        one = rule(z).float()
        return torch.stack([1 - one, one], 1)

    return LabelVictim(released, shape=(DIM, 1, 1), num_classes=2, **limits)


def run(
    rule: Rule, targets: Sequence[int] = (1,), ctx: Context | None = None, **options: Any
) -> tuple[Reconstructions, Tensor, LabelVictim, Context]:
    """What comes back for `targets`, its latents, the victim, and the context with its notes."""
    ctx, victim = ctx or Context(seed=3), victim_of(rule)
    attack = attack_of(**options)
    prior = attack.adapt_prior({}, victim, torch.zeros(1), ctx)
    got = attack.invert(victim, prior, torch.tensor(targets), ctx)
    return got, latents_of(got.images), victim, ctx


def anywhere(z: Tensor) -> Tensor:
    return torch.ones(len(z), dtype=torch.bool)


def nowhere(z: Tensor) -> Tensor:
    return ~anywhere(z)


def half(z: Tensor) -> Tensor:
    return z[:, 0] <= 0


def off_center(z: Tensor) -> Tensor:
    return (z - 0.4).square().sum(1).sqrt()


def ball(z: Tensor) -> Tensor:
    return off_center(z) <= 3.5


# the direction


@pytest.mark.parametrize(("dim", "count"), [(2, 30_000), (3, 20_000), (100, 4_000)])
def test_the_direction_at_a_flat_boundary_is_half_the_mean_coordinate(dim: int, count: int) -> None:
    units = brep_mi.unit_directions(Noise.of_targets(0, torch.tensor([1])), count, dim, 0)
    torch.testing.assert_close(units.norm(dim=2), torch.ones(1, count))
    mean = math.gamma(dim / 2) / (math.sqrt(math.pi) * math.gamma((dim + 1) / 2))
    got = brep_mi.direction(units, units[..., 0] <= 0, repulsion_only=True)[0]
    error = 5 / math.sqrt(dim * count)  # five standard errors of a mean coordinate
    assert float(got[0]) == pytest.approx(-mean / 2, abs=error)
    assert float(got[1:].abs().max()) < error
    # attraction adds the same from the other side
    both = brep_mi.direction(units, units[..., 0] <= 0, repulsion_only=False)[0]
    assert float(both[0]) == pytest.approx(-mean, abs=2 * error)


def test_a_sphere_wholly_inside_repels_in_no_direction() -> None:
    units = brep_mi.unit_directions(Noise.of_targets(0, torch.tensor([1, 2])), 5, 4, 0)
    inside = torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(brep_mi.direction(units, inside, repulsion_only=True), torch.zeros(2, 4))
    inside[1, 3] = False
    got = brep_mi.direction(units, inside, repulsion_only=True)
    torch.testing.assert_close(got[1], -units[1, 3] / 5)


# the walk


def test_radii_grow_by_the_factor_with_every_sphere_that_fits() -> None:
    got, _, victim, _ = run(anywhere, draws=7)
    assert got.effort is not None
    # everything is inside, so each draw grows; the last sphere that fitted is the seventh
    assert float(got.effort.loss[-1]) == pytest.approx(-2 * 1.3**6, rel=1e-5)
    assert victim.queries.forward == 8 + 7 * (8 + 1)
    for queries, loss in zip(got.effort.queries.tolist(), got.effort.loss[:, 0].tolist()):
        walked = min(7, (queries - 8) // 9)
        wanted = -2 * 1.3 ** (walked - 1) if walked > 0 else 0.0 if queries >= 8 else math.nan
        assert loss == pytest.approx(wanted, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize(("fitting", "grows"), [(28, False), (29, True)])
def test_a_sphere_grows_when_more_than_seven_eighths_lie_inside(fitting: int, *, grows: bool) -> None:
    def first_ones(z: Tensor) -> Tensor:
        return torch.arange(len(z)) < fitting if len(z) == 32 else anywhere(z)

    got, _, _, _ = run(first_ones, points=32, draws=1)
    assert got.effort is not None
    assert float(got.effort.loss[-1]) == (-2.0 if grows else 0.0)


@pytest.mark.parametrize("radius", [0.9, 30.0])
def test_a_move_is_a_third_of_the_radius_and_three_at_most(radius: float) -> None:
    seen: list[Tensor] = []

    def first_outside(z: Tensor) -> Tensor:
        return torch.arange(len(z)) > 0 if len(z) == 4 else anywhere(z)

    attack = attack_of(points=4, draws=1, start_batch=1, radius=radius, keep="last")
    got = attack.invert(victim_of(first_outside, seen), {}, torch.tensor([1]), Context(seed=3))
    start, sphere, moved = seen
    unit = (sphere[0] - start[0]) / radius
    wanted = (start[0] - min(radius / 3, 3) * unit / 4).clamp(-1.5, 1.5)
    torch.testing.assert_close(moved[0], wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(latents_of(got.images)[0], wanted, atol=1e-5, rtol=0)


def test_a_move_with_growth_is_divided_by_the_grown_radius() -> None:
    seen: list[Tensor] = []

    def first_outside(z: Tensor) -> Tensor:
        return torch.arange(len(z)) > 0 if len(z) == 16 else anywhere(z)

    attack = attack_of(points=16, draws=1, start_batch=1)
    attack.invert(victim_of(first_outside, seen), {}, torch.tensor([1]), Context(seed=3))
    start, sphere, moved = seen
    step = (sphere[0] - start[0]) / 2 * (2 / 3) / 16 / 1.3
    torch.testing.assert_close(moved[0], (start[0] - step).clamp(-1.5, 1.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("repulsion_only", [True, False])
def test_a_walk_in_a_ball_ends_near_its_center(*, repulsion_only: bool) -> None:
    options: dict[str, Any] = {"points": 64, "start_rounds": 50, "repulsion_only": repulsion_only}
    targets = [1] * 6
    _, start, _, context = run(ball, targets, draws=0, **options)
    _, end, _, _ = run(ball, targets, draws=300, **options)
    assert "never_hit" not in context.notes
    before, after = (off_center(z).mean() for z in (start, end))
    assert float(after) < 0.5 * float(before)


@pytest.mark.parametrize("keep", ["growth", "last"])
def test_all_that_is_held_lies_in_the_label(keep: str) -> None:
    got, latents, _, _ = run(half, [1] * 8, draws=30, keep=keep)
    assert got.effort is not None
    assert bool(half(latents).all())
    started = got.effort.queries >= 8 * 3
    for images in got.effort.images[started]:
        # eight bits a pixel cannot be told apart closer to the boundary
        assert bool((latents_of(images / 255)[:, 0] <= 3 / 255).all())


def test_a_refused_move_leaves_the_latent_and_costs_no_patience() -> None:
    _, origin, _, _ = run(anywhere, start_batch=1, draws=0)

    def nothing_else(z: Tensor) -> Tensor:
        return (z - origin).abs().amax(1) < 1e-3

    _, latents, victim, _ = run(nothing_else, start_batch=1, draws=15, patience=1)
    torch.testing.assert_close(latents, origin, atol=1e-4, rtol=0)
    assert victim.queries.forward == 1 + 15 * 9


def test_a_walk_ends_after_so_many_moves_without_growth() -> None:
    def centers_only(z: Tensor) -> Tensor:
        # spheres come in eights and lie outside; a single latent is a move
        return torch.full((len(z),), len(z) != 8)

    _, _, victim, _ = run(centers_only, start_batch=1, draws=15, patience=4)
    assert victim.queries.forward == 1 + 4 * 9


# starts


def test_a_label_that_is_never_hit_comes_back_as_its_last_start() -> None:
    seen: list[Tensor] = []
    ctx = Context(seed=3)
    got = attack_of().invert(victim_of(nowhere, seen), {}, torch.tensor([1, 0, 1]), ctx)
    assert ctx.notes == {"never_hit": [1]}
    # the second and third round ask for the two rows that are left, eight latents each
    rounds = [part.view(2, 8, DIM) for part in seen if len(part) == 16]
    torch.testing.assert_close(latents_of(got.images)[[0, 2]], rounds[1][:, -1], atol=1e-5, rtol=0)
    assert bool(got.confidence.isnan().all())


def test_the_first_hit_is_the_start() -> None:
    seen: list[Tensor] = []
    attack = attack_of(draws=0, start_batch=64)
    got = attack.invert(victim_of(half, seen), {}, torch.tensor([1]), Context(seed=3))
    first = int(half(seen[0]).nonzero()[0])
    torch.testing.assert_close(latents_of(got.images)[0], seen[0][first], atol=1e-5, rtol=0)


def test_a_pool_is_labeled_once_and_its_hits_are_taken_in_turn() -> None:
    attack, victim, ctx = attack_of(pool=9, start_rounds=0, draws=0), victim_of(half), Context(seed=1)
    prior = attack.adapt_prior({}, victim, torch.zeros(1), ctx)
    assert victim.queries.forward == 9
    hits = prior["pool"][half(prior["pool"])]
    assert 1 < len(hits) < 9
    assert torch.equal(prior["pool_labels"] == 1, half(prior["pool"]))
    count = len(hits) + 1
    got = attack.invert(victim, prior, torch.tensor([1] * count), ctx)
    torch.testing.assert_close(latents_of(got.images), torch.cat([hits, hits[:1]]), atol=1e-5, rtol=0)
    assert victim.queries.forward == 9


def test_a_label_outside_the_pool_is_searched_for() -> None:
    attack, ctx = attack_of(pool=4, draws=0, start_batch=64), Context(seed=1)
    prior = {"pool": torch.ones(4, DIM), "pool_labels": torch.zeros(4, dtype=torch.int64)}
    victim = victim_of(half)
    got = attack.invert(victim, prior, torch.tensor([1, 0]), ctx)
    assert bool(half(latents_of(got.images))[0])
    torch.testing.assert_close(latents_of(got.images)[1], torch.ones(DIM), atol=1e-5, rtol=0)
    assert victim.queries.forward == 64
    assert "never_hit" not in ctx.notes


# contract of batches and budgets


def test_rows_do_not_meet_and_chunks_change_nothing() -> None:
    targets = [1, 0, 1, 1]
    whole, _, _, _ = run(half, targets)
    for chunk in (1, 3):
        part, _, _, _ = run(half, targets, Context(seed=3, max_batch=chunk))
        torch.testing.assert_close(part.images, whole.images, atol=1e-5, rtol=0)
    alone, _, _, _ = run(half, [1, 1])
    torch.testing.assert_close(alone.images, whole.images[[0, 2]], atol=1e-5, rtol=0)
    assert whole.effort is not None
    assert alone.effort is not None
    assert torch.equal(alone.effort.images, whole.effort.images[:, [0, 2]])


@pytest.mark.parametrize("allowance", [8, 16, 17, 24, 60])
def test_an_allowance_ends_each_walk_with_what_an_unlimited_one_held(allowance: int) -> None:
    targets = torch.tensor([1, 0, 1])
    attack = attack_of()
    victim = victim_of(half, allowance=allowance, max_queries=3 * allowance)
    got = attack.invert(victim, {}, targets, Context(seed=3))
    assert victim.queries.forward <= 3 * allowance
    assert got.effort is not None
    assert int(got.effort.queries[-1]) == -(-victim.queries.forward // 3)
    # a walk limited by its draws instead comes to the same, since each row was hit in its first round
    started = victim_of(half)
    attack_of(draws=0).invert(started, {}, targets, Context(seed=3))
    assert started.queries.forward == 3 * 8
    other = attack_of(draws=(allowance - 8) // 9).invert(victim_of(half), {}, targets, Context(seed=3))
    torch.testing.assert_close(got.images, other.images)


def test_an_allowance_below_a_first_round_is_refused() -> None:
    with pytest.raises(QueryBudgetError, match="7 queries for each reconstruction is too small: 8"):
        attack_of().invert(victim_of(half, allowance=7), {}, torch.tensor([1]), Context())


def test_the_last_point_of_the_curve_is_the_result_and_asks_nothing() -> None:
    got, _, victim, _ = run(half, [1, 1])
    assert got.effort is not None
    assert torch.equal(got.effort.images[-1], (got.images * 255).round().to(torch.uint8))
    assert int(got.effort.queries[-1]) == -(-victim.queries.forward // 2)


def test_the_defaults_are_the_authors() -> None:
    attack: Any = get_attack("brep_mi")()
    assert (attack.prior.clamp, attack.pool, attack.start_batch) == (1.5, 0, 256)
    assert (attack.points, attack.radius, attack.growth) == (32, 2.0, 1.3)
    assert (attack.inside, attack.patience, attack.repulsion_only) == (7 / 8, 1_000, True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"points": 0},
        {"start_rounds": 0},
        {"draws": -1},
        {"radius": 0.0},
        {"growth": 1.0},
        {"inside": 1.0},
        {"patience": 0},
        {"keep": "first"},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match="brep_mi: .*" + ("" if "start_rounds" in wrong else next(iter(wrong)))
    ):
        get_attack("brep_mi").from_params(wrong)
