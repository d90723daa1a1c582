"""The parts of tests/chaos: when it kills, what it takes for what, and what it finds wrong."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mibench.store import Artifact, Store

ROOT = Path(__file__).parents[2]
KEY = "ab" * 32
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules; imported as they are run, because other packages install a `tests` too."""
    monkeypatch.syspath_prepend(ROOT / "tests")
    names = ("campaign", "processes", "repeats", "timeline", "verdict")
    yield SimpleNamespace(**{name: importlib.import_module(f"chaos.{name}") for name in names})
    for name in [name for name in sys.modules if name.partition(".")[0] == "chaos"]:
        del sys.modules[name]


def test_every_kill_is_of_some_kind(chaos: Any) -> None:
    divide = chaos.campaign.divide
    assert divide(10, [0.5, 0.25, 0.25]) == [6, 2, 2]
    assert divide(100, list(chaos.campaign.SHARES)) == [16, 14, 25, 20, 5, 20]
    assert [sum(divide(kills, [0.2, 0.7, 0.1])) for kills in (1, 2, 7)] == [1, 2, 7]


def test_moments_count_tasks_and_seconds_only_before_and_after_them(chaos: Any) -> None:
    line = chaos.timeline.Timeline(began=100.0, done=(110.0, 111.0, 112.0), walked=113.0, ended=120.0)
    moment = chaos.timeline.Moment
    assert line.moment(0.25) == moment(0, 5.0)
    assert line.moment(0.5) == moment(1, 0.0)
    assert line.moment(0.56) == moment(2, 0.0)
    assert line.moment(0.9) == moment(3, 5.0)
    assert line.moment(0.0, at_work=True) == moment(1, 0.0)
    assert line.moment(0.99, at_work=True) == moment(2, 0.0)


def test_a_log_is_read_on_from_where_it_was_and_by_whole_lines(chaos: Any, tmp_path: Path) -> None:
    file = tmp_path / "did.log"
    line = json.dumps({"at": 1.5, "pid": 7, "what": "ran", "key": KEY, "why": ""})
    file.write_text(f"{line}\n{line[:20]}", encoding="utf-8")
    log = chaos.timeline.Log(file)
    assert log.fresh() == [chaos.timeline.Note(1.5, 7, "ran", KEY, "")]
    assert log.fresh() == []
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"{line[20:]}\n")
    assert len(log.fresh()) == 1
    assert len(log.notes) == 2


def test_a_repeated_task_has_a_cause(chaos: Any) -> None:
    def notes(*lines: tuple[int, str, str, str]) -> list[Any]:
        return [chaos.timeline.Note(float(at), *line) for at, line in enumerate(lines)]

    def causes(*lines: tuple[int, str, str, str], killed: frozenset[int] = frozenset()) -> dict[str, int]:
        return dict(chaos.repeats.repeats_of(notes(*lines), killed))

    begun, done = (1, "started", KEY, ""), (1, "ran", KEY, "")
    assert causes(begun, done) == {}
    assert causes(begun, (2, "started", KEY, ""), killed=frozenset({1})) == {"main process killed": 1}
    assert causes(begun, (2, "started", KEY, "")) == {"two at once": 1}
    assert causes(begun, begun, done) == {"worker killed": 1}
    assert causes(begun, (1, "failed", KEY, "WorkerKilled"), begun) == {"worker killed twice": 1}
    assert causes(begun, (1, "failed", KEY, "OSError"), begun) == {"failed: OSError": 1}
    assert causes(begun, done, (2, "started", KEY, ""), killed=frozenset({1})) == {"done before": 1}


@pytest.mark.parametrize(
    ("place", "aim"),
    [
        (f"store/ab/{KEY}.tmp-1-2/artifact.json", "put"),
        ("store/leases/lock", "lease"),
        ("smoke/records.jsonl.tmp-1-ab", "records"),
        ("smoke/.index.html.tmp-ab", "report"),
        ("smoke/status.json.tmp-1", ""),
    ],
)
def test_a_process_is_killed_in_the_middle_of_what_it_writes(
    chaos: Any, tmp_path: Path, place: str, aim: str
) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True)
    code = "import sys\nwith open(sys.argv[1], 'w'):\n    print('open', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert chaos.processes.kill_when(process.pid, aim, within_s=60.0) == aim
        assert process.wait() == -9
        assert chaos.processes.kill_when(process.pid, aim, within_s=60.0) is None


def test_what_is_left_in_a_store_is_found_and_what_a_sweep_leaves_is_told(chaos: Any, tmp_path: Path) -> None:
    store, results = tmp_path / "store", tmp_path / "run"
    Store(store).put(KEY, Artifact(value={"a": 1}))
    aside = store / "cd" / f"{'cd' * 32}.tmp-1-2"
    aside.mkdir(parents=True)
    (results / "smoke").mkdir(parents=True)
    for file in (
        store / "leases" / "lock",
        store / "leases" / f"{KEY}.tmp-ab",
        store / "leases" / f"{KEY}.json",
        store / "ab" / KEY / "cost.json.tmp-1",
        aside / "artifact.json",
        results / "smoke" / ".index.html.tmp-ab",
    ):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    count, left = chaos.verdict.left_after_sweep(store, [results])
    assert (count, left) == (6, [f"leases/{KEY}.json"])
    assert Store(store).verify(KEY)
    plan = SimpleNamespace(tasks={KEY: None, "cd" * 32: None})
    assert chaos.verdict.unsound(plan, store) == ["cd" * 32]


def test_a_report_is_sound_where_nothing_is_wrong_and_all_kills_are_done(chaos: Any, tmp_path: Path) -> None:
    line = chaos.timeline.Timeline(began=100.0, done=(110.0,), walked=113.0, ended=120.04)
    campaign = chaos.campaign.Campaign(tmp_path, seed=3)
    campaign.alike["shared_by_2"] = {"faults": []}
    campaign.storms["main process"] = {"kills": 2, "restarts": 1, "faults": []}
    report = campaign.report(2, line, 1.0)
    assert (report["kills"], report["restarts"], report["seed"]) == (2, 1, 3)
    assert (report["sound"], report["faults"], report["undisturbed_s"]) == (True, [], 20.0)
    assert not campaign.report(3, line, 1.0)["sound"]
    campaign.alike["shared_by_2"]["faults"].append("records of run-0 differ")
    report = campaign.report(2, line, 1.0)
    assert (report["sound"], report["faults"]) == (False, ["shared_by_2: records of run-0 differ"])
    file = tmp_path / "new" / "report.json"
    chaos.campaign.write_report(file, report)
    assert json.loads(file.read_text(encoding="utf-8")) == report
