"""Runs over Ray: the records of one process, whatever becomes of workers, and nothing left behind."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench.cli import main
from mibench.errors import ClusterError
from mibench.plan import Plan, build_plan
from mibench.ray_cluster import RayCluster
from mibench.ray_executor import Home, RayExecutor
from mibench.record import Record
from mibench.runner import Event, TaskDone, TaskProgress, TaskStarted, run
from mibench.store import Store
from mibench.suite import Suite

ROOT = Path(__file__).parents[2]
TOYS = Path(__file__).parent / "plugins"
CPU = torch.device("cpu")
# what a shell starts in the background is deaf to Ctrl-C, and so is all that it starts
HEEDFUL = """
import signal, sys
from mibench.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main(["run", *sys.argv[1:]]))
"""
MakeSuite = Callable[..., Suite]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A Ray of two workers, started with the first job."""
    with RayCluster(jobs=2, device=CPU) as found:
        yield found


def walk(plan: Plan, folder: Path, cluster: RayCluster) -> tuple[list[Record], list[Event]]:
    """Run a plan over Ray, with its store and records in a folder."""
    events: list[Event] = []
    store = Store(folder / "store")
    made = run(plan, store, results=folder, executor=partial(RayExecutor, cluster), on_event=events.append)
    return made, events


def tables(folder: Path) -> dict[str, Any]:
    """An attack that works, one whose worker is killed once, one that fails, one that always dies."""
    once = {"file": str(folder / "once")}
    attacks = {"toy_scores": {}, "toy_once": once, "toy_failing": {}, "toy_fatal": {}}
    return {"attacks": attacks}


@pytest.mark.slow
def test_the_records_are_those_of_one_process_though_workers_die(
    make_suite: MakeSuite, tmp_path: Path, cluster: RayCluster
) -> None:
    suite = tables(tmp_path)
    plan = build_plan(make_suite(**suite))
    records, events = walk(plan, tmp_path / "ray", cluster)
    kinds = {r.attack["label"]: (r.status, (r.error or {}).get("type")) for r in records}
    assert kinds == {
        "toy_scores": ("ok", None),
        "toy_once": ("ok", None),
        "toy_failing": ("failed", "ZeroDivisionError"),
        "toy_fatal": ("failed", "WorkerKilled"),
    }
    tried = [e.task.plugin for e in events if isinstance(e, TaskStarted) and e.task.stage == "invert"]
    assert Counter(tried) == {"toy_scores": 1, "toy_once": 2, "toy_failing": 1, "toy_fatal": 2}
    left = [file.name for file in (tmp_path / "ray" / "store").glob("*/*") if "ray.tmp-" in file.name]
    assert left == []

    del suite["attacks"]["toy_fatal"]  # which would end this very process
    plan = build_plan(make_suite(**suite))
    alone = run(plan, Store(tmp_path / "one" / "store"), results=tmp_path / "one")
    assert [record for record in records if record.attack["label"] != "toy_fatal"] == alone
    again, events = walk(plan, tmp_path / "ray", cluster)
    assert {e.task.plugin for e in events if isinstance(e, TaskStarted)} == {"toy_failing"}
    assert again == alone
    text = (tmp_path / "one" / "records.jsonl").read_bytes()
    assert (tmp_path / "ray" / "records.jsonl").read_bytes() == text


def test_a_second_run_is_all_hits_and_starts_no_ray(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    first = run(plan, Store(tmp_path / "store"), results=tmp_path)
    with RayCluster(jobs=2, device=CPU) as idle:
        again, events = walk(plan, tmp_path, idle)
        assert not idle.is_up
    assert again == first
    hits = [e.task.key for e in events if isinstance(e, TaskDone) and e.how == "hit"]
    assert hits == list(plan.tasks)


@pytest.mark.slow
def test_an_interrupt_kills_the_workers_and_the_cluster_goes_on(
    make_suite: MakeSuite, tmp_path: Path, cluster: RayCluster
) -> None:
    plan = build_plan(make_suite(attacks={"toy_slow": {"file": str(tmp_path / "pid")}}))
    seen: list[Event] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, TaskProgress) and event.task.plugin == "toy_slow":
            seen.append(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, Store(tmp_path / "store"), executor=partial(RayExecutor, cluster), on_event=interrupt)
    assert [(e.total, 0 < e.done < e.total) for e in seen if isinstance(e, TaskProgress)] == [(1200, True)]
    worker = int((tmp_path / "pid").read_text(encoding="ascii"))
    assert comes_true(lambda: not is_alive(worker))
    assert not list((tmp_path / "store" / "progress").glob("*.json"))
    assert not list((tmp_path / "store" / "scratch").glob("ray.tmp-*"))
    assert [record.status for record in walk(build_plan(make_suite()), tmp_path, cluster)[0]] == ["ok"]


