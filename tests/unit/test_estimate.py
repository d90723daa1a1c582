"""Estimates: scaled by work, fair across sizes, and held against what the committed suites took."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

from mibench.estimate import Estimates, Past, past_of_results
from mibench.key import canonical
from mibench.plan import Plan, build_plan
from mibench.store import Artifact, Store
from mibench.suite import Suite, load_suite
from mibench.task import Task
from mibench.workload import WORK_VERSION, work_of

MakeSuite = Callable[..., Suite]
RESULTS = Path(__file__).parents[2] / "results"
SUITES = ("quick", "attacks", "defenses")


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    return build_plan(make_suite())


def stage_of(plan: Plan, stage: str) -> Task:
    return next(task for task in plan.tasks.values() if task.stage == stage)


def work(plan: Plan, task: Task) -> float:
    found = work_of(task.description(), lambda key: plan.tasks[key].description())
    assert found is not None
    return found


def past(plan: Plan, task: Task, seconds: float, *, here: bool = True, device: str = "cpu") -> Past:
    params = canonical(task.params)
    return Past(
        task.stage, task.plugin, seconds, params, work(plan, task), 100.0, device, task.key, is_here=here
    )


def test_every_task_of_a_suite_has_work_and_a_victims_grows_with_its_epochs(make_suite: MakeSuite) -> None:
    small = build_plan(make_suite())
    recipe = {"epochs": 6, "batch": 8}
    large = build_plan(make_suite(victim={"net": "mlp", "width": 8, "recipe": recipe}))
    assert all(work(small, task) >= 1 for task in small.tasks.values())
    assert work(large, stage_of(large, "train")) == pytest.approx(3 * work(small, stage_of(small, "train")))


def test_a_task_whose_input_is_unknown_has_no_work(plan: Plan) -> None:
    assert work_of(stage_of(plan, "train").description(), lambda _key: None) is None
    assert work_of({"stage": "nosuch", "params": {}}, lambda _key: None) is None


def test_a_larger_victim_is_not_judged_by_the_seconds_of_a_small_one(make_suite: MakeSuite) -> None:
    small = build_plan(make_suite())
    large = build_plan(make_suite(victim={"net": "mlp", "width": 8, "recipe": {"epochs": 20, "batch": 8}}))
    estimates = Estimates("cpu")
    estimates.meet({**small.tasks, **large.tasks})
    estimates.take([past(small, stage_of(small, "train"), 3.0)])
    expected = estimates.expect(stage_of(large, "train"))
    assert expected.basis == "like"
    assert expected.seconds == pytest.approx(30.0)  # 20 epochs in place of 2
    assert expected.peak_mib == 100.0


def test_the_slope_is_learned_where_sizes_differ(make_suite: MakeSuite) -> None:
    plans = [
        build_plan(make_suite(victim={"net": "mlp", "width": 8, "recipe": {"epochs": n, "batch": 8}}))
        for n in (1, 10, 100, 1000)
    ]
    estimates = Estimates("cpu")
    for plan in plans:
        estimates.meet(plan.tasks)
    for plan, seconds in zip(plans[:3], (2.0, 2.0 * 10**0.5, 20.0), strict=True):  # overhead: half the slope
        estimates.take([past(plan, stage_of(plan, "train"), seconds)])
    far = estimates.expect(stage_of(plans[3], "train")).seconds
    assert 2.0 * 1000**0.5 < far < 20.0 * 10  # between the half slope and the prior at 1


def test_the_past_of_another_device_tells_nothing(plan: Plan) -> None:
    task = stage_of(plan, "train")
    estimates = Estimates("cuda")
    estimates.meet(plan.tasks)
    estimates.take([past(plan, task, 3.0)])
    assert estimates.expect(task).basis == "guess"
    estimates.take([past(plan, task, 0.5, device="cuda")])
    assert estimates.expect(task).seconds == 0.5


def test_the_past_of_another_machine_is_scaled_by_what_ran_on_both(plan: Plan) -> None:
    judge, train = stage_of(plan, "judge"), stage_of(plan, "train")
    estimates = Estimates("cpu")
    estimates.meet(plan.tasks)
    estimates.take([past(plan, judge, 8.0), past(plan, judge, 4.0, here=False)])
    estimates.take([past(plan, train, 10.0, here=False)])
    expected = estimates.expect(train)
    assert not expected.is_here
    assert expected.seconds == pytest.approx(20.0)  # here it takes twice as long
    assert estimates.expect(judge).seconds == 8.0
    assert estimates.expect(judge).is_here


def test_costs_of_results_are_read_and_lines_without_work_tell_of_their_own_key_alone(
    plan: Plan, tmp_path: Path
) -> None:
    judge, train = stage_of(plan, "judge"), stage_of(plan, "train")
    head = {"stage": train.stage, "plugin": train.plugin, "wall_s": 4.0, "device": "cpu", "peak_mib": 9.0}
    known = {"key": "ab", "work_version": WORK_VERSION}
    lines = [
        json.dumps({**head, "key": train.key}),
        "{",
        json.dumps({**head, "stage": "judge", "plugin": "judge", **known, "work": work(plan, judge) / 2}),
    ]
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "costs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert len(list(past_of_results(tmp_path))) == 2
    store = Store(tmp_path / "store")
    estimates = Estimates.of_store(store, device="cpu", results=tmp_path, tasks=plan.tasks)
    other = dataclasses.replace(train, seed=5)
    estimates.meet({other.key: other})
    assert estimates.expect(train).seconds == 4.0
    assert estimates.expect(judge).seconds == pytest.approx(8.0)
    assert estimates.expect(other).basis == "guess"


def test_the_store_tells_of_other_sizes(make_suite: MakeSuite, tmp_path: Path) -> None:
    small = build_plan(make_suite())
    large = build_plan(make_suite(judge={"net": "softmax_regression", "recipe": {"epochs": 8, "batch": 8}}))
    store = Store(tmp_path)
    for task in small.tasks.values():
        store.put(task.key, Artifact(task=task.description()))
        store.put_cost(task.key, {"wall_s": 2.0, "peak_mib": 50.0, "device": "cpu"})
    estimates = Estimates.of_store(store, device="cpu", tasks=large.tasks)
    assert estimates.expect(stage_of(large, "judge")).seconds == pytest.approx(8.0)


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: build_plan(load_suite(name)) for name in SUITES}


@pytest.mark.parametrize("held", SUITES)
def test_a_suite_is_foretold_by_the_costs_of_the_others(held: str, plans: dict[str, Plan]) -> None:
    costs = {
        name: {
            line["key"]: line
            for text in (RESULTS / name / "costs.jsonl").read_text(encoding="utf-8").splitlines()
            for line in [json.loads(text)]
        }
        for name in SUITES
    }
    estimates = Estimates("cpu")
    for plan in plans.values():
        estimates.meet(plan.tasks)
    seen = {
        key: past(plans[name], plans[name].tasks[key], line["wall_s"])
        for name in SUITES
        if name != held
        for key, line in costs[name].items()
        if key not in costs[held] and key in plans[name].tasks  # what the suites share would be no test
    }
    estimates.take(seen.values())
    tasks = {key: plans[held].tasks[key] for key in costs[held] if key in plans[held].tasks}
    ratios = [estimates.expect(task).seconds / costs[held][key]["wall_s"] for key, task in tasks.items()]
    assert len(ratios) > 50
    assert 0.5 <= median(ratios) <= 2.0
