"""Effort curves of all kinds of attack end at what is returned and at what was spent for it."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Effort, Reconstructions
from mibench.contract.attack_checks import AttackSubject, effort_ends_at_what_is_returned
from mibench.contract.toy import World, toy_world
from mibench.data.split import quantize
from mibench.inversion import Film, Part, Problem, invert_latents, joined
from mibench.latent import Search, identity_loss
from mibench.noise import Noise
from mibench.plugin import Context
from mibench.registry import get_attack
from mibench.victim import ScoreVictim, WhiteBoxVictim

TARGETS = torch.tensor([1, 3, 1, 0])


class Dots:
    """Latents that are images of the toy world."""

    def __init__(self, world: World) -> None:
        self.shape = world.private.shape
        self.dim = self.shape[0] * self.shape[1] * self.shape[2]

    def start(self, noise: Noise) -> Tensor:
        return noise.uniform("start", self.dim)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.view(-1, *self.shape)

    def project(self, latents: Tensor) -> Tensor:
        return latents.clamp(0, 1)

    def realism(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images))


def inverted(
    *, max_batch: int = 64, looks: int = 1, **options: Any
) -> tuple[Reconstructions, WhiteBoxVictim, list[int]]:
    """Reconstructions, the victim, and the number of images in each evaluation."""
    world, sizes = toy_world(), list[int]()
    victim = world.victim(WhiteBoxVictim)
    assert isinstance(victim, WhiteBoxVictim)

    def loss(images: Tensor, problem: Problem, _step: int) -> Tensor:
        logits = victim.logits(images.repeat(looks, 1, 1, 1))
        sizes.append(len(logits))
        return identity_loss(logits[: len(images)], problem.labels, "ce")

    ctx = Context(seed=3, max_batch=max_batch)
    options = {"search": Search(steps=3, lr=0.05), "per_step": looks, "loss": loss, **options}
    return invert_latents(victim, Dots(world), TARGETS, ctx, **options), victim, sizes


def worst(images: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
    """A free choice of the last restart, which the loss would not have chosen."""
    return torch.arange(len(images)).view(-1, problem.restarts)[:, -1], torch.zeros(len(images))


def curve_of(got: Reconstructions) -> Effort:
    assert got.effort is not None
    return got.effort


# the driver


def test_a_choice_that_asks_is_the_last_point_of_the_curve() -> None:
    got, victim, _ = inverted(restarts=3)
    assert torch.equal(curve_of(got).images[-1], quantize(got.images))
    assert curve_of(got).queries.tolist() == [3, 6, 9, 12, 15]
    assert victim.queries.forward == 4 * 15


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_free_choice_gets_a_point_where_it_changes_rows(restarts: int) -> None:
    got, victim, _ = inverted(restarts=restarts, choose=worst, per_choice=0)
    effort = curve_of(got)
    assert torch.equal(effort.images[-1], quantize(got.images))
    assert int(effort.queries[-1]) == victim.queries.forward // 4 == 4 * restarts
    assert len(effort.queries) == (4 if restarts == 1 else 5)
    net = toy_world().net
    own = identity_loss(net(got.images).detach(), TARGETS, "ce")
    torch.testing.assert_close(effort.loss[-1], own, atol=1e-4, rtol=1e-4)  # of the chosen one
    assert (restarts == 1) == torch.equal(effort.loss[-1], effort.loss[3])


@pytest.mark.parametrize(
    ("max_batch", "looks", "most"), [(8, 1, 8), (8, 2, 8), (16, 4, 16), (4, 2, 4), (2, 2, 4)]
)
def test_a_chunk_has_room_for_all_looks_of_a_step(max_batch: int, looks: int, most: int) -> None:
    got, _, sizes = inverted(max_batch=max_batch, looks=looks, restarts=2)
    assert max(sizes) == most  # a single reconstruction may be more than fits
    whole, _, _ = inverted(looks=looks, restarts=2)
    torch.testing.assert_close(got.images, whole.images, atol=1e-5, rtol=0)
    assert torch.equal(curve_of(got).queries, curve_of(whole).queries)


# parts


def part(queries: list[int], *rows: float) -> Part:
    images = torch.tensor(rows)[:, None, None, None]
    trail = quantize(images).expand(len(queries), *images.shape).clone()
    trail[:-1] = 0
    return Part(
        images, torch.tensor(rows), torch.tensor(queries), trail, torch.zeros(len(queries), len(rows))
    )


def test_joined_parts_share_their_queries_and_a_shorter_one_stays() -> None:
    targets = torch.tensor([5, 6, 7])
    got = joined([part([2, 4, 9], 0.1, 0.2), part([1, 5], 0.3)], targets, rows=torch.tensor([2, 0, 1]))
    effort = curve_of(got)
    assert effort.queries.tolist() == [1, 3, 5]  # 3, 9 and 14 of three rows, rounded up
    assert got.confidence.tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert (effort.images[1].flatten() > 0).tolist() == [True, False, False]
    assert torch.equal(effort.images[-1], quantize(got.images))
    assert effort.single is None
    assert len(curve_of(joined([part([1, 2], 0.5)], targets[:1], points=4)).queries) == 4


def test_a_film_counts_images_and_not_looks_at_them() -> None:
    victim = toy_world().victim(ScoreVictim)
    assert isinstance(victim, ScoreVictim)
    x = toy_world().public[:2]
    victim.scores(x)
    other = victim.asked_through(lambda released: released, per_image=3)
    film = Film(other)
    other.scores(x)
    film.add(x, torch.zeros(2))
    other.scores(x)
    film.settle(x)
    assert film.part(x, torch.zeros(2)).queries.tolist() == [4]


# attacks


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mi_face", {"conf_stop": 0.6}),
        ("mirror_bb", {}),
        ("brep_mi", {}),
        ("rlb_mi", {}),
        ("deep_inversion", {}),
        ("dmi", {}),
        ("ppa", {}),
        ("ami", {"target_vector": "chosen"}),
    ],
)
def test_an_attack_records_what_it_spent(name: str, options: dict[str, Any]) -> None:
    subject = AttackSubject(get_attack(name))
    subject.attack = subject.plugin.from_params({**subject.plugin.toy, **options})
    assert subject.trial.asked > 0
    assert curve_of(subject.trial.got).queries[-1] == -(-subject.trial.asked // len(TARGETS))
    assert effort_ends_at_what_is_returned(subject) is None
    chunks = curve_of(subject.again((1, 3, 1, 0), max_batch=4))
    assert torch.equal(chunks.queries, curve_of(subject.trial.got).queries)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (lambda e: {"images": e.images.flip(0)}, "not those that it returns"),
        (lambda e: {"queries": e.queries - e.queries[-1] // 2}, "queries for each target, and it asked"),
        (lambda e: {"queries": e.queries.flip(0)}, "fall"),
    ],
)
def test_the_contract_sees_a_curve_that_ends_elsewhere(change: Any, wanted: str) -> None:
    subject = AttackSubject(get_attack("gmi"))
    got = subject.trial.got
    effort = dataclasses.replace(curve_of(got), **change(curve_of(got)))
    subject.trial = dataclasses.replace(subject.trial, got=dataclasses.replace(got, effort=effort))
    answer = effort_ends_at_what_is_returned(subject)
    assert answer is not None
    assert wanted in answer


# memory of attacks without gradients


def module_of(name: str, helper: str) -> Any:
    package = get_attack(name).__module__.rpartition(".")[0]
    return sys.modules[f"{package}.{helper}"]


def test_a_trail_keeps_bytes_and_holds_no_more_floats_than_its_last_point() -> None:
    queries, space = module_of("brep_mi", "_queries"), Dots(toy_world())
    trail = queries.Trail(torch.rand(5, space.dim), planned=9)
    trail.hold(torch.tensor([1]), torch.rand(1, space.dim), torch.tensor([2]))
    kept = list[Tensor]()

    def answers(latents: Tensor, *rest: Any) -> Tensor:
        assert len(latents) <= 3
        kept.append(latents)
        found: Tensor = plain(latents, *rest)
        return found

    plain, queries.answers = queries.answers, answers
    try:
        spent = torch.tensor([0, 9, 4, 9, 9])
        got = trail.collect(space, TARGETS[[0, 1, 2, 3, 0]], Context(max_batch=3), spent=spent)
    finally:
        queries.answers = plain
    assert len(kept) == -(-5 * len(trail.queries) // 3)
    assert torch.equal(curve_of(got).images[-1], quantize(got.images))
    assert torch.equal(got.images, space.decode(trail.latents))
    assert curve_of(got).queries[-1] == -(-31 // 5)


def test_the_search_for_starts_draws_no_more_rows_at_once_than_fit() -> None:
    kind = get_attack("brep_mi")
    subject, drawn = AttackSubject(kind), list[int]()
    assert subject.trial.asked > 0
    space = subject.attack.prior_spec()
    assert space is not None
    walks = module_of("brep_mi", "brep_mi")._Walks
    plain = walks._try_starts

    def watched(self: Any, rows: Tensor, noise: Noise) -> None:
        drawn.append(len(noise))
        plain(self, rows, noise)

    walks._try_starts = watched
    try:
        subject.again((1, 3, 1, 0), max_batch=32)
    finally:
        walks._try_starts = plain
    assert max(drawn) == 32  # two rows of 16 starts
