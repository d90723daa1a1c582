"""Runs over worker processes, and runs that are killed."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mibench.plan import build_plan
from mibench.record import read_records
from mibench.runner import run
from mibench.store import Store
from mibench.suite import Suite

ROOT = Path(__file__).parents[2]
MakeSuite = Callable[..., Suite]


def test_workers_give_the_same_bytes_and_survive_a_death(make_suite: MakeSuite, tmp_path: Path) -> None:
    attacks: dict[str, Any] = {"toy_scores": {}, "toy_failing": {}, "toy_gradient": {}}
    plan = build_plan(make_suite(attacks={**attacks, "toy_fatal": {}}))
    records = run(plan, Store(tmp_path / "two" / "store"), jobs=2, results=tmp_path / "two")
    assert [(r.attack["label"], r.status, (r.error or {}).get("type")) for r in records] == [
        ("toy_scores", "ok", None),
        ("toy_failing", "failed", "ZeroDivisionError"),
        ("toy_gradient", "ok", None),
        ("toy_fatal", "failed", "WorkerKilled"),
    ]
    alone = run(build_plan(make_suite(attacks=attacks)), Store(tmp_path / "one" / "store"), jobs=1)
    assert alone == records[:3]
    assert read_records(tmp_path / "two" / "records.jsonl") == records
    assert not list((tmp_path / "two" / "store" / "progress").glob("*.json"))


CHILD = """
import sys
from pathlib import Path
from mibench.plan import build_plan
from mibench.registry import load_plugin_file
from mibench.runner import run
from mibench.store import Store
from mibench.suite import load_suite

folder = Path(sys.argv[1])
for name in ("toy_scores", "toy_gradient", "toy_short", "toy_rounded"):
    load_plugin_file(Path("tests/e2e/plugins") / f"{name}.py")
plan = build_plan(load_suite(folder / "toy.toml"))
store = Store(folder / "store")
run(plan, store, results=folder, on_event=lambda event: print(type(event).__name__, flush=True))
"""
SUITE = """
name = "toy"
metrics = ["mc_all", "aa", "fid"]
[data]
size = 16
private = 4
private_images = 6
test_images = 2
public = 6
public_images = 2
defender = 2
[targets]
attacked = 3
[victim]
net = "small_vgg"
width = 4
recipe = { epochs = 4, batch = 8 }
[judge]
net = "mlp"
width = 16
recipe = { epochs = 2, batch = 8 }
[attacks.toy_scores]
[attacks.toy_gradient]
[defenses.none]
[defenses.toy_short]
[defenses.toy_rounded]
"""


def start(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    (folder / "toy.toml").write_text(SUITE, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    with start(calm) as child:
        lines = len(child.communicate()[0].splitlines())
    assert child.returncode == 0
    dice = random.Random(time.time_ns())  # another moment each time; nothing may depend on it
    deaths = 0
    for _ in range(2):
        with start(rough) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(lines // 2)):
                child.stdout.readline()
            time.sleep(dice.random() * 0.05)
            child.kill()
        deaths += child.returncode == -9
    assert deaths > 0
    with start(rough) as child:
        child.communicate()
    assert child.returncode == 0
    assert (rough / "records.jsonl").read_bytes() == (calm / "records.jsonl").read_bytes()
    assert all(record.status == "ok" for record in read_records(rough / "records.jsonl"))
