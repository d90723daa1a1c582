"""Vectors drawn anew: by the label alone without a code, members' labels exchanged, and learned."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.contract.toy import RECIPE, toy_world
from mibench.data.split import Labeled
from mibench.defense import DefenderView, Released
from mibench.plugin import Context
from mibench.registry import get_defense

module: Any = importlib.import_module(get_defense("purifier").__module__)
SURROGATE = {"width": 4, "epochs": 1, "batch": 16}


def purifier(**params: Any) -> Any:
    small = {"epochs": 4, "batch": 16, "lr": 5e-3, "reference": "private", "swap": 0.0}
    return get_defense("purifier").from_params({**small, "surrogate": SURROGATE, **params})


def view() -> DefenderView:
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(4), recipe=RECIPE
    )


def released(one: Any, images: Tensor, ctx: Context | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    world, ctx = toy_world(), ctx or Context()
    state = one.learn_output(world.net, view(), ctx)
    with torch.no_grad():
        answer: Tensor = one.protect(world.net, state, ctx)(images)
    return answer, state


def test_without_a_code_the_output_hangs_on_the_label_alone() -> None:
    world = toy_world()
    images = torch.cat([world.test.images, world.public])
    answers, _ = released(purifier(latent=0), images)
    labels = world.net(images).argmax(1)
    for label in range(4):
        rows = answers[labels == label]
        assert len(rows) > 1
        assert torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-6)
    coded, _ = released(purifier(latent=8, kl_weight=0.0, label_weight=0.0, epochs=5), images)
    rows = coded[labels == 0]
    assert not torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-3)


@pytest.mark.parametrize("mode", ["cvae", "autoencoder"])
def test_it_learns_to_keep_the_label(mode: str) -> None:
    world = toy_world()
    answers, _ = released(purifier(mode=mode, epochs=60), world.test.images)
    same = answers.argmax(1) == world.net(world.test.images).argmax(1)
    assert float(same.float().mean()) > 0.9
    assert torch.allclose(answers.sum(1), torch.ones(len(answers)), atol=1e-5)


def test_vectors_scatter_less_within_a_label() -> None:
    """What purification is for: a vector tells less than its label does not."""
    world = toy_world()
    answers, _ = released(purifier(epochs=60), world.defender.images)
    with torch.no_grad():
        plain = Released(world.net)(world.defender.images)
    labels = plain.argmax(1)

    def scatter(scores: Tensor) -> float:
        means = torch.stack([scores[labels == label].mean(0) for label in labels])
        return float((scores - means).square().sum(1).mean())

    assert scatter(answers) < 0.2 * scatter(plain)


def test_the_swapper_swaps_exactly_the_members() -> None:
    world = toy_world()
    images = torch.cat([world.private.images, world.test.images, world.public])
    plain, _ = released(purifier(), images)
    for share in (1.0, 0.25):
        answers, state = released(purifier(swap=share), images)
        assert state["members"].dtype == torch.uint8
        assert len(state["members"]) == round(share * len(world.private))
        kept = {tuple(row) for row in state["members"].flatten(1).tolist()}
        members = [tuple(row) in kept for row in (images * 255).round().int().flatten(1).tolist()]
        is_member = torch.tensor(members)
        assert int(is_member.sum()) == len(state["members"])
        assert torch.equal(answers[~is_member], plain[~is_member])
        top, index = plain[is_member].topk(2, dim=1)
        assert torch.equal(answers[is_member], plain[is_member].scatter(1, index, top.flip(1)))


def test_a_member_is_known_within_the_distance_only() -> None:
    members = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    step = torch.zeros_like(members)
    step[:, 0, 0, 0] = 1e-3
    assert bool(module.is_near(members, members, 0.0).all())
    assert bool(module.is_near(members + step, members, 1.1e-3).all())
    assert not bool(module.is_near(members + step, members, 0.9e-3).any())


def test_images_between_gray_levels_are_members_too() -> None:
    world = toy_world()
    between = Labeled(world.private.images * 0.999, world.private.labels)
    one, ctx = purifier(swap=1.0, epochs=1), Context()
    state = one.learn_output(world.net, dataclasses.replace(view(), private_train=between), ctx)
    assert state["members"].dtype == torch.float32
    assert bool(module.is_near(between.images, state["members"], one.swap_distance).all())


def test_the_weight_mixes_the_victims_vector_in() -> None:
    world = toy_world()
    images = world.test.images
    with torch.no_grad():
        plain = Released(world.net)(images)
    whole, _ = released(purifier(), images)
    half, _ = released(purifier(weight=0.5), images)
    assert torch.allclose(half, (plain + whole) / 2, atol=1e-5)


def test_the_autoencoder_drives_the_error_of_the_inversion_network_up() -> None:
    world, errors = toy_world(), []
    images = world.defender.images
    for weight in (0.0, 1e4):
        surrogate = {"width": 4, "epochs": 20, "batch": 16, "lr": 3e-3}
        options = {"mode": "autoencoder", "surrogate": surrogate, "reference": "public", "epochs": 20}
        one = purifier(inversion_weight=weight, **options)
        answers, _ = released(one, images)
        # the network that it was trained against, made again
        own = one.surrogate
        ctx = Context().child("surrogate")
        with torch.no_grad():
            log_p = world.net(images).log_softmax(1)
        decoder = own.fit(own.build(world.net.spec, ctx), log_p, images, ctx, name="purifier").eval()
        with torch.no_grad():
            drawn = decoder(own.prepare(answers.clamp_min(1e-12).log()))
        errors.append(float((drawn - images).square().mean()))
    assert errors[1] > 1.2 * errors[0]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"latent": -1}, {"swap": 1.5}, {"weight": -0.1}, {"lr": 0.0}, {"swap_distance": -1.0}],
)
def test_wrong_fields_are_named(wrong: dict[str, Any]) -> None:
    (field,) = wrong
    with pytest.raises(ValueError, match=f"purifier: {field} must"):
        purifier(**wrong)
