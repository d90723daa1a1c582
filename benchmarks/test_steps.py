"""How fast the loops are that a run spends its time in: steps a second of each attack, and of DP-SGD.

    OMP_NUM_THREADS=1 pytest benchmarks/test_steps.py --benchmark-enable --benchmark-json FILE

Of each, the time of a call at several numbers of steps: `steps_per_s` in `extra_info` is that of the largest,
and the exponent says that a step costs the same however many there are. What an attack does once, before its
first step, makes the exponent smaller. All are seconds of CPU time, on untrained nets of 16 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mibench.attack import Attack
from mibench.data.split import Labeled
from mibench.defense import DefenderView
from mibench.nets import Classifier, NetSpec, build
from mibench.plugin import Context
from mibench.registry import get_attack, get_defense
from mibench.training import Recipe
from mibench.victim import WhiteBoxVictim, freeze

Grow = Callable[..., None]
LINEAR = 1.3
SIZE, CLASSES, TARGETS = 16, 10, 4
STEPS = (4, 16, 64)
WGAN = {"latent_dim": 16, "width": 8, "critic_width": 8, "steps": 0}
STYLE = {**WGAN, "w_dim": 16, "p_samples": 64}


def wgan(steps: int) -> dict[str, Any]:
    return {"prior": WGAN, "search": {"steps": steps, "lr": 0.05}}


def styled(steps: int) -> dict[str, Any]:
    return {"prior": STYLE, "search": {"steps": steps, "lr": 0.05}}


def presampled(steps: int) -> dict[str, Any]:
    return {**styled(steps), "presamples": 16, "keep": 8, "candidates": 2}


SEARCHES: dict[str, Callable[[int], dict[str, Any]]] = {
    "mi_face": lambda steps: {"max_iter": steps, "loss": "ce", "init": "mean", "normalize_grad": True},
    "gmi": lambda steps: {**wgan(steps), "restarts": 1},
    "dmi": lambda steps: {**wgan(steps), "adapt_steps": 1, "critic_width": 8, "batch": 8},
    "mirror": presampled,
    "ppa": presampled,
    "untrained_prior": lambda steps: {"latent_dim": 16, "width": 8, "search": {"steps": steps, "lr": 0.05}},
    "deep_inversion": lambda steps: {"steps": steps, "coarse_steps": 1, "company": 4, "warmup_steps": 1},
}
"""The white-box attacks that search by steps, with everything but their number held."""


def net() -> Classifier:
    spec = NetSpec(name="small_vgg", width=8, size=SIZE, num_classes=CLASSES)
    return build(spec, torch.Generator().manual_seed(0))


def held() -> WhiteBoxVictim:
    victim = net()
    freeze(victim)
    return WhiteBoxVictim(lambda x: victim(x).softmax(1), victim)


def pixels(count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)


@pytest.mark.parametrize("name", SEARCHES)
def test_attack_over_steps(grow: Grow, name: str) -> None:
    model, public = held(), pixels(16).float() / 255

    def make(steps: int) -> Callable[[], object]:
        attack: Attack[WhiteBoxVictim] = get_attack(name).from_params(SEARCHES[name](steps))
        prior = attack.adapt_prior(attack.learn_prior(public, Context()), model, public, Context())
        return lambda: attack.invert(model, prior, torch.arange(TARGETS), Context())

    grow(make, STEPS, most=LINEAR, of="steps", unit="steps")


def test_ami_over_epochs(grow: Grow) -> None:
    model, public = held(), pixels(32).float() / 255

    def make(epochs: int) -> Callable[[], object]:
        attack: Attack[WhiteBoxVictim] = get_attack("ami").from_params(
            {"width": 8, "epochs": epochs, "batch": 8}
        )
        return lambda: attack.adapt_prior({}, model, public, Context())

    grow(make, (2, 8, 32), most=LINEAR, of="epochs", unit="epochs")


def private(count: int) -> DefenderView:
    data = Labeled(pixels(count), torch.arange(count) % CLASSES)
    return DefenderView(private_train=data, public=data, targets=torch.arange(2), recipe=Recipe())


@pytest.mark.parametrize("over", ["epochs", "images"])
def test_dp_sgd(grow: Grow, over: str) -> None:
    """An epoch is one step over all images: their gradients are taken one by one, and clipped."""

    def make(count: int) -> Callable[[], object]:
        images, epochs = (count, 1) if over == "images" else (32, count)
        table = {
            "epochs": epochs,
            "batch": images,
            "noise_multiplier": 1.0,
            "public_epochs": 0,
            "delta": 1e-3,
        }
        defense = get_defense("dp_sgd").from_params(table)
        return lambda: defense.train(defense.prepare(net()).requires_grad_(True), private(images), Context())

    sizes = (1, 4, 16) if over == "epochs" else (32, 64, 128)
    grow(make, sizes, most=LINEAR, of=over, unit="steps" if over == "epochs" else "images")
