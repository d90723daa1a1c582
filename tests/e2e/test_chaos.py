"""Several processes on one store: nothing is done twice, and whoever is killed, the records stay the same."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from mibench.plan import Plan, build_plan
from mibench.record import read_records
from mibench.registry import forget_files, load_plugin_file
from mibench.store import Store
from mibench.suite import load_suite

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc, and forks them")
SUITE = """
name = "toy"
metrics = ["mc_all", "aa"]
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


class Cradle:
    """Starts runs; see cradle.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, *words: object) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, folder: Path, name: str, *, jobs: int = 1) -> int:
        return self.ask("start", folder, name, jobs)

    def wait(self, pid: int) -> int:
        return self.ask("wait", pid)


@pytest.fixture(scope="module")
def cradle() -> Iterator[Cradle]:
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("cradle.py"))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Cradle(process)
        assert process.stdin is not None
        process.stdin.close()


def prepare(folder: Path, suite: str = SUITE) -> Path:
    folder.mkdir()
    (folder / "toy.toml").write_text(suite, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def calm(cradle: Cradle, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The records of a run that nobody disturbs."""
    folder = prepare(tmp_path_factory.mktemp("calm") / "run")
    assert cradle.wait(cradle.start(folder, "alone")) == 0
    assert all(record.status == "ok" for record in read_records(folder / "alone" / "records.jsonl"))
    return (folder / "alone" / "records.jsonl").read_bytes()


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[Plan]:
    for name in ("toy_scores", "toy_gradient", "toy_short", "toy_rounded"):
        load_plugin_file(ROOT / "tests" / "e2e" / "plugins" / f"{name}.py")
    (tmp_path / "plan.toml").write_text(SUITE, encoding="utf-8")
    yield build_plan(load_suite(tmp_path / "plan.toml"))
    forget_files()


def did(folder: Path) -> dict[str, list[str]]:
    """What each run has done itself: lines of its log."""
    return {log.parent.name: log.read_text().splitlines() for log in folder.glob("*/did.log")}


def leases(folder: Path) -> list[str]:
    return [file.name for file in (folder / "store" / "leases").glob("*.json")]


@pytest.mark.parametrize("num_runs", [2, 4])
def test_processes_on_one_store_do_everything_once(
    cradle: Cradle, calm: bytes, plan: Plan, tmp_path: Path, num_runs: int
) -> None:
    folder = prepare(tmp_path / "shared")
    names = [f"run-{i}" for i in range(num_runs)]
    pids = [cradle.start(folder, name) for name in names]
    assert [cradle.wait(pid) for pid in pids] == [0] * num_runs
    assert all((folder / name / "records.jsonl").read_bytes() == calm for name in names)
    lines = did(folder)
    assert sorted(line for own in lines.values() for line in own) == sorted(
        f"TaskDone {key}" for key in plan.tasks
    )
    assert sum(bool(own) for own in lines.values()) >= 2
    costs = {(folder / name / "costs.jsonl").read_bytes() for name in names}
    assert len(costs) == 1
    assert leases(folder) == []


def test_what_fails_elsewhere_is_tried_by_each_process_once(cradle: Cradle, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "shared", SUITE + "[attacks.toy_failing]\n")
    pids = [cradle.start(folder, name) for name in ("one", "two")]
    assert [cradle.wait(pid) for pid in pids] == [0, 0]
    assert (folder / "one" / "records.jsonl").read_bytes() == (folder / "two" / "records.jsonl").read_bytes()
    assert Counter(record.status for record in read_records(folder / "one" / "records.jsonl")) == {
        "ok": 6,
        "failed": 3,
    }
    lines = did(folder)
    failed = [sorted(line for line in own if line.startswith("TaskFailed")) for own in lines.values()]
    assert failed[0] == failed[1]
    assert len(set(failed[0])) == len(failed[0]) == 3
    done = [line for own in lines.values() for line in own if line.startswith("TaskDone")]
    assert len(done) == len(set(done))
    assert leases(folder) == []


def test_workers_do_not_outlive_their_main_process(cradle: Cradle, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "orphans")
    main = cradle.start(folder, "one", jobs=2)
    until(lambda: len(did(folder).get("one", [])) > 0)  # so the workers work
    workers = workers_of(main)
    assert len(workers) == 2
    os.kill(main, signal.SIGKILL)
    assert cradle.wait(main) == -signal.SIGKILL
    until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in workers))
    assert cradle.wait(cradle.start(folder, "two")) == 0
    assert leases(folder) == []


def test_a_few_kills_change_nothing(cradle: Cradle, calm: bytes, plan: Plan, tmp_path: Path) -> None:
    storm(cradle, calm, plan, tmp_path, kills=5)


@pytest.mark.slow
def test_a_hundred_kills_change_nothing(cradle: Cradle, calm: bytes, plan: Plan, tmp_path: Path) -> None:
    storm(cradle, calm, plan, tmp_path, kills=100)


def storm(cradle: Cradle, calm: bytes, plan: Plan, tmp_path: Path, *, kills: int) -> None:
    """Rounds of two runs on a fresh store, main processes and workers of which are killed at any moment."""
    dice = random.Random(time.time_ns())  # another moment each time; nothing may depend on it
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        folder = prepare(tmp_path / f"round-{killed.total()}")
        mains = {name: cradle.start(folder, name, jobs=jobs) for name, jobs in (("one", 1), ("two", 2))}
        while mains and killed.total() < kills:
            name, main = dice.choice(list(mains.items()))
            if name == "two" and dice.random() < 0.7:  # else few workers would live long enough
                until(partial(is_at_work_or_ended, main))
            time.sleep(dice.uniform(0, 0.5))
            victim = dice.choice([main, *workers_of(main)])
            if has_ended(main):
                assert cradle.wait(main) == 0  # it has seen all of the plan
                del mains[name]
                continue
            with contextlib.suppress(ProcessLookupError):  # the last worker of a run that ends
                os.kill(victim, signal.SIGKILL)
                killed["main" if victim == main else "worker"] += 1
            if victim == main:
                assert cradle.wait(main) in {0, -signal.SIGKILL}
                mains[name] = cradle.start(folder, name, jobs=1 if name == "one" else 2)
        assert [cradle.wait(main) for main in mains.values()] == [0] * len(mains)
        # a worker that was killed twice at the same task makes that run's cell a failed one
        assert cradle.wait(cradle.start(folder, "last")) == 0
        assert (folder / "last" / "records.jsonl").read_bytes() == calm
        assert [key for key in plan.tasks if not Store(folder / "store").verify(key)] == []
        assert leases(folder) == []
    print(f"killed: {dict(killed)}")  # noqa: T201 - shown by pytest -s


def workers_of(pid: int) -> list[int]:
    """The worker processes of a main process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"LokyProcess" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended
            continue
    return found


def has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"


def is_at_work_or_ended(main: int) -> bool:
    return bool(workers_of(main)) or has_ended(main)


def until(happens: Callable[[], bool]) -> None:
    """Wait for something that should come soon."""
    end = time.monotonic() + 120  # two cores that others share
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)
