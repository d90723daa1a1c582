import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mibench.defense import Defense
from mibench.errors import BlockedError, SuiteError
from mibench.key import Key
from mibench.nets.classifier import NetSpec
from mibench.plan import Plan, build_plan
from mibench.registry import get_defense
from mibench.suite import Suite, list_suites, load_suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]
DEFENSES: dict[str, Any] = {"none": {}, "toy_short": {}, "toy_rounded": {}, "toy_decoy": {}}


class Shelf:
    """A store that holds some keys."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.keys = set(keys)

    def present(self, keys: Iterable[Key]) -> set[Key]:
        return self.keys & set(keys)


def of_stage(plan: Plan, stage: str) -> list[Task]:
    return [task for task in plan.tasks.values() if task.stage == stage]


def invert_keys(plan: Plan, defense: str, view: str) -> list[Key]:
    (cell,) = [one for one in plan.cells if one.defense.label == defense and one.view == view]
    return [model.invert for model in cell.models]


def test_golden_keys(make_suite: MakeSuite) -> None:
    # these change only with a version, a default, or the meaning of keys; each retires all records
    plan = build_plan(make_suite(attacks={"mean_face": {}}))
    (private,) = [task for task in of_stage(plan, "data") if task.params["part"] == "private"]
    (train,) = of_stage(plan, "train")
    assert private.key == "5ac67b4758679cbe9d5963920c8c518577cd49b158d365cf29e1140f8bdb612f"
    assert train.key == "f1e5eec98fcdcd719fa8876f637a36da03da483937931b1e29bc067f083e1b5c"


def test_planning_twice_gives_the_same(make_suite: MakeSuite) -> None:
    suite = make_suite(attacks={"toy_gradient": {}, "toy_scores": {}}, defenses=DEFENSES)
    one, other = build_plan(suite), build_plan(suite)
    assert list(one.tasks) == list(other.tasks)
    assert one.cells == other.cells


def test_inputs_stand_before_what_reads_them(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, defenses=DEFENSES))
    seen: set[Key] = set()
    for key, task in plan.tasks.items():
        assert seen.issuperset(task.inputs.values())
        assert key == task.key
        seen.add(key)


def test_defaults_are_written_out(make_suite: MakeSuite) -> None:
    plain = build_plan(make_suite(attacks={"toy_gradient": {}}))
    spelled = build_plan(make_suite(attacks={"toy_gradient": {"step": 1, "prior": {"dark": 0.0}}}))
    assert plain.tasks.keys() == spelled.tasks.keys()
    assert of_stage(plain, "invert")[0].params["attack"] == {"step": 1.0, "prior": {"dark": 0.0}}


def test_prior_is_shared_by_attacks_of_one_spec(make_suite: MakeSuite) -> None:
    attacks = {"toy_gradient": {}, "stronger": {"plugin": "toy_gradient", "step": 9.0}}
    plan = build_plan(make_suite(attacks=attacks))
    assert len(of_stage(plan, "prior")) == 1
    assert len(of_stage(plan, "invert")) == 2
    darker = {**attacks, "dark": {"plugin": "toy_gradient", "prior": {"dark": 0.5}}}
    assert len(of_stage(build_plan(make_suite(attacks=darker)), "prior")) == 2


def test_own_way_of_learning_is_keyed_by_the_attack(make_suite: MakeSuite) -> None:
    (prior,) = of_stage(build_plan(make_suite(attacks={"mean_face": {}})), "prior")
    assert (prior.plugin, prior.params["attack"]) == ("mean_face", {})


def test_stripped_view_repeats_the_undefended_run(make_suite: MakeSuite) -> None:
    suite = make_suite(attacks={"toy_gradient": {}}, defenses=DEFENSES, white_box=["stripped", "deployed"])
    plan = build_plan(suite)
    undefended = invert_keys(plan, "none", "stripped")
    assert invert_keys(plan, "toy_rounded", "stripped") == undefended
    assert invert_keys(plan, "none", "deployed") == undefended
    assert invert_keys(plan, "toy_rounded", "deployed") != undefended
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)


def test_black_box_attacks_meet_the_output_step(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(defenses=DEFENSES, white_box=["stripped", "deployed"]))
    assert invert_keys(plan, "toy_rounded", "black-box") != invert_keys(plan, "none", "black-box")
    assert len(plan.cells) == len(DEFENSES) - 0


def test_output_defense_shares_the_undefended_training(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(defenses={"none": {}, "toy_rounded": {}}))
    assert len(of_stage(plan, "train")) == 1
    assert [task.plugin for task in of_stage(plan, "output")] == ["toy_rounded"]


def test_single_label_defense_has_one_model_a_label(make_suite: MakeSuite) -> None:
    targets = {"protected": 2, "bystanders": 1, "attacked": 3, "images": 1}
    plan = build_plan(
        make_suite(attacks={"toy_gradient": {}}, defenses={"none": {}, "toy_decoy": {}}, targets=targets)
    )
    none, decoy = plan.cells
    assert [len(none.models), len(decoy.models)] == [1, 2]
    assert none.models[0].protects == decoy.protected == tuple(m.protects[0] for m in decoy.models)
    for model in decoy.models:
        assert len(model.targets) == 2
        assert not set(model.targets[1:]) & set(decoy.protected)
        assert set(model.targets) <= set(none.models[0].targets)


def test_defender_never_reads_the_attackers_half(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, defenses=DEFENSES))
    (public,) = [task.key for task in of_stage(plan, "data") if task.params["part"] == "public"]
    for task in (*of_stage(plan, "train"), *of_stage(plan, "output")):
        assert public not in plan.ancestors(task.key)


def test_attack_never_reads_private_images_but_through_the_victim(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}, "toy_scores": {}}, defenses=DEFENSES))
    private = {task.key for task in of_stage(plan, "data") if task.params["part"] != "public"}
    for task in (*of_stage(plan, "invert"), *of_stage(plan, "adapt")):
        assert not private & set(task.inputs.values())


def test_instance_goal_alone_makes_private_images_an_input_of_the_inversion(make_suite: MakeSuite) -> None:
    attacks = {"ami": {"goal": "instance"}, "classes": {"plugin": "ami"}}
    plan = build_plan(make_suite(attacks=attacks, defenses={"none": {}, "toy_rounded": {}}))
    (private,) = [task.key for task in of_stage(plan, "data") if task.params["part"] == "private"]
    goals = {task.params["attack"]["goal"]: task.inputs for task in of_stage(plan, "invert")}
    assert goals["instance"]["private"] == private
    assert "private" not in goals["class"]
    assert all(private not in task.inputs.values() for task in of_stage(plan, "adapt"))
    assert len(of_stage(plan, "invert")) == 4


def test_defenders_prior_has_another_seed_and_other_data(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, defenses={"toy_decoy": {}}))
    attacker, defender = sorted(of_stage(plan, "prior"), key=lambda task: task.params["half"], reverse=True)
    assert attacker.params["spec"] == defender.params["spec"]
    assert attacker.inputs != defender.inputs
    assert attacker.task_seed != defender.task_seed


def test_informed_defense_without_a_prior_is_blocked(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_scores": {}}, defenses={"none": {}, "toy_decoy": {}}))
    fine, blocked = plan.cells
    assert not fine.blocked
    assert "toy_decoy" in blocked.blocked
    assert not blocked.models
    assert issubclass(BlockedError, Exception)


def test_defense_with_an_untrained_prior_is_blocked(make_suite: MakeSuite) -> None:
    attacks = {"dmi": {"prior": {"steps": 0}}, "trained": {"plugin": "dmi", "prior": {"steps": 1}}}
    defenses = {"gan_d": {}, "gan_id": {"substitute": {"steps": 0}}}
    plan = build_plan(make_suite(attacks=attacks, defenses=defenses))
    blocked = {(cell.attack.label, cell.defense.label): cell.blocked for cell in plan.cells}
    assert blocked["dmi", "gan_d"].startswith(
        "defense 'gan_d' would learn nothing from the prior of attack 'dmi', whose steps are 0. "
    )
    assert not blocked["trained", "gan_d"]
    assert "its substitute, whose steps are 0. Give substitute.steps" in blocked["trained", "gan_id"]


def test_no_cell_of_a_built_in_suite_is_blocked() -> None:
    # suites of images are planned on images of their own, in test_paper_suites.py and test_prepared_source.py
    for suite in (one for one in map(load_suite, list_suites()) if one.data.kind == "synthfaces"):
        assert [cell.blocked for cell in build_plan(suite).cells if cell.blocked] == []


def test_informed_defense_depends_on_the_attacks_prior(make_suite: MakeSuite) -> None:
    attacks = {"toy_gradient": {}, "dark": {"plugin": "toy_gradient", "prior": {"dark": 0.5}}}
    plan = build_plan(make_suite(attacks=attacks, defenses={"toy_short": {}, "toy_decoy": {}}))
    trained = {name: {t.key for t in of_stage(plan, "train") if t.plugin == name} for name in DEFENSES}
    assert len(trained["toy_short"]) == 1
    assert len(trained["toy_decoy"]) == 2


def test_cells_that_differ_in_the_defense_meet_the_same_noise(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, defenses=DEFENSES))
    assert len({task.task_seed for task in of_stage(plan, "invert")}) == 1


def test_seeds_share_data_and_judge_alone(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite(attacks={"toy_gradient": {}}, seeds=[0, 1]))
    stages = [task.stage for task in plan.tasks.values()]
    assert {stage: stages.count(stage) for stage in ("judge", "prior", "train", "invert", "measure")} == {
        "judge": 1,
        "prior": 2,
        "train": 2,
        "invert": 2,
        "measure": 2,
    }


def test_chunk_size_enters_no_key_and_budget_does(make_suite: MakeSuite) -> None:
    plain = build_plan(make_suite())
    assert build_plan(make_suite(limits={"max_batch": 3})).tasks.keys() == plain.tasks.keys()
    assert build_plan(make_suite(limits={"max_queries": 3})).tasks.keys() != plain.tasks.keys()


def test_growing_one_part_of_the_data_keeps_the_others(make_suite: MakeSuite) -> None:
    suite = make_suite(defenses=DEFENSES)
    more = dataclasses.replace(suite, data=dataclasses.replace(suite.data, public=9))
    one, other = ({task.key for task in of_stage(build_plan(s), "train")} for s in (suite, more))
    assert one == other


def test_outside_plugins_are_keyed_by_their_source(
    make_suite: MakeSuite, toys: Callable[[str], Path]
) -> None:
    plan = build_plan(make_suite())
    (task,) = of_stage(plan, "invert")
    assert len(task.source) == 64
    assert plan.plugin_files == (toys("toy_scores"),)


def test_status_asks_only_for_what_is_needed(make_suite: MakeSuite) -> None:
    plan = build_plan(make_suite())
    assert set(plan.status(Shelf(())).values()) == {"run"}
    assert set(plan.status(Shelf(plan.tasks)).values()) == {"hit"}
    (train,), (measure,) = of_stage(plan, "train"), of_stage(plan, "measure")
    without_train = Shelf(plan.tasks.keys() - {train.key})
    assert plan.status(without_train)[train.key] == "idle"
    without_both = Shelf(plan.tasks.keys() - {train.key, measure.key})
    assert plan.status(without_both)[train.key] == "run"
    without_measure = plan.status(Shelf(plan.tasks.keys() - {measure.key}))
    assert [key for key, status in without_measure.items() if status == "run"] == [measure.key]


def test_zoo_prior_is_taken_and_its_inputs_are_not_made(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = make_suite(attacks={"toy_gradient": {}})
    (prior,) = of_stage(build_plan(suite), "prior")
    monkeypatch.setattr("mibench.plan.in_zoo", lambda key: key == prior.key)
    plan = build_plan(suite)
    status = plan.status(Shelf(()))
    assert status[prior.key] == "zoo"
    assert status[prior.inputs["public"]] == "idle"
    assert build_plan(suite, zoo=False).status(Shelf(()))[prior.key] == "run"


def test_attacks_beyond_the_crossed_ones_meet_the_first_defense_alone(make_suite: MakeSuite) -> None:
    suite = make_suite(
        crossed=1,
        attacks={"mean_face": {}, "nearest_public": {}},
        defenses={"none": {}, "ad_mi": {"epochs": 1, "width": 4}},
    )
    pairs = [(cell.attack.label, cell.defense.label) for cell in build_plan(suite).cells]
    assert pairs == [("mean_face", "none"), ("nearest_public", "none"), ("mean_face", "ad_mi")]


def test_no_attack_crossed_is_refused(make_suite: MakeSuite) -> None:
    with pytest.raises(SuiteError, match="crossed must be >= 1, got 0"):
        make_suite(crossed=0)


def test_seeds_may_share_priors_and_nothing_more(make_suite: MakeSuite) -> None:
    attacks: dict[str, Any] = {"toy_gradient": {}}
    of_their_own = build_plan(make_suite(seeds=[3, 4], attacks=attacks))
    shared = build_plan(make_suite(seeds=[3, 4], share_priors=True, attacks=attacks))
    assert [task.seed for task in of_stage(of_their_own, "prior")] == [3, 4]
    assert [task.seed for task in of_stage(shared, "prior")] == [3]
    for stage in ("train", "invert"):
        assert {task.seed for task in of_stage(shared, stage)} == {3, 4}


def test_misfit_blocks_the_cell_with_its_reason(
    make_suite: MakeSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(_defense: Defense, net: NetSpec) -> str:
        return f"{net.name} is too small. Take another."

    monkeypatch.setattr(get_defense("dp_sgd"), "misfit", too_small)
    suite = make_suite(attacks={"mean_face": {}}, defenses={"none": {}, "dp_sgd": {"noise_multiplier": 1.0}})
    open_cell, blocked = build_plan(suite).cells
    assert open_cell.blocked == ""
    assert blocked.blocked == "defense 'dp_sgd': mlp is too small. Take another."


def test_later_option_enters_a_key_only_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bido = get_defense("bido")
    before, params = bido().key_params(), bido().params()
    monkeypatch.setattr(bido, "added", bido.added | {"scale"})
    assert bido().key_params() == {name: value for name, value in before.items() if name != "scale"}
    assert bido.from_params({"scale": 7.0}).key_params() == {**before, "scale": 7.0}
    assert bido.from_params(bido().key_params()) == bido()
    assert bido().params() == params
