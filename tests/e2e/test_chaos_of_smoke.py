"""The whole of `smoke` under kills, as `make chaos` does it, with fewer of them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = 12
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.slow
def test_kills_change_no_record_of_smoke_and_leave_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--kills", str(KILLS), "--out", str(tmp_path)],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["sound"]
    assert report["faults"] == []
    assert report["kills"] == KILLS
    assert all(one["records_equal"] for one in report["storms"].values())
    assert sum(sum(one["killed_at"].values()) for one in report["storms"].values()) == KILLS
    has_ray = importlib.util.find_spec("ray") is not None
    assert set(report["undisturbed"]) == {"shared_by_2", "shared_by_4"} | (
        {"ray_with_2_workers"} if has_ray else set()
    )
    for one in report["undisturbed"].values():
        assert one["each_exactly_once"]
        assert one["records_equal"]
        assert sum(one["by_command"]) == report["tasks"]
