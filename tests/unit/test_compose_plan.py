"""Compositions in suites and plans: whose settings they take, whose tasks they share, what blocks them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mibench.adaptive import Adaptive
from mibench.choose import choose
from mibench.errors import PluginError, SuiteError
from mibench.key import Key
from mibench.nets.classifier import NetSpec
from mibench.plan import Plan, build_plan
from mibench.registry import forget_files, get_defense
from mibench.suite import Suite
from mibench.task import Cell, Model, Task

MakeSuite = Callable[..., Suite]
PLAIN: dict[str, Any] = {"none": {}, "toy_short": {}, "toy_rounded": {}, "toy_decoy": {}}
TEXT = """
name = "mini"
metrics = ["aa"]
[data]
size = 16
private = 3
private_images = 2
test_images = 1
public = 2
public_images = 1
defender = 2
defender_images = 1
[targets]
attacked = 2
[victim]
net = "mlp"
width = 4
[judge]
net = "softmax_regression"
[attacks.mean_face]
[defenses.none]
[defenses.noisy]
plugin = "ad_mi"
steps = 2
"""


@pytest.fixture
def mini(tmp_path: Path) -> Iterator[str]:
    """Path of a small suite whose only `ad_mi` has another label."""
    file = tmp_path / "mini.toml"
    file.write_text(TEXT, encoding="utf-8")
    yield str(file)
    forget_files()


def labels(suite: Suite) -> list[str]:
    return [entry.label for entry in suite.defenses]


def settings(suite: Suite, label: str) -> dict[str, Any]:
    (entry,) = [one for one in suite.defenses if one.label == label]
    return entry.plugin.params()


def cell_of(plan: Plan, defense: str, view: str = "stripped") -> Cell:
    (cell,) = [one for one in plan.cells if one.defense.label == defense and one.view == view]
    return cell


def models(plan: Plan, defense: str, view: str = "stripped") -> tuple[Model, ...]:
    return cell_of(plan, defense, view).models


def planned(make_suite: MakeSuite, *composed: str, **tables: object) -> Plan:
    """A plan of a gradient attack on every plain toy and some compositions, in both views."""
    options: dict[str, Any] = {
        "attacks": {"toy_gradient": {}},
        "defenses": {**PLAIN, **{name: {} for name in composed}},
        "white_box": ["stripped", "deployed"],
        "targets": {"protected": 2, "bystanders": 1, "attacked": 3, "images": 2},
        **tables,
    }
    return build_plan(make_suite(**options))


# what a suite says


def test_a_part_takes_its_table_else_the_suites_entry_else_its_defaults(make_suite: MakeSuite) -> None:
    suite = make_suite(
        defenses={
            "mid+ad_mi": {"ad_mi": {"steps": 2}},  # stands before the entry that it takes from
            "mid": {"beta": 0.5},
            "ad_mi": {"steps": 4, "step_size": 0.3},
            "mid+rounding": {},
        }
    )
    assert labels(suite) == ["mid+ad_mi", "mid", "ad_mi", "mid+rounding"]
    found = settings(suite, "mid+ad_mi")
    assert found["mid"] == settings(suite, "mid")
    assert found["ad_mi"] == get_defense("ad_mi").from_params({"steps": 2}).params()
    assert settings(suite, "mid+rounding")["rounding"] == get_defense("rounding")().params()


def test_the_label_is_the_name_in_order_unless_the_suite_gives_one(make_suite: MakeSuite) -> None:
    suite = make_suite(defenses={"ad_mi+bido": {}, "both": {"plugin": "rounding+bido"}})
    assert labels(suite) == ["bido+ad_mi", "both"]
    assert suite.defenses[1].plugin.name == "bido+rounding"


@pytest.mark.parametrize(
    ("defenses", "message"),
    [
        ({"bido+ad_mi": {"bidoo": {}}}, "defenses.bido+ad_mi: no field 'bidoo'. Did you mean 'bido'?"),
        ({"bido+ad_mi": {"ad_mi": {"step": 1}}}, "defenses.bido+ad_mi: no field 'ad_mi.step'. Did you mean"),
        ({"bido+mid": {}}, "defenses.bido+mid: defense 'bido+mid': 'bido' and 'mid' both train the net"),
        ({"bido+ad_mi": {}, "ad_mi+bido": {}}, "defenses.ad_mi+bido: 'bido+ad_mi' is there already."),
        (
            {"one": {"plugin": "mid"}, "two": {"plugin": "mid"}, "mid+rounding": {}},
            "defenses.mid+rounding: defense 'mid+rounding': 'one', 'two' are each a 'mid'",
        ),
    ],
)
def test_mistakes_name_their_place(make_suite: MakeSuite, defenses: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        make_suite(defenses=defenses)
    assert str(caught.value).startswith(f"suite toy.toml, {message}")


def test_on_the_command_line_the_parts_are_as_the_suite_has_them(mini: str) -> None:
    suite = choose(mini, defenses=["ad_mi+bido", "none"])
    assert labels(suite) == ["bido+ad_mi", "none"]
    found = settings(suite, "bido+ad_mi")
    assert found["ad_mi"]["steps"] == 2
    assert found["bido"] == get_defense("bido")().params()
    with pytest.raises(PluginError, match="both change what is released"):
        choose(mini, defenses=["ad_mi+rounding"])


# what a plan makes of it


def test_the_training_is_the_very_task_of_the_part_alone(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_short+toy_rounded")
    (alone,), (both,) = models(plan, "toy_short"), models(plan, "toy_short+toy_rounded")
    assert (both.train, both.adapt, both.invert) == (alone.train, alone.adapt, alone.invert)
    assert alone.output is None
    assert both.output is not None
    (rounded,) = models(plan, "toy_rounded")
    assert both.output != rounded.output
    assert plan.tasks[both.output].inputs["train"] == alone.train
    (deployed,) = models(plan, "toy_short+toy_rounded", "deployed")
    assert deployed.invert not in {alone.invert, models(plan, "toy_rounded", "deployed")[0].invert}


def test_a_composition_adds_nothing_but_what_is_new(make_suite: MakeSuite) -> None:
    plain, more = planned(make_suite), planned(make_suite, "toy_short+toy_rounded", "toy_rounded+toy_decoy")
    assert plain.tasks.keys() < more.tasks.keys()
    new = [more.tasks[key].stage for key in more.tasks.keys() - plain.tasks.keys()]
    # an output, and a deployed attack on it, for the one model and for each of two labels
    assert sorted(new) == ["answer"] * 3 + ["invert"] * 3 + ["measure"] * 4 + ["output"] * 3


def test_fine_tuning_starts_from_what_the_training_part_trained(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_short+toy_decoy")
    (short,) = models(plan, "toy_short")
    alone, both = models(plan, "toy_decoy"), models(plan, "toy_short+toy_decoy")
    assert [model.protects for model in both] == [model.protects for model in alone]
    for one, other in zip(both, alone):
        task, plain = plan.tasks[one.train], plan.tasks[other.train]
        assert task.plugin == plain.plugin == "toy_decoy"
        assert task.inputs["base"] == short.train
        assert {**task.inputs, "base": plain.inputs["base"]} == plain.inputs
        onto = task.params["onto"]
        assert (onto["plugin"], onto["defense"]) == ("toy_short", {"epochs": 1})
        assert {name: value for name, value in task.params.items() if name != "onto"} == plain.params
        assert task.title == f"train toy_decoy, label {one.protects[0]}, after toy_short"


def test_one_output_step_for_each_label_of_a_part_with_single_label_models(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_decoy+toy_rounded")
    alone, both = models(plan, "toy_decoy"), models(plan, "toy_decoy+toy_rounded")
    assert [model.train for model in both] == [model.train for model in alone]
    assert [model.invert for model in both] == [model.invert for model in alone]
    outputs = [plan.tasks[model.output or ""] for model in both]
    assert [task.inputs["train"] for task in outputs] == [model.train for model in alone]


def test_three_parts_follow_each_other(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_short+toy_decoy", "toy_rounded+toy_decoy+toy_short")
    two, three = models(plan, "toy_short+toy_decoy"), models(plan, "toy_short+toy_decoy+toy_rounded")
    assert [model.train for model in three] == [model.train for model in two]
    assert all(model.output is not None for model in three)


def test_the_order_of_the_name_changes_nothing(make_suite: MakeSuite) -> None:
    one = planned(make_suite, "toy_short+toy_decoy+toy_rounded")
    other = planned(make_suite, "toy_rounded+toy_short+toy_decoy")
    assert list(one.tasks) == list(other.tasks)
    assert [cell.id for cell in one.cells] == [cell.id for cell in other.cells]


def test_plain_tasks_know_nothing_of_compositions(make_suite: MakeSuite) -> None:
    plan = planned(make_suite)
    assert not any("onto" in task.params for task in plan.tasks.values())


def test_a_part_that_changed_outside_retires_what_stands_on_it(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trains() -> set[Key]:
        plan = planned(make_suite, "toy_short+toy_decoy")
        return {model.train for model in models(plan, "toy_short+toy_decoy")}

    before = trains()
    monkeypatch.setattr("mibench.graph.source_digest", lambda kind: f"another {kind.__name__}")
    assert not before & trains()


def test_a_part_without_what_it_needs_blocks_the_cell(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_short+toy_decoy", attacks={"mean_face": {}})
    cell = cell_of(plan, "toy_short+toy_decoy", "black-box")
    assert cell.blocked == cell_of(plan, "toy_decoy", "black-box").blocked
    assert "'toy_decoy' needs a prior" in cell.blocked


@pytest.mark.parametrize("part", ["toy_short", "toy_decoy", "toy_rounded"])
def test_misfit_of_any_part_blocks_the_cell(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    name = "toy_short+toy_decoy+toy_rounded"
    suite = make_suite(attacks={"toy_gradient": {}}, defenses={"none": {}, name: {}})

    def misfit(_self: object, net: NetSpec) -> str:
        return f"{net.name} has no blocks. Take another victim."

    monkeypatch.setattr(get_defense(part), "misfit", misfit)
    plan = build_plan(suite)
    assert cell_of(plan, name).blocked == f"defense '{part}': mlp has no blocks. Take another victim."
    assert not cell_of(plan, "none").blocked


def test_adaptive_attacks_meet_the_weaknesses_of_both(make_suite: MakeSuite) -> None:
    fresh = {"mid": {"inference": "fresh"}}
    plan = planned(
        make_suite,
        attacks={"toy_gradient": {"adaptive": "auto"}, "toy_scores": {"adaptive": "auto"}},
        defenses={"none": {}, "mid": fresh["mid"], "mid+rounding": fresh},
    )
    met = {
        (cell.attack.label, cell.defense.label, cell.view): cell.attack.plugin.adaptive for cell in plan.cells
    }
    # who drops the output step meets the other part alone, with the very same options
    for defense in ("mid", "mid+rounding"):
        assert met["toy_gradient", defense, "stripped"] == Adaptive(repeats=8)
    assert met["toy_gradient", "mid+rounding", "deployed"] == Adaptive(repeats=8, views=8)
    assert met["toy_scores", "mid+rounding", "black-box"] == Adaptive(repeats=8, views=8, fill_zeros=True)


def test_a_dropped_output_step_is_not_met(make_suite: MakeSuite) -> None:
    plan = planned(
        make_suite,
        attacks={"toy_gradient": {"adaptive": "auto"}},
        defenses={"none": {}, "bido": {}, "bido+rounding": {}},
    )
    assert cell_of(plan, "bido+rounding").attack.plugin.adaptive is None
    assert models(plan, "bido+rounding")[0].invert == models(plan, "bido")[0].invert
    assert cell_of(plan, "bido+rounding", "deployed").attack.plugin.adaptive == Adaptive(views=8)


def of_stage(plan: Plan, stage: str) -> list[Task]:
    return [task for task in plan.tasks.values() if task.stage == stage]


def test_each_part_is_told_what_it_is_told_alone(make_suite: MakeSuite) -> None:
    plan = planned(make_suite, "toy_short+toy_decoy+toy_rounded")
    protected = list(cell_of(plan, "none").protected)
    by_plugin = {task.plugin: task.params["protects"] for task in of_stage(plan, "output")}
    assert by_plugin == {"toy_rounded": protected}
    trained = [task.params["protects"] for task in of_stage(plan, "train") if task.plugin == "toy_decoy"]
    assert sorted(map(tuple, trained)) == sorted([(label,) for label in protected] * 2)
