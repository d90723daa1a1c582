"""Victims that are served from another process: the same results, and nothing to be had around them."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench import fresh_process, wire
from mibench.errors import PluginError
from mibench.plan import Plan, build_plan
from mibench.registry import forget_files, get_attack, list_attacks, load_plugin_file
from mibench.runner import run
from mibench.serving import AttackKilledError, served_stage
from mibench.serving_jobs import apart
from mibench.stages import execute
from mibench.store import Artifact, Store
from mibench.suite import Suite
from mibench.task import Task
from mibench.victim import WhiteBoxVictim
from mibench.worker import Job

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
MakeSuite = Callable[..., Suite]
ASKING = [name for name, one in list_attacks().items() if not issubclass(one.access, WhiteBoxVictim)]
QUICK = {"brep_mi", "mi_face_bb"}


def job_of(task: Task, plan: Plan, store: Store) -> Job:
    return apart(Job(task, store.place, "cpu", plugin_files=plan.plugin_files))


def made(task: Task, store: Store, tmp_path: Path, *, plan: Plan | None = None) -> Artifact:
    """The artifact of a task: in this process, or with a plan with a served victim."""
    by = None
    if plan is not None:
        served = job_of(task, plan, store).served
        assert served is not None
        by = served_stage(served)
    scratch = store.root / "scratch" / task.key
    scratch.mkdir(parents=True, exist_ok=True)
    return execute(task, store, device=CPU, scratch=scratch, by=by)


def prepared(plan: Plan, store: Store, tmp_path: Path) -> None:
    """Make all that comes before attacks."""
    for key, task in plan.tasks.items():
        if task.stage in {"data", "train", "output", "prior"}:
            store.put(key, made(task, store, tmp_path))


def assert_equal(one: Artifact, other: Artifact) -> None:
    assert one.value == other.value
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor.nan_to_num(), other.tensors[name].nan_to_num()), name


def test_records_are_those_of_a_run_in_one_process(make_suite: MakeSuite, tmp_path: Path) -> None:
    attacks: dict[str, Any] = {"toy_served": {}, "toy_gradient": {}, "toy_failing": {}}
    plan = build_plan(make_suite(attacks=attacks, defenses={"toy_rounded": {}}))
    whole = run(plan, Store(tmp_path / "whole"))
    assert [record.status for record in whole] == ["ok", "ok", "failed"]
    apart_store = Store(tmp_path / "apart")
    assert run(plan, apart_store, jobs=2, served=True) == whole
    costs = {
        task.stage: apart_store.cost(key) for key, task in plan.tasks.items() if task.plugin == "toy_served"
    }
    assert all(costs[stage]["attack_peak_mib"] > 0 for stage in ("prior", "adapt", "invert"))


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ASKING]
)
def test_attacks_give_the_same_bits(name: str, make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(
        attacks={name: dict(get_attack(name).toy)}, data={**DATA, "channels": 3}, limits={"max_batch": 5}
    )
    assert_same_bits(suite, tmp_path)


DATA = {
    "size": 16,
    "private": 3,
    "private_images": 4,
    "test_images": 2,
    "public": 16,
    "public_images": 4,  # 64 images in all, a batch of the generators
    "defender": 2,
    "defender_images": 2,
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("ami", {"goal": "instance"}, marks=pytest.mark.slow),
        ("nearest_public", {"adaptive": {"views": 2, "labels_only": True}}),
    ],
)
def test_other_goals_and_adaptive_attackers_give_the_same_bits(
    name: str, options: dict[str, Any], make_suite: MakeSuite, tmp_path: Path
) -> None:
    assert_same_bits(make_suite(attacks={name: {**get_attack(name).toy, **options}}), tmp_path)


def assert_same_bits(suite: Suite, tmp_path: Path) -> None:
    plan, store = build_plan(suite, zoo=False), Store(tmp_path / "store")
    prepared(plan, store, tmp_path)
    tasks = [task for task in plan.tasks.values() if task.stage in {"adapt", "invert"}]
    assert tasks
    for task in tasks:
        whole = made(task, store, tmp_path)
        assert_equal(made(task, store, tmp_path, plan=plan), whole)
        store.put(task.key, whole)


@pytest.fixture
def hostile(make_suite: MakeSuite, tmp_path: Path) -> Callable[..., Artifact]:
    """The artifact of the hostile attack in one of its ways."""

    def attack(way: str, *, served: bool = True) -> Artifact:
        suite = make_suite(attacks={"toy_hostile": {"way": way}}, limits={"max_queries": 10})
        plan, store = build_plan(suite), Store(tmp_path / "store")
        prepared(plan, store, tmp_path)
        task = next(task for task in plan.tasks.values() if task.stage == "invert")
        return made(task, store, tmp_path, plan=plan if served else None)

    return attack


# looking at all objects ends what earlier tests left half done
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_look_around_finds_neither_weights_nor_scores_nor_the_store(
    hostile: Callable[..., Artifact], tmp_path: Path
) -> None:
    near = hostile("look", served=False).value["notes"]
    far = hostile("look").value["notes"]
    module = __import__("sys").modules[get_attack("toy_hostile").__module__]
    store = Store(tmp_path / "store")
    weights = {
        module.digest(tensor)
        for file in (tmp_path / "store").glob("??/*/artifact.json")
        if (found := store.get(file.parent.name)) is not None and found.task["stage"] == "train"
        for tensor in found.tensors.values()
        if tensor.numel() > 10
    }
    # in the victim's own process all of it is there to be taken, or the test would say nothing
    assert weights
    assert weights <= set(near["tensors"].split())
    assert str(tmp_path / "store") in near["stores"].split()
    assert not set(near["told"]) <= {0.0, 1.0}
    assert not weights & set(far["tensors"].split())
    assert far["tensors"]
    assert far["stores"] == ""
    assert far["artifacts"] == 0
    assert set(far["told"]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("count", r"asked about 0 images, and the process that holds the victim answered about 4[.]"),
        ("budget", r"query budget of 40 images is spent [(]40 used, 4 more asked for[)]"),
        ("crowd", r"holds [(]4000, 1, 16, 16[)], wanted at most 256 images"),
        ("garble", "begins with b'giv', which none does that may come now"),
        ("pickle", r"says that it holds torch.float32 \[8589934592\] .*and has 4 bytes"),
        ("stall", "stopped in the middle"),
        ("leave", "ended with exit code 7 and without a result"),
        ("stop", "store: is full"),
    ],
)
def test_who_tampers_fails(
    way: str, words: str, hostile: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "stall":
        monkeypatch.setattr(wire, "STALL_S", 0.5)
    with pytest.raises(PluginError, match=words):
        hostile(way)


def test_a_killed_attack_is_told_apart_from_a_failed_one(hostile: Callable[..., Artifact]) -> None:
    with pytest.raises(AttackKilledError, match=r"was killed \(SIGKILL\)"):
        hostile("die")


def test_an_attack_file_is_not_loaded_where_the_victim_is(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(attacks={"toy_served": {}, "toy_gradient": {}}, defenses={"toy_short": {}}))
    store = Store(tmp_path)
    files = {(task.stage, task.plugin): job_of(task, plan, store) for task in plan.tasks.values()}
    names = {what: {file.stem for file in job.plugin_files} for what, job in files.items()}
    assert names["train", "toy_short"] == {"toy_short"}
    assert names["invert", "toy_served"] == {"toy_short"}
    assert names["prior", "toy_served"] == {"toy_short"}
    assert names["invert", "toy_gradient"] == {"toy_short", "toy_gradient"}
    assert files["invert", "toy_gradient"].served is None
    assert files["prior", "toy_served"].served is not None
    assert all(job.task.key in plan.tasks for job in files.values())


HANG = """
import sys
from pathlib import Path
sys.path[:0] = ["tests/e2e"]
import torch
from mibench.plan import build_plan
from mibench.registry import load_plugin_file
from mibench.runner import run
from mibench.store import Store
from mibench.suite import load_suite
load_plugin_file("tests/e2e/plugins/toy_hostile.py")
folder = Path(sys.argv[1])
if __name__ == "__main__":
    run(build_plan(load_suite(folder / "toy.toml")), Store(folder / "store"), served=True)
