"""Defenses put together: which go together, what the whole says of itself, and where settings come from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mibench.cli import main
from mibench.compose import Composition, compose, kinds_of, parts_of
from mibench.contract.toy import PEOPLE, RECIPE, context, toy_world, untrained
from mibench.defense import DefenderView, Defense, Released, State
from mibench.errors import PluginError, UnknownPluginError
from mibench.nets.classifier import Classifier, NetSpec
from mibench.plugin import Card, Context, Plugin
from mibench.registry import get_defense
from mibench.testing import Check, checks_for

CARD = Card(title="Test")


def composition(name: str) -> type[Composition]:
    """The class of a composition of built-in defenses."""
    found = get_defense(name)
    assert issubclass(found, Composition)
    return found


@dataclass(frozen=True, kw_only=True)
class Widened(Defense):
    """Reshapes the net that it fine-tunes."""

    name, card, acts, starts_from = "widened", CARD, "fine-tuning", "trained"

    def prepare(self, net: Classifier) -> Classifier:
        return net.eval()


@dataclass(frozen=True, kw_only=True)
class Meddling(Defense):
    """An output step that changes the net which it is given."""

    name, card, acts = "meddling", CARD, "output"

    def learn_output(self, net: Classifier, view: DefenderView, ctx: Context) -> State:
        next(net.parameters()).data.mul_(0.5)
        return {}

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Released(net)


@dataclass(frozen=True, kw_only=True)
class Both(Defense):
    """Trains the net, and changes what is released."""

    name, card, acts = "both", CARD, "training"

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        return super().train(net, view, ctx)

    def protect(self, net: Classifier, state: State, ctx: Context) -> nn.Module:
        return Released(net)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bido+ad_mi", "ad_mi+bido"),
        ("mid+rounding", "rounding + vib"),
        ("bido+netguard+rounding", "rounding+bido+netguard"),
    ],
)
def test_order_and_aliases_make_no_difference(one: str, other: str) -> None:
    assert get_defense(one) is get_defense(other)
    assert get_defense(other).name == one


def test_kinds_are_told_by_the_steps() -> None:
    names = ("none", "bido", "mid", "netguard", "ad_mi")
    assert [kinds_of(get_defense(name)) for name in names] == [
        (),
        ("training",),
        ("training",),
        ("fine-tuning",),
        ("output",),
    ]
    assert kinds_of(Both) == ("training", "output")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bido+mid", "'bido' and 'mid' both train the net from scratch. Keep one"),
        ("rounding+netguard+random_fake", "'netguard' and 'random_fake' both fine-tune the trained net"),
        ("ad_mi+rounding", "'ad_mi' and 'rounding' both change what is released"),
        ("bido+bido", "'bido' is named twice"),
        ("mid+vib", "'mid' is named twice"),
        ("none+bido+ad_mi", "'none' changes nothing. Write 'bido+ad_mi'."),
        ("bido+", "a name beside '+' is missing"),
    ],
)
def test_conflicts_name_both_and_what_they_change(name: str, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        get_defense(name)
    assert message in str(caught.value)


def test_an_unknown_part_gets_a_suggestion() -> None:
    with pytest.raises(UnknownPluginError, match=r"unknown defense 'bidoo'\. Did you mean 'bido'"):
        get_defense("bidoo+ad_mi")


def test_a_net_that_was_trained_is_not_reshaped() -> None:
    with pytest.raises(
        PluginError, match="'widened' reshapes the net that it fine-tunes, and 'bido' trains it"
    ):
        compose([Widened, get_defense("bido")])
    assert compose([Widened, get_defense("rounding")]).acts == "fine-tuning, output"


def test_a_part_that_acts_twice_conflicts_on_either_step() -> None:
    with pytest.raises(PluginError, match="'both' and 'rounding' both change what is released"):
        compose([Both, get_defense("rounding")])
    assert compose([get_defense("random_fake"), Both]).name == "both+random_fake"


@pytest.mark.parametrize("name", ["two-words", "train", "class"])
def test_a_part_whose_name_no_table_can_bear_is_refused(name: str) -> None:
    other = type("Other", (Meddling,), {"name": name})
    with pytest.raises(PluginError, match=f"'{name}' cannot name the table of a part"):
        compose([get_defense("bido"), other])


def test_the_whole_says_what_its_parts_say() -> None:
    kind = composition("mid+netguard+ssd")
    parts = [get_defense(name) for name in ("mid", "netguard", "ssd")]
    assert kind.acts == "training, fine-tuning, output"
    assert (kind.per_target, kind.starts_from) == (True, "scratch")
    assert kind.knows == frozenset({"attack_prior"})
    assert kind.needs == get_defense("netguard").needs
    assert kind.card.title == " + ".join(one.card.title for one in parts)
    assert kind.card.year == max(one.card.year for one in parts)
    assert kind.version == max(one.version for one in parts)
    assert composition("netguard+rounding").starts_from == "trained"
    assert parts_of(kind()) == tuple(one() for one in parts)
    assert parts_of(parts[0]()) == (parts[0](),)


def test_weaknesses_are_those_of_any_part_with_its_options() -> None:
    kind = composition("mid+ssd")
    assert kind().weaknesses == frozenset({"keyed_noise"})
    fresh = kind.from_params({"ssd": {"fresh": True}})
    assert fresh.weaknesses == frozenset({"keyed_noise", "fresh_noise"})
    assert composition("netguard+rounding")().weaknesses == frozenset({"decoys", "rounding"})


def test_misfit_of_any_part_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    net = NetSpec(name="mlp", width=4, channels=1, size=16, num_classes=3)
    defense = composition("bido+rounding")()
    assert defense.misfit(net) == ""
    monkeypatch.setattr(get_defense("rounding"), "misfit", lambda _self, spec: f"not on {spec.name}")
    assert defense.misfit(net) == "not on mlp"


def test_the_prior_is_that_of_the_part_which_asks() -> None:
    assert composition("bido+gan_id")().substitute_prior() == get_defense("gan_id")().substitute_prior()
    assert composition("bido+rounding")().substitute_prior() is None


def test_settings_come_back_from_json() -> None:
    kind = composition("bido+ad_mi")
    made = kind.from_params({"bido": {"scale": 2}, "ad_mi": {"steps": 3}})
    assert kind.from_params(made.params()) == made
    assert made.params()["bido"] == get_defense("bido").from_params({"scale": 2}).params()
    assert made.key_params()["bido"] == get_defense("bido").from_params({"scale": 2}).key_params()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bidoo": {}}, "bido+ad_mi: no field 'bidoo'. Did you mean 'bido'? Its fields: bido, ad_mi."),
        ({"bido": {"lamda_x": 1}}, "bido+ad_mi: no field 'bido.lamda_x'. Did you mean 'bido.lambda_x'?"),
        ({"bido": {"scale": -1.0}}, "bido: scale must be >= 0"),
        ({"ad_mi": 3}, "bido+ad_mi: 'ad_mi' must be a table, got 3."),
    ],
)
def test_mistakes_in_tables_are_named(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        composition("bido+ad_mi").from_params(params)
    assert str(caught.value).startswith(message)


def test_what_a_table_leaves_out_is_the_suites_own() -> None:
    kind = composition("mid+rounding")
    weak, strong = (get_defense("mid").from_params({"beta": beta}) for beta in (0.1, 0.2))
    rounded = get_defense("rounding").from_params({"step": 0.25})
    assert kind.filled({}, {}) == {}
    own: dict[str, Plugin] = {"coarse": rounded, "mid": weak}
    assert kind.filled({}, own) == {"mid": weak.params(), "rounding": rounded.params()}
    assert kind.filled({"vib": {"beta": 0.5}}, own)["mid"] == {"beta": 0.5}
    # what bears the part's name is meant, whatever else there is of that plugin
    assert kind.filled({}, {"strong": strong, "mid": weak})["mid"] == weak.params()
    # a label alone makes no plugin
    assert kind.filled({}, {"mid": rounded}) == {"rounding": rounded.params()}
    with pytest.raises(PluginError, match="'strong', 'weak' are each a 'mid', and none is called so"):
        kind.filled({}, {"strong": strong, "weak": weak})
    with pytest.raises(PluginError, match="two of 'vib', 'mid' are one part"):
        kind.filled({"vib": {}, "mid": {}}, {})


def view() -> DefenderView:
    """What the defender sees of the toy world."""
    world = toy_world()
    return DefenderView(
        private_train=world.private, public=world.defender, targets=torch.arange(PEOPLE), recipe=RECIPE
    )


def test_steps_are_those_of_the_parts_by_hand() -> None:
    kind = composition("mid+random_fake+ssd")
    defense = dataclasses.replace(kind.from_params(dict(kind.toy)))
    world, seen = toy_world(), dataclasses.replace(view(), targets=torch.tensor([1]))
    ctx = context("by hand")
    net = defense.train(defense.prepare(untrained(world.private, "start")), seen, ctx)
    module = defense.protect(net, defense.learn_output(net, seen, ctx), ctx)
    mid, fake, ssd = defense.parts
    other = mid.train(mid.prepare(untrained(world.private, "start")), seen, context("by hand"))
    other = fake.train(other, seen, context("by hand").child("random_fake"))
    own = context("by hand").child("ssd")
    by_hand = ssd.protect(other, ssd.learn_output(other, seen, own), own)
    assert_equal(net.state_dict(), other.state_dict())
    assert torch.equal(module(world.test.images), by_hand(world.test.images))
    assert {"mid_nats", "decoy"} <= ctx.notes.keys()


def test_without_an_output_part_the_release_is_plain() -> None:
    defense = composition("bido+random_fake")()
    world = toy_world()
    assert defense.learn_output(world.net, view(), context("plain")) == {}
    released = defense.protect(world.net, {}, context("plain"))(world.test.images)
    assert torch.equal(released, Released(world.net)(world.test.images))


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Both hold the same names and bits."""
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    "check", checks_for(composition("mid+random_fake+rounding")), ids=lambda one: one.name
)
def test_a_composition_keeps_the_contract(check: Check) -> None:
    verdict = check.run()
    assert verdict.status == "ok", verdict.text


def test_the_checks_see_an_output_part_that_meddles() -> None:
    (check,) = [
        one
        for one in checks_for(compose([Meddling, get_defense("negative_ls")]))
        if one.name == "leaves_the_white_box_view"
    ]
    assert check.run().status == "fail"


def test_the_checks_of_files_are_left_to_the_parts() -> None:
    names = {check.name for check in checks_for(composition("bido+rounding"))}
    assert "source_is_locked" not in names
    assert "fields_are_documented" in names


def test_its_card_is_followed_by_those_of_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "ad_mi+bido"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "bido+ad_mi  2 defenses together"
    assert "acts on: training, output" in lines
    assert "weak to: keyed_noise" in lines
    heads = [line for line in lines if "  defense, version" in line]
    assert [line.split()[0] for line in heads] == ["bido", "ad_mi"]


def test_the_list_tells_of_compositions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "defenses"]) == 0
    assert "bido+ad_mi" in capsys.readouterr().out


def test_a_conflict_on_the_command_line_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show", "bido+mid"], ["check", "bido+mid"], ["plan", "smoke", "--defense", "bido+mid"]):
        assert main(command) == 2
        assert "'bido' and 'mid' both train the net from scratch" in capsys.readouterr().err
