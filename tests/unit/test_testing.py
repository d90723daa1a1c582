"""The contract checks see what they are there to see: faulty defenses, metrics and fields fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.defense import DefenderView, Defense, Released, State
from mibench.metric import Case, Estimate, Metric
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context, Plugin
from mibench.testing import Verdict, checks_for

CARD = Card(title="Test: one fault")


def verdict(plugin: type[Plugin], name: str) -> Verdict:
    """What one check says about a plugin."""
    (check,) = [check for check in checks_for(plugin) if check.name == name]
    return check.run()


class TrainMode(Defense):
    """Returns a net in training mode."""

    name, card, acts = "train_mode", CARD, "training"

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        return super().train(net, view, ctx).train()


class Hooked(Defense):
    """Leaves a hook on the net."""

    name, card, acts = "hooked", CARD, "training"

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        trained = super().train(net, view, ctx)
        trained.head.register_forward_hook(lambda *_: None)
        return trained


class Untrained(Defense):
    """Trains nothing."""

    name, card, acts = "untrained", CARD, "training"

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        net.eval().requires_grad_(False)
        return net


class SpoilsImages(Defense):
    """Changes the private images."""

    name, card, acts = "spoils_images", CARD, "training"

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        view.private_train.images.mul_(1.0).add_(1e-3)
        trained = super().train(net, view, ctx)
        view.private_train.images.sub_(2e-3)
        return trained


class Louder(nn.Module):
    """Released values that are no probabilities, and depend on the batch."""

    def __init__(self, net: Classifier, *, spread: bool) -> None:
        super().__init__()
        self.plain, self.spread = Released(net), spread

    def forward(self, x: Tensor) -> Tensor:
        released: Tensor = self.plain(x)
        return (released + released.mean(0)) / 2 if self.spread else released * 1.1


class NoSimplex(Defense):
    """Releases rows that do not sum to 1, and calls itself neutral."""

    name, card, acts, neutral = "no_simplex", CARD, "output", {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Louder(net, spread=False)


class MixesBatch(Defense):
    """Releases what hangs on the batch, and says that it acts on the training."""

    name, card, acts = "mixes_batch", CARD, "training"

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Louder(net, spread=True)


class Shorn(nn.Module):
    """Released vectors with the last label's probability moved to the first one."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.plain = Released(net)

    def forward(self, x: Tensor) -> Tensor:
        released: Tensor = self.plain(x)
        return torch.cat([released[:, :1] + released[:, -1:], released[:, 1:-1], 0 * released[:, -1:]], dim=1)


class TakesALabel(Defense):
    """Claims to keep labels, and never releases the last one."""

    name, card, acts, keeps_label = "takes_a_label", CARD, "output", True

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Shorn(net)


class ClaimsForTraining(TrainMode):
    """Claims to keep labels, without an output step."""

    name, keeps_label = "claims_for_training", True


