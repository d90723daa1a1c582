"""The contract checks see what they are there to see: each faulty attack fails the check of its fault."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.attack import Attack, Goal, Reconstructions
from mibench.errors import PluginError
from mibench.plugin import Card, Context, Plugin
from mibench.prior import Prior
from mibench.testing import Verdict, checks_for
from mibench.victim import LabelVictim, ScoreVictim, WhiteBoxVictim

CARD = Card(title="Test: one fault")


def verdict(plugin: type[Plugin], name: str) -> Verdict:
    """What one check says about a plugin."""
    (check,) = [check for check in checks_for(plugin) if check.name == name]
    return check.run()


@dataclass(frozen=True, kw_only=True)
class Sound(Attack[ScoreVictim]):
    """The best of some noisy public images.

    Args:
        tries: public images that are asked about for each reconstruction, >= 1.
    """

    name = "sound"
    access = ScoreVictim
    card = CARD
    tries: int = 24

    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        return {"public": public.clone()}

    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        return self.best_of(victim.steps_within(self.tries, per_step=1), victim, prior, targets, ctx)

    def best_of(
        self, tries: int, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        noise = ctx.noise(targets)
        picked = (noise.uniform("picks", self.tries)[:, :tries] * (len(prior["public"]) - 1)).long()
        scores = victim.scores(prior["public"][picked.flatten()]).view(len(targets), tries, -1)
        score, best = scores[torch.arange(len(targets)), :, targets].max(1)
        images = prior["public"][picked.gather(1, best[:, None]).squeeze(1)]
        return Reconstructions.collect(images + 0.05 * noise.normal("more", *victim.shape), targets, score)


class UsesGlobalNoise(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        return Reconstructions.collect(got.images + 0.1 * torch.rand(got.images.shape), targets)


class Meddles(Attack[WhiteBoxVictim]):
    """Lets the victim's weights ask for gradients."""

    name = "meddles"
    access = WhiteBoxVictim
    card = CARD

    def invert(self, victim: WhiteBoxVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        images = torch.rand(len(targets), *victim.shape, generator=ctx.generator("x"))
        victim.net.requires_grad_(True)
        return Reconstructions.collect(images, targets)


class Overspends(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        return self.best_of(self.tries, victim, prior, targets, ctx)


class GivesNanWhenShort(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        broken = torch.nan if victim.allowance is not None else 1.0
        return Reconstructions(got.images * broken, got.targets, got.confidence)


class GivesNan(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        return Reconstructions(got.images * torch.nan, got.targets, got.confidence)


class SortsTargets(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        return super().invert(victim, prior, targets.sort().values, ctx)


class MixesRows(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        return Reconstructions.collect(got.images + 0.2 * got.images.mean(0), targets)


class ChunkNoise(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        return Reconstructions.collect(got.images / ctx.max_batch, targets)


class Writes(Sound):
    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        Path("left-behind.txt").write_text("x", encoding="utf-8")
        return super().learn_prior(public, ctx)


class StoresNumber(Sound):
    def learn_prior(self, public: Tensor, ctx: Context) -> Prior:
        number: Any = 3
        return {**super().learn_prior(public, ctx), "number": number}


class WantsColor(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        got = super().invert(victim, prior, targets, ctx)
        return Reconstructions.collect(got.images.expand(-1, 3, -1, -1), targets)


class AimsElsewhere(Sound):
    def invert(self, victim: ScoreVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        wrong = (targets + 1) % victim.num_classes
        return dataclasses.replace(super().invert(victim, prior, wrong, ctx), targets=targets)


class ReachesFurther(Attack[LabelVictim]):
    """Asks for scores with label access."""

    name = "reaches_further"
    access = LabelVictim
    card = CARD

    def invert(self, victim: LabelVictim, prior: Prior, targets: Tensor, ctx: Context) -> Reconstructions:
        further: Any = victim
        further.scores(torch.zeros(1, *victim.shape))
        return Reconstructions.collect(torch.zeros(len(targets), *victim.shape), targets)


@dataclass(frozen=True, kw_only=True)
class Observes(Sound):
    """Also the image behind a prediction.

    Args:
        goal: "class" or "instance".
    """

    goal: Goal = "class"

    def reconstruct(
        self, victim: ScoreVictim, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        return Reconstructions.collect(prior["public"][released.argmax(1)], targets)


class MixesInstances(Observes):
    def reconstruct(
        self, victim: ScoreVictim, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        images = super().reconstruct(victim, prior, released, targets, ctx).images
        return Reconstructions.collect((images + images.mean(0)) / 2, targets)


class ForgetsInstances(Observes):
    def reconstruct(
        self, victim: ScoreVictim, prior: Prior, released: Tensor, targets: Tensor, ctx: Context
    ) -> Reconstructions:
        return Reconstructions.collect(prior["public"][:1], targets)


class SaysOtherAccess(Sound):
    access = WhiteBoxVictim  # type: ignore[assignment]  # the fault


SEEN = [
    (UsesGlobalNoise, "leaves_the_global_state", "global generator has moved"),
    (UsesGlobalNoise, "same_seed_same_bits", "a second run gave other images"),
    (Meddles, "leaves_the_victim_as_it_was", "the victim's net has changed"),
    (Overspends, "keeps_within_its_allowance", "Plan its steps with victim.steps_within"),
    (GivesNanWhenShort, "keeps_within_its_allowance", "NaN or infinity under an allowance of 16"),
    (GivesNan, "gives_finite_images_in_range", "NaN or infinity"),
    (SortsTargets, "gives_one_image_for_each_target", "in order"),
    (MixesRows, "rows_are_independent", "alone and in company"),
    (ChunkNoise, "rows_are_independent", "with ctx.max_batch = 1"),
    (MixesInstances, "instances_repeat_and_are_independent", "an instance alone and in company"),
    (ForgetsInstances, "instances_repeat_and_are_independent", "one image for each prediction"),
    (Writes, "writes_to_scratch_alone", "left-behind.txt"),
    (StoresNumber, "priors_are_tensors_that_can_be_stored", "gives 'number', which is no tensor"),
    (WantsColor, "takes_gray_images", "gray images came back as"),
    (AimsElsewhere, "beats_a_random_prior", "Mend the attack"),
    (ReachesFurther, "runs_at_its_access_level", "a label-level victim has no 'scores'"),
    (SaysOtherAccess, "declares_the_access_that_it_is_typed_for", "it is Attack[ScoreVictim]"),
]


@pytest.mark.parametrize(("plugin", "name", "wanted"), SEEN, ids=lambda one: getattr(one, "__name__", ""))
def test_a_faulty_attack_is_seen(
    plugin: type[Plugin], name: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        found = verdict(plugin, name)
    finally:
        restore_toy_world()
    assert found.status == "fail"
    assert wanted in found.text


def restore_toy_world() -> None:
    """Make the toy world anew where a faulty attack has spoilt its net."""
    from mibench.contract.toy import toy_world
    from mibench.victim import freeze

    freeze(toy_world().net)


def test_a_sound_attack_passes_what_the_faulty_ones_fail() -> None:
    names = {name for _, name, _ in SEEN}
    verdicts = {check.name: check.run() for check in checks_for(Observes) if check.name in names}
    assert names == set(verdicts)
    assert {one.status for one in verdicts.values()} == {"ok"}, verdicts


def test_settings_that_do_not_fit_are_named() -> None:
    wrong: Any = type("WrongToy", (Sound,), {"toy": {"trys": 3}})
    with pytest.raises(PluginError, match=r"no field 'trys'\. Did you mean 'tries'"):
        checks_for(wrong)
    with pytest.raises(PluginError, match="is no attack, defense or metric"):
        checks_for(Plugin)