"""
SUITE = """
name = "toy"
metrics = ["mc_all"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 1
[victim]
net = "mlp"
width = 4
recipe = { epochs = 1, batch = 4 }
[judge]
net = "softmax_regression"
recipe = { epochs = 1, batch = 4 }
[attacks.toy_hostile]
way = "hang"
[defenses.none]
"""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_attack_outlives_a_killed_run(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text(SUITE, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", HANG, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as main:
        assert main.stdout is not None
        number, folder = main.stdout.readline().split()
        assert is_alive(int(number))
        assert Path(folder).is_dir()
        main.kill()
        deadline = time.monotonic() + 60
        while is_alive(int(number)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(int(number))
        assert not Path(folder).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has it")
def test_the_process_with_the_victim_cannot_be_looked_into() -> None:
    dumpable = ctypes.CDLL(None).prctl
    before = dumpable(3, 0, 0, 0, 0)
    with fresh_process.unreadable():
        assert dumpable(3, 0, 0, 0, 0) == 0
    assert dumpable(3, 0, 0, 0, 0) == before


def test_the_other_process_is_told_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("MIBENCH_CACHE", "/somewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = fresh_process._environment()
    assert "hush" not in told.values()
    assert "MIBENCH_CACHE" not in told
    assert told["OMP_NUM_THREADS"] == "1"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    load_plugin_file(ROOT / "tests" / "e2e" / "plugins" / "toy_hostile.py")
    yield
    forget_files()
