"""What the NetGuard family asks of its fakes, and the weight of consolidation that it chooses by itself."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from typing import Any

import pytest
import torch

from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.errors import MibenchError, TrainingError
from mibench.nets.vgg import SmallVgg
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import accuracy
from mibench.victim import fingerprint

images_of: Any = importlib.import_module("mibench.defenses._decoy_images")

LADDER = (0.0, 1e-6, 1.0, 100.0, 1e4)


def auto(**options: Any) -> Any:
    """Pushed away, real images of the protected person cost a label of four, unless the weights are held."""
    settings = {
        "ewc_weight": "auto",
        "ewc_ladder": LADDER,
        "beta": 0.0,
        "num_fakes": 8,
        "finetune_steps": 30,
        "finetune_lr": 3e-3,
        "fisher_samples": 24,
        "validation_fraction": 0.25,
    }
    return get_defense("random_fake").from_params({**settings, **options})


def trained(plugin: Any, net: SmallVgg, view: DefenderView) -> tuple[SmallVgg, dict[str, Any]]:
    ctx = Context(seed=3)
    return plugin.train(copy.deepcopy(net), view, ctx), ctx.notes


def parts(view: DefenderView, share: float = 0.25) -> tuple[Labeled, Labeled]:
    kept, aside = images_of.keep_aside(view.private_train, share, Context(seed=3).generator("validation"))
    return kept, aside


# the part that is kept aside


def test_each_label_gives_its_share_and_no_image_lies_in_both_parts() -> None:
    labels = torch.tensor([0] * 8 + [1] * 4 + [2] * 2 + [3])
    images = torch.arange(15.0)[:, None, None, None]
    kept, aside = images_of.keep_aside(Labeled(images, labels), 0.25, torch.Generator().manual_seed(0))
    assert aside.labels.bincount(minlength=4).tolist() == [2, 1, 1, 0]
    assert kept.labels.bincount(minlength=4).tolist() == [6, 3, 1, 1]
    both = torch.cat([kept.images, aside.images]).flatten()
    assert sorted(both.tolist()) == images.flatten().tolist()
    assert (labels[kept.images.flatten().long()] == kept.labels).all()


def test_every_label_keeps_an_image_to_learn_from() -> None:
    data = Labeled(torch.rand(6, 1, 2, 2), torch.arange(6) % 2)
    kept, _ = images_of.keep_aside(data, 0.99, torch.Generator())
    assert kept.labels.bincount().tolist() == [1, 1]


def test_single_images_leave_nothing_to_keep_aside() -> None:
    data = Labeled(torch.rand(3, 1, 2, 2), torch.arange(3))
    with pytest.raises(MibenchError, match="no label has two private images"):
        images_of.keep_aside(data, 0.5, torch.Generator())


# the choice


def test_the_smallest_weight_that_keeps_the_accuracy_is_taken(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    kept, aside = parts(color_world)
    learned_from = dataclasses.replace(color_world, private_train=kept)
    before = accuracy(color_victim, aside)
    nets = {w: trained(auto(ewc_weight=w), color_victim, learned_from)[0] for w in LADDER}
    drops = {weight: before - accuracy(net, aside) for weight, net in nets.items()}
    fits = [weight for weight in LADDER if drops[weight] <= 0.1]
    assert LADDER[0] < min(fits) < LADDER[-1]  # so that smaller ones fail and larger ones are left
    net, notes = trained(auto(max_drop=0.1), color_victim, color_world)
    assert notes["ewc_weight"] == min(fits)
    assert fingerprint(net) == fingerprint(nets[min(fits)])
    assert notes["max_drop_kept"] == "yes"
    assert notes["validation_accuracy"] == before
    tried = {name: value for name, value in notes.items() if name.startswith("validation_accuracy_ewc_")}
    assert tried == {
        f"validation_accuracy_ewc_{weight:g}": pytest.approx(before - drops[weight])
        for weight in LADDER
        if weight <= min(fits)
    }


def test_where_no_weight_keeps_the_accuracy_the_largest_is_taken(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    kept, _ = parts(color_world)
    net, notes = trained(auto(ewc_ladder=(0.0, 1e-6), max_drop=0.0), color_victim, color_world)
    assert notes["max_drop_kept"] == "no"
    assert notes["ewc_weight"] == 1e-6
    assert notes["validation_accuracy_ewc_1e-06"] < notes["validation_accuracy"]
    assert notes["validation_accuracy_ewc_0"] < notes["validation_accuracy"]
    learned_from = dataclasses.replace(color_world, private_train=kept)
    fixed, _ = trained(auto(ewc_weight=1e-6), color_victim, learned_from)
    assert fingerprint(net) == fingerprint(fixed)
    assert notes["fake_q"] == pytest.approx(
        float(net(_fakes(kept)).softmax(1)[:, 2].detach().mean()), rel=1e-5
    )


def _fakes(kept: Labeled) -> torch.Tensor:
    drawn: torch.Tensor = images_of.sample(kept, 2, 8, Context(seed=3).generator("private fakes"))
    return drawn


def test_what_is_kept_aside_teaches_nothing(color_world: DefenderView, color_victim: SmallVgg) -> None:
    _, aside = parts(color_world)
    data = color_world.private_train
    hidden = (data.images.flatten(1)[:, None] == aside.images.flatten(1)).all(2).any(1)
    assert int(hidden.sum()) == len(aside) > 0
    noise = torch.rand(data.images.shape, generator=torch.Generator().manual_seed(0))
    changed = Labeled(torch.where(hidden[:, None, None, None], noise, data.images), data.labels)
    plugin = auto(max_drop=1.0, ewc_ladder=(1.0,), replay_fraction=1.0)
    nets = [
        trained(plugin, color_victim, dataclasses.replace(color_world, private_train=one))[0]
        for one in (data, changed)
    ]
    assert fingerprint(nets[0]) == fingerprint(nets[1])


def test_the_fakes_are_made_once(
    color_world: DefenderView, color_victim: SmallVgg, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = auto(ewc_ladder=(0.0, 1e-7, 1e-6), max_drop=0.0)
    targets = []
    made = type(plugin).make_fakes

    def watched(*args: Any) -> Any:
        targets.append(args[3])
        return made(*args)

    monkeypatch.setattr(type(plugin), "make_fakes", watched)
    _, notes = trained(plugin, color_victim, color_world)
    assert targets == [2]
    assert len([name for name in notes if name.startswith("validation_accuracy_ewc_")]) == 3


def test_choosing_repeats_itself_and_leaves_the_victim(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    before = fingerprint(color_victim)
    one, two = (trained(auto(max_drop=0.1), color_victim, color_world) for _ in range(2))
    assert fingerprint(one[0]) == fingerprint(two[0])
    assert one[1] == two[1]
    assert fingerprint(color_victim) == before
    assert not any(value.requires_grad for value in one[0].parameters())


def test_without_a_push_or_a_pull_nothing_is_chosen(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    net, notes = trained(auto(alpha=0.0, beta=0.0), color_victim, color_world)
    assert fingerprint(net) == fingerprint(copy.deepcopy(color_victim))
    assert set(notes) == {"decoy"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ewc_ladder", []),
        ("ewc_ladder", [3.0, 1.0]),
        ("ewc_ladder", [1.0, 1.0]),
        ("ewc_ladder", [-1.0, 1.0]),
        ("max_drop", 1.5),
        ("validation_fraction", 0.0),
        ("validation_fraction", 1.0),
        ("least_confidence", -0.1),
    ],
)
def test_wrong_options_are_named(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"random_fake: {option} must"):
        auto(**{option: value})


@pytest.mark.parametrize("name", ["netguard", "gan_d", "gan_id", "random_fake"])
def test_options_that_came_later_leave_the_key_as_it_was(name: str) -> None:
    plugin = get_defense(name).from_params({"ewc_weight": 30})
    later = {"least_confidence", "ewc_ladder", "max_drop", "validation_fraction"}
    assert later < set(plugin.params())
    assert not later & set(plugin.key_params())
    assert "max_drop" in get_defense(name).from_params({"max_drop": 0.05}).key_params()
    assert plugin.key_params()["ewc_weight"] == 30.0


# what the fakes must be


def inverting(**options: Any) -> Any:
    settings = {"num_fakes": 6, "z_lr": 0.1, "finetune_steps": 2, "fisher_samples": 16}
    return get_defense("gan_id").from_params({**settings, **options})


def test_sure_fakes_pass(color_world: DefenderView, color_victim: SmallVgg) -> None:
    _, notes = trained(inverting(z_steps=40, least_confidence=0.5), color_victim, color_world)
    assert min(notes["fake_confidence_private"], notes["fake_confidence_public"]) > 0.5


def test_private_fakes_that_miss_their_label_are_an_error(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    bad = inverting(z_steps=0, least_confidence=0.9)
    with pytest.raises(TrainingError, match="the victim gives the fakes of label 2 their label"):
        trained(bad, color_victim, color_world)
    assert "fake_q" in trained(inverting(z_steps=0), color_victim, color_world)[1]


def test_decoy_fakes_that_miss_their_person_are_an_error(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    assert color_world.public_net is not None
    blind = copy.deepcopy(color_world.public_net)
    with torch.no_grad():
        for value in blind.head.parameters():
            value.zero_()
    view = dataclasses.replace(color_world, public_net=blind)
    with pytest.raises(TrainingError, match="the public classifier gives the fakes of person"):
        trained(inverting(z_steps=40, least_confidence=0.5), color_victim, view)


def test_real_fakes_have_no_public_judge(color_world: DefenderView, color_victim: SmallVgg) -> None:
    settings = {"least_confidence": 0.5, "num_fakes": 4, "finetune_steps": 1, "fisher_samples": 8}
    plugin = get_defense("random_fake").from_params(settings)
    _, notes = trained(plugin, color_victim, color_world)
    assert "fake_confidence_public" not in notes
    assert notes["fake_confidence_private"] > 0.5
