"""Shares of a card follow from what tasks of the plan took of one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.gpu_share import TASKS_PER_CARD, GpuShares
from mibench.plan import Plan, build_plan
from mibench.store import Artifact, Store
from mibench.suite import Suite
from mibench.task import Task

MakeSuite = Callable[..., Suite]
CARD_MIB = 80 * 1024.0


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    """Two attacks of one plugin: tasks of equal parameters, and others of the same kind."""
    attacks = {"one": {"plugin": "toy_scores"}, "two": {"plugin": "toy_scores", "tries": 3}, "toy_scores": {}}
    return build_plan(make_suite(attacks=attacks, seeds=[0, 1]))


def inverts(plan: Plan, tries: int) -> list[Task]:
    """The inversions with so many tries, one a seed."""
    tasks = [task for task in plan.tasks.values() if task.stage == "invert"]
    return [task for task in tasks if task.params["attack"]["tries"] == tries]


def learn(store: Store, task: Task, peak_mib: float, device: str = "cuda") -> None:
    """Leave an artifact and its cost."""
    store.put(task.key, Artifact(task=task.description()))
    store.put_cost(task.key, {"peak_mib": peak_mib, "device": device, "wall_s": 1.0})


def test_a_share_grows_from_an_eighth_to_a_whole_with_the_peak(plan: Plan, tmp_path: Path) -> None:
    first, second = inverts(plan, 2)
    shares = []
    for i, part in enumerate((0.0, 0.05, 0.2, 0.3, 0.4, 0.9, 2.0)):
        store = Store(tmp_path / str(i))
        learn(store, first, part * CARD_MIB)
        shares.append(GpuShares(plan, store, card_mib=CARD_MIB).share(second))
    # 1.5 * part + 1 / 80, rounded up to the next of 1/8, 1/7, ... 1
    assert shares == [1 / TASKS_PER_CARD, 1 / 8, 1 / 3, 1 / 2, 1.0, 1.0, 1.0]


def test_equal_parameters_count_before_the_kind_and_the_largest_counts(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    shares = GpuShares(plan, store, card_mib=CARD_MIB)
    (first, second), (other, last) = inverts(plan, 2), inverts(plan, 3)
    assert shares.share(second) == 1.0
    learn(store, other, 0.3 * CARD_MIB)
    assert shares.share(second) == 1 / 2
    learn(store, first, 0.2 * CARD_MIB)
    assert shares.share(second) == 1 / 3
    assert shares.share(last) == 1 / 2
    learn(store, second, 0.9 * CARD_MIB)
    assert shares.share(first) == 1.0


def test_memory_of_the_machine_says_nothing_about_the_card(plan: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, second = inverts(plan, 2)
    learn(store, first, 10.0, device="cpu")
    assert GpuShares(plan, store, card_mib=CARD_MIB).share(second) == 1.0
    (train,) = [task for task in plan.tasks.values() if task.stage == "train" and task.seed == 0]
    learn(store, train, 10.0)
    assert GpuShares(plan, store, card_mib=CARD_MIB).share(second) == 1.0
