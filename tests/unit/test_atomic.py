"""What killed processes have written aside goes, and what others are writing stays."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mibench.atomic import sweep, write_atomically
from mibench.benchmark import bench
from mibench.plan import build_plan
from mibench.report.atomic import write_text
from mibench.suite import Suite

DAY_S = 24 * 3600


def aside(file: Path, days: float) -> Path:
    """A file that was written aside so long ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    at = time.time() - days * DAY_S
    os.utime(file, (at, at))
    return file


def test_a_sweep_takes_old_files_that_were_written_aside_and_no_others(tmp_path: Path) -> None:
    gone = [
        aside(tmp_path / name, 8)
        for name in ("records.jsonl.tmp-7-ab", "cells/ab/.index.html.tmp-x", "status.json.tmp-7")
    ]
    kept = [
        aside(tmp_path / "records.jsonl", 8),
        aside(tmp_path / "costs.jsonl.tmp-7-ab", 6),
        aside(tmp_path / "tmp-7.txt", 8),
    ]
    sweep(tmp_path)
    assert [file.exists() for file in gone] == [False] * 3
    assert [file.exists() for file in kept] == [True] * 3
    sweep(tmp_path / "nothing there")


def test_every_writer_leaves_names_that_a_sweep_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> None:
        names.append(self.name)
        replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    write_atomically(tmp_path / "one", b"")
    write_text(tmp_path / "two", "")
    assert len(names) == 2
    assert all(".tmp-" in name for name in names)


def test_a_run_sweeps_its_results_folder(make_suite: Callable[..., Suite], tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    old = aside(tmp_path / plan.suite.name / "cells" / ".index.html.tmp-x", 8)
    fresh = aside(tmp_path / plan.suite.name / "costs.jsonl.tmp-1-ab", 0)
    bench(plan, out=tmp_path, jobs=1, device="cpu")
    assert not old.exists()
    assert fresh.exists()