@pytest.mark.parametrize(
    ("plugin", "name", "wanted"),
    [
        (TrainMode, "returns_a_frozen_classifier", "in training mode"),
        (Hooked, "returns_a_frozen_classifier", "a hook is left"),
        (Untrained, "beats_chance", "chance 0.25"),
        (SpoilsImages, "leaves_the_images_as_they_were", "changed in place"),
        (NoSimplex, "releases_probabilities", "rows sum to 1"),
        (MixesBatch, "release_takes_each_image_by_itself", "Treat every row by itself"),
        (MixesBatch, "says_where_it_acts", "An output step overrides"),
        (TakesALabel, "keeps_the_label", "labels change"),
        (ClaimsForTraining, "keeps_the_label", "Only an output step"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_faulty_defense_is_seen(plugin: type[Plugin], name: str, wanted: str) -> None:
    from mibench.contract.toy import toy_world

    images = toy_world().private.images
    kept = images.clone()
    try:
        found = verdict(plugin, name)
    finally:
        images.copy_(kept)
    assert found.status == "fail"
    assert wanted in found.text


def test_a_neutral_setting_that_is_none_is_only_advised_against() -> None:
    found = verdict(NoSimplex, "neutral_setting_equals_none")
    assert found.status == "warn"
    assert "from no defense" in found.text


class Shuffled(Metric):
    """Looks at the first row alone, and at nothing else."""

    name, title, card, better, percent = "shuffled", "S", CARD, "lower", True

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        value = float(case.got.images[0].mean())
        return Estimate(value, value, value, 1)


class Reversed(Metric):
    """The distance to the mean test image, which it calls better when low."""

    name, title, card, better = "reversed", "R", CARD, "lower"

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        value = float((case.got.images - case.private_test.images).square().mean())
        return Estimate(value, value + 1, value + 2, 1)


class SpoilsCase(Metric):
    """Changes the case."""

    name, title, card, better = "spoils_case", "C", CARD, "lower"

    def measure(self, case: Case, ctx: Context) -> Estimate | None:
        case.got.images.add_(float(torch.rand(())))
        value = float(case.got.images.mean())
        return Estimate(value, value, value, 1)


@pytest.mark.parametrize(
    ("plugin", "name", "wanted"),
    [
        (Shuffled, "order_does_not_matter", "in another order"),
        (Reversed, "better_means_better", "Turn `better` round"),
        (Reversed, "noise_moves_it_one_way", "turn back"),
        (Reversed, "gives_a_sound_estimate", "is not in"),
        (SpoilsCase, "leaves_the_case_as_it_was", "changed in place"),
        (SpoilsCase, "repeats_itself", "Draw all randomness from ctx"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_faulty_metric_is_seen(plugin: type[Plugin], name: str, wanted: str) -> None:
    found = verdict(plugin, name)
    assert found.status == "fail"
    assert wanted in found.text


@dataclass(frozen=True, kw_only=True)
class Unsaid(Defense):
    """A field without a word, of a kind that JSON does not give back."""

    name = "unsaid"
    card = Card(title=" ", paper="arXiv:0000.00000")
    added = frozenset({"both", "bothh"})
    pair: list[int] = field(default_factory=lambda: [1])
    both: Any = (1, 2)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("is_hashable", "unhashable type"),
        ("params_survive_json", "came back"),
        ("later_options_are_fields", "added names 'bothh', which is no field"),
        ("name_is_the_files", "it is called 'unsaid', its file 'test_testing'"),
        ("card_is_filled", "card.title is empty"),
        ("fields_are_documented", "nothing says what 'pair' means"),
    ],
)
def test_a_careless_plugin_is_seen(name: str, wanted: str) -> None:
    found = verdict(Unsaid, name)
    assert found.status == "fail"
    assert wanted in found.text


def test_a_class_that_forgets_its_own_decorator_is_seen() -> None:
    assert "Put @dataclass(frozen=True, kw_only=True)" in verdict(TrainMode, "is_frozen").text


def test_a_source_that_names_a_device_prints_or_seeds_is_seen(tmp_path: Path) -> None:
    from mibench.registry import forget_files, load_plugin_file

    toy = Path(__file__).parents[1] / "e2e" / "plugins" / "toy_short.py"
    file = tmp_path / "toy_rude.py"
    rude = '        print(torch.device("cuda:0"), torch.manual_seed(3))\n        recipe ='
    text = toy.read_text(encoding="utf-8").replace("toy_short", "toy_rude").replace("        recipe =", rude)
    file.write_text(f"{text}\nimport torch\n", encoding="utf-8")
    try:
        plugin = load_plugin_file(file)
        for name, wanted in (
            ("names_no_device", "names a GPU"),
            ("prints_nothing", "prints"),
            ("leaves_the_global_generator_alone", "seeds a global generator"),
        ):
            assert f"of toy_rude.py {wanted}" in verdict(plugin, name).text
    finally:
        forget_files()
