"""The ablations of the paper on decoys, and what its losses do to inversed images, on flat colors."""

from __future__ import annotations

import copy
import importlib
import math
from typing import Any

import pytest
import torch

from mibench.defense import DefenderView
from mibench.nets.classifier import Classifier
from mibench.nets.vgg import SmallVgg
from mibench.plugin import Context
from mibench.registry import get_defense
from mibench.training import accuracy

ewc: Any = importlib.import_module("mibench.defenses._ewc")

TARGET = 2
ABLATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "L_pri": ("netguard", {"beta": 0.0, "ewc_weight": 0.0}),
    "L_pri + L_pub": ("netguard", {"ewc_weight": 0.0}),
    "+ L_CL, cross-entropy": ("netguard", {"ewc_weight": 3.0}),
    "+ L_CL, focal": ("gan_d", {"ewc_weight": 3.0}),
}


def plugin(name: str, **options: Any) -> Any:
    settings = {
        "num_fakes": 8,
        "z_steps": 40,
        "z_lr": 0.1,
        "finetune_steps": 60,
        "finetune_lr": 3e-3,
        "fisher_samples": 24,
        "replay_fraction": 0.0,
    }
    return get_defense(name).from_params({**settings, **options})


def tuned(
    name: str, victim: SmallVgg, view: DefenderView, **options: Any
) -> tuple[Classifier, dict[str, Any]]:
    ctx = Context(seed=1)
    return plugin(name, **options).train(copy.deepcopy(victim), view, ctx), ctx.notes


def moved(net: Classifier, victim: SmallVgg) -> float:
    pairs = zip(net.parameters(), victim.parameters())
    return math.sqrt(sum(float((new - old).detach().square().sum()) for new, old in pairs))


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_does_what_its_terms_say(
    name: str, color_world: DefenderView, color_victim: SmallVgg
) -> None:
    defense, options = ABLATIONS[name]
    _, before = tuned(defense, color_victim, color_world, **options, finetune_steps=0)
    net, notes = tuned(defense, color_victim, color_world, **options)
    assert (notes["fake_r"] > before["fake_r"] + 0.2) == ("beta" not in options)
    assert ("fisher_mean" in notes) == (options["ewc_weight"] > 0)
    assert moved(net, color_victim) > 0


@pytest.mark.parametrize("name", ["netguard", "gan_d"])
def test_the_third_term_holds_the_weights(
    name: str, color_world: DefenderView, color_victim: SmallVgg
) -> None:
    fisher = ewc.fisher_diagonal(color_victim, color_world.private_train, max_batch=64)
    costs = []
    for weight in (0.0, 100.0):
        net, _ = tuned(name, color_victim, color_world, ewc_weight=weight)
        new, old = dict(net.named_parameters()), dict(color_victim.named_parameters())
        costs.append(sum(float((f * (new[k] - old[k]).square()).sum()) for k, f in fisher.items()))
    assert 0 < costs[1] < 0.1 * costs[0]


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_the_three_readings_of_clean_images_run(
    fraction: float, color_world: DefenderView, color_victim: SmallVgg
) -> None:
    net, notes = tuned("gan_d", color_victim, color_world, replay_fraction=fraction, ewc_weight=0.0)
    assert notes["fake_r"] > 0.9
    if fraction == 1.0:
        assert accuracy(net, color_world.private_train) > 0.9


def test_the_printed_focal_loss_parks_inversed_images_at_its_extremum(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    options = {"beta": 0.0, "ewc_weight": 0.0, "replay_fraction": 1.0, "finetune_steps": 150}
    _, notes = tuned("gan_d", color_victim, color_world, **options)
    assert notes["fake_confidence_private"] > 0.9
    assert 0.55 <= notes["fake_q"] <= 0.68


def test_cross_entropy_alone_runs_away_from_the_label(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    options: dict[str, Any] = {"beta": 0.0, "ewc_weight": 0.0, "push_limit": "none", "alpha": 1.0}
    net, notes = tuned("netguard", color_victim, color_world, **options)
    assert notes["fake_confidence_private"] > 0.9
    assert notes["fake_q"] < 1e-3
    free = plugin("netguard", **options)
    fakes = free.make_fakes(copy.deepcopy(color_victim), color_world, TARGET, notes["decoy"], Context(seed=1))
    with torch.no_grad():
        assert free.fake_loss(net, fakes, TARGET) < -10


def test_the_bounded_push_moves_inversed_images_where_the_others_rest(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    options = {"replay_fraction": 1.0, "ewc_weight": 0.0}
    after = {name: tuned(name, color_victim, color_world, **options)[1] for name in ("gan_id", "decoy_neg")}
    assert after["decoy_neg"]["fake_confidence_private"] == after["gan_id"]["fake_confidence_private"] > 0.9
    assert after["decoy_neg"]["fake_q"] < after["gan_id"]["fake_q"] - 0.1


def test_real_images_of_the_decoy_stand_beside_inversed_private_ones(
    color_world: DefenderView, color_victim: SmallVgg
) -> None:
    fakes = {}
    for kind in ("inversed", "real"):
        made = plugin("netguard", decoy_images=kind, num_fakes=5)
        fakes[kind] = made.make_fakes(copy.deepcopy(color_victim), color_world, TARGET, 3, Context(seed=1))
    assert torch.equal(fakes["real"].private, fakes["inversed"].private)
    real = color_world.public.of(3).images
    same = (fakes["real"].public.flatten(1)[:, None] == real.flatten(1)).all(2)
    assert same.sum(1).tolist() == [1] * 5
    assert int(same.any(0).sum()) == 5
    assert fakes["real"].sure > 0.5
    net, notes = tuned("netguard", color_victim, color_world, decoy_images="real")
    assert notes["fake_r"] > 0.9
    assert "decoy_images" not in plugin("netguard").key_params()
    assert "decoy_images" in plugin("netguard", decoy_images="real").key_params()
    assert moved(net, color_victim) > 0
