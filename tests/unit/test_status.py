"""What a run says of itself: whole files, little time, and never in the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mibench.cli import main
from mibench.errors import RecordError
from mibench.plan import Plan, build_plan
from mibench.recording import Failure, failed_record
from mibench.runner import CellDone, TaskDone, TaskProgress, TaskStarted
from mibench.status import StatusFile
from mibench.suite import Suite
from mibench.watching import FILE, find_status, lines, look
from mibench.worker import find_device

MakeSuite = Callable[..., Suite]


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    return build_plan(make_suite())


def status_file(plan: Plan, folder: Path, **options: Any) -> StatusFile:
    return StatusFile(plan, folder, jobs=2, device="cpu", todo=set(plan.tasks), **options)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return found


def write(folder: Path, plan: Plan, **changes: object) -> Path:
    """The file of a running run, with other values."""
    value = {**status_file(plan, folder).snapshot("running"), **changes}
    (folder / FILE).write_text(json.dumps(value), encoding="utf-8")
    return folder / FILE


def gone_pid() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_it_tells_how_a_run_stands(plan: Plan, tmp_path: Path) -> None:
    first, second, *_ = plan.tasks.values()
    cell = plan.cells[0]
    status = status_file(plan, tmp_path, left_s=lambda: 30.0, budget_s=100.0, left_out=3)
    with status:
        status(TaskStarted(first))
        status(TaskDone(first, "ran", 1.0))
        status(TaskStarted(second))
        status(TaskProgress(second, 1, 4, {"loss": 0.5, "wild": float("nan")}))
        record = failed_record(plan, cell, Failure("invert", "ValueError", "no luck"), find_device("cpu"))
        status(CellDone(cell, record))
        status._write("running")
        found = read(tmp_path)
        text = "\n".join(lines(look(tmp_path / FILE)))
    assert found["state"] == "running"
    assert found["pid"] == os.getpid()
    assert found["tasks"] == {"done": 1, "total": len(plan.tasks)}
    assert found["cells"] == {"done": 1, "total": 1, "ok": 0, "failed": 1, "blocked": 0}
    assert found["running"][0]["losses"] == {"loss": 0.5, "wild": None}
    assert sum(found["queue"].values()) == len(plan.tasks) - 2
    assert found["eta_s"] == 30.0
    assert found["budget"]["left_out"] == 3
    assert f"at work: {second.title} 25 %  loss 0.5  wild not finite" in text
    assert "about 30 s left" in text
    assert "3 cells left out for it" in text
    assert "toy_scores on none (black-box, seed 0): failed: no luck" in text
    assert read(tmp_path)["state"] == "done"
    assert read(tmp_path)["eta_s"] is None


def test_it_says_how_a_run_ended(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), status_file(plan, tmp_path):
        raise KeyboardInterrupt
    assert read(tmp_path)["state"] == "stopped"
    with pytest.raises(OSError, match="full"), status_file(plan, tmp_path):
        raise OSError("full")
    assert read(tmp_path)["state"] == "failed"
    assert read(tmp_path)["message"] == "OSError: full"
    with status_file(plan, tmp_path) as status:
        status.stopped_for("the budget was spent")
    assert lines(look(tmp_path / FILE))[0].startswith("toy: stopped (the budget was spent).")


def test_a_folder_that_cannot_be_written_to_stops_nothing(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be", encoding="utf-8")
    with status_file(plan, tmp_path / "taken") as status:
        status(TaskStarted(next(iter(plan.tasks.values()))))
    assert (tmp_path / "taken").is_file()


def test_writing_takes_at_most_a_thousandth_of_the_time(plan: Plan, tmp_path: Path) -> None:
    with status_file(plan, tmp_path) as status:
        status.spent_s = 0.0
        status._write("running")
        assert status.every_s >= 1000 * status.spent_s
        assert status.every_s >= 1.0
    assert not list(tmp_path.glob("*.tmp-*"))


def test_a_sign_comes_by_itself(plan: Plan, tmp_path: Path) -> None:
    status = status_file(plan, tmp_path)
    with status:
        status.every_s = 0.01
        before = read(tmp_path)["updated"]
        deadline = time.monotonic() + 20
        while read(tmp_path)["updated"] == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert read(tmp_path)["updated"] > before


def test_a_process_that_is_gone_is_seen(plan: Plan, tmp_path: Path) -> None:
    old = time.time() - 180
    sight = look(write(tmp_path, plan, pid=gone_pid(), updated=old))
    assert sight.is_gone
    assert sight.is_over
    assert "stopped without a word, last sign 3 min ago" in lines(sight)[0]


def test_a_process_elsewhere_is_judged_by_its_last_sign(plan: Plan, tmp_path: Path) -> None:
    host = f"not-{socket.gethostname()}"
    assert not look(write(tmp_path, plan, host=host, pid=gone_pid())).is_gone
    assert look(write(tmp_path, plan, host=host, updated=time.time() - 180)).is_gone
    # of a slow disk signs come rarely, and the file says so
    assert not look(write(tmp_path, plan, host=host, updated=time.time() - 180, every_s=100.0)).is_gone


def test_a_run_that_ended_is_not_gone(plan: Plan, tmp_path: Path) -> None:
    sight = look(write(tmp_path, plan, state="done", pid=gone_pid(), updated=time.time() - 9999))
    assert sight.is_over
    assert not sight.is_gone


def test_the_latest_run_is_found_below_a_folder(plan: Plan, tmp_path: Path) -> None:
    for age, name in ((100, "old"), (0, "new")):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name, plan)
        os.utime(file, (time.time() - age, time.time() - age))
    assert find_status(tmp_path) == tmp_path / "new" / FILE
    assert find_status(tmp_path / "old") == tmp_path / "old" / FILE
    with pytest.raises(RecordError, match=r"no run has left a status\.json there"):
        find_status(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "running"}'])
def test_a_broken_file_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="cannot be read"):
        look(tmp_path / FILE)


def test_a_file_that_lacks_a_field_is_told(plan: Plan, tmp_path: Path) -> None:
    sight = look(write(tmp_path, plan, cells=None))
    with pytest.raises(RecordError, match="lacks or garbles a field"):
        lines(sight)


def test_watch_prints_once_or_until_the_end(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, plan)
    assert main(["watch", str(tmp_path), "--once"]) == 0
    assert capsys.readouterr().out.startswith("toy: running. 0 of 1 cells")
    write(tmp_path, plan, state="done")
    assert main(["watch", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("toy: done.")
    assert main(["watch", str(tmp_path / "nowhere")]) == 2


def test_watch_needs_no_torch(plan: Plan, tmp_path: Path) -> None:
    write(tmp_path, plan, state="done")
    code = (
        "import sys; from mibench.cli import main; "
        f"assert main(['watch', {str(tmp_path)!r}, '--once']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
