import json
import pickle
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mibench import worker
from mibench.errors import DeviceError
from mibench.executors import Pool
from mibench.task import Task
from mibench.worker import Job, Outcome, failure_of, find_device, peak_mib, reset_peak


def task() -> Task:
    return Task(stage="invert", plugin="toy", params={}, inputs={}, seed=0, noise="toy", title="invert toy")


def test_cpu_is_always_there() -> None:
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99"])
def test_missing_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"^device '{name}': is .*Take 'cpu'"):
        find_device(name)


def test_failure_keeps_notes_and_trace() -> None:
    error = ValueError("too large")
    error.add_note("metric 'fid'")
    failure = failure_of(task(), error)
    assert failure.to_json() == {
        "stage": "invert",
        "type": "ValueError",
        "message": "metric 'fid': too large",
    }
    assert "ValueError: too large" in failure.trace


def test_reports_of_a_worker_reach_the_main_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int, dict[str, float]]] = []
    job = Job(task(), tmp_path, "cpu")
    pool = Pool(2, lambda _job, done, total, values: heard.append((done, total, values)))
    clock = iter([1.0, 1.1, 2.0])
    # not the function itself, which the clocks of the pool ask too
    monkeypatch.setattr("mibench.worker.time", SimpleNamespace(monotonic=lambda: next(clock)))
    report = worker._FileProgress(job.progress_file)
    report(1, 9, {"loss": 0.5})
    pool._pass_progress(job)
    report(2, 9, {"loss": 0.4})  # too soon after the first
    pool._pass_progress(job)
    report(3, 9, {"loss": 0.3})
    pool._pass_progress(job)
    assert heard == [(1, 9, {"loss": 0.5}), (3, 9, {"loss": 0.3})]
    assert json.loads(job.progress_file.read_text(encoding="utf-8")) == [3, 9, {"loss": 0.3}]


def test_job_that_a_broken_pool_refuses_counts_as_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise BrokenProcessPool("a worker died")

    monkeypatch.setattr("loky.get_reusable_executor", lambda **_: SimpleNamespace(submit=refuse))
    pool, job = Pool(2, lambda *_: None), Job(task(), tmp_path, "cpu")
    worker._FileProgress(job.progress_file)(1, 2, {})  # what the worker of a killed run said
    pool.submit(job)
    assert not job.progress_file.exists()
    worker._FileProgress(job.progress_file)(1, 2, {})  # what the dead worker said
    assert pool.poll() == [(job, None)]
    assert pool.poll() == []
    assert not job.progress_file.exists()


def test_outcome_that_cannot_travel_is_a_failure(tmp_path: Path) -> None:
    future: Future[Outcome | None] = Future()
    future.set_exception(pickle.PicklingError("no way"))
    pool, job = Pool(2, lambda *_: None), Job(task(), tmp_path, "cpu")
    pool.flying[future] = job
    ((ended, outcome),) = pool.poll()
    assert ended is job
    assert outcome is not None
    assert outcome.failure is not None
    assert outcome.failure.type == "PicklingError"


def test_progress_that_cannot_be_written_disturbs_nothing(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("a file in the way", encoding="utf-8")
    worker._FileProgress(Job(task(), tmp_path, "cpu").progress_file)(1, 2, {})


def test_peak_memory_is_measured_anew() -> None:
    cpu = torch.device("cpu")
    reset_peak(cpu)
    before = peak_mib(cpu)
    block = torch.ones(2**26)  # 256 MiB, more than an allocator keeps of what earlier tests freed
    during = peak_mib(cpu)
    assert float(block[0]) == 1
    assert during - before > 128