@pytest.mark.parametrize("changed", [{"version": "0.0.0"}, {"marker": Path("/nowhere/x")}])
def test_nodes_that_cannot_help_end_the_run(
    make_suite: MakeSuite,
    tmp_path: Path,
    cluster: RayCluster,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
) -> None:
    words = {"version": "Install the same on all nodes", "marker": "--store"}[next(iter(changed))]
    home = RayExecutor._home

    def other(self: RayExecutor, root: Path) -> Home:
        found = home(self, root)
        return Home(**{**vars(found), **changed})

    monkeypatch.setattr(RayExecutor, "_home", other)
    with pytest.raises(ClusterError, match=rf"^ray node {socket.gethostname()}: .*{words}"):
        walk(build_plan(make_suite()), tmp_path, cluster)


GUEST = """
import sys
from functools import partial
from pathlib import Path
import torch
from mibench.choose import choose
from mibench.plan import build_plan
from mibench.ray_cluster import RayCluster
from mibench.ray_executor import RayExecutor
from mibench.runner import run
from mibench.store import Store

address, suite, plugin = sys.argv[1:]
plan = build_plan(choose(suite, plugins=[plugin]))
with RayCluster(address=address, device=torch.device("cpu")) as cluster:
    records = run(plan, Store(Path(suite).parent / "store"), executor=partial(RayExecutor, cluster))
print(cluster.jobs, [record.status for record in records])
"""


@pytest.mark.slow
def test_a_running_cluster_is_used_and_goes_on(
    make_suite: MakeSuite, tmp_path: Path, cluster: RayCluster
) -> None:
    cluster.start()
    import ray  # not before: what is imported by then would be open to other machines

    address = ray.get_runtime_context().gcs_address
    assert address.startswith("127.0.0.1:")  # nobody on another machine reaches it
    suite = suite_file(tmp_path, "[attacks.toy_scores]")
    command = [sys.executable, "-c", GUEST, address, str(suite), str(TOYS / "toy_scores.py")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2 ['ok']\n", "")
    assert [record.status for record in walk(build_plan(make_suite()), tmp_path / "own", cluster)[0]] == [
        "ok"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("send", "number"),
    [
        pytest.param(os.killpg, signal.SIGINT, id="Ctrl-C, which a terminal sends to all of the group"),
        pytest.param(os.kill, signal.SIGTERM, id="SIGTERM"),
    ],
)
def test_what_is_asked_to_stop_leaves_no_process_and_no_file(
    tmp_path: Path, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    slow = f'[attacks.toy_slow]\nfile = "{tmp_path / "pid"}"'
    options = ["--executor", "ray", "--jobs", "2", "--out", str(tmp_path), "--device", "cpu"]
    options += ["--plugin", str(TOYS / "toy_slow.py")]
    child = subprocess.Popen(
        [sys.executable, "-c", HEEDFUL, str(suite_file(tmp_path, slow)), *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with child:
        assert comes_true(lambda: (tmp_path / "pid").exists() or child.poll() is not None, within_s=120)
        send(child.pid, number)
        _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.splitlines()[-1] == "Stopped. The same command goes on from here."
    assert "Traceback" not in errors
    assert comes_true(lambda: not session(child.pid))
    assert not list(Path("/tmp").glob(f"mibench-ray-{child.pid}-*"))
    assert not list((tmp_path / "store" / "progress").glob("*.json"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1", "is none. Give HOST:PORT"),
        ("auto", "is none. Give HOST:PORT"),
        ("ray://head:10001", "is none. Give HOST:PORT"),
        ("head:99999", "is none. Give HOST:PORT"),
        ("127.0.0.1:1", "no cluster answers"),
    ],
)
def test_a_bad_address_is_one_sentence(
    address: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", "smoke", "--executor", "ray", "--ray-address", address, "--out", str(tmp_path)]
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ray address '{address}': ")
    assert words in line


SUITE = """
name = "toy"
metrics = ["aa"]
[data]
size = 16
private = 3
private_images = 4
public = 4
[victim]
net = "mlp"
width = 8
recipe = {{ epochs = 2, batch = 8 }}
[judge]
net = "softmax_regression"
recipe = {{ epochs = 2, batch = 8 }}
[targets]
attacked = 2
[defenses.none]
{attack}
"""


def suite_file(folder: Path, attack: str) -> Path:
    """A suite of one attack, as a file."""
    file = folder / "toy.toml"
    file.write_text(SUITE.format(attack=attack), encoding="utf-8")
    return file


def comes_true(is_so: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + within_s
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_so()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked about does not."""
    return state_of(pid)[:1] not in ([], ["Z"], ["X"])


def session(leader: int) -> list[int]:
    """The processes of a session that run, from /proc."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if is_alive(pid) and int(state_of(pid)[3]) == leader]


def state_of(pid: int) -> list[str]:
    """proc(5): state, parent, group, session, ...; nothing where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
