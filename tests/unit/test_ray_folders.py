"""The folder of a Ray whose process was killed goes with the next Ray; that of a live one stays."""

import subprocess
import sys
from pathlib import Path

import pytest

from mibench.ray_cluster import sweep_folders

HOLDS = """
import sys
from pathlib import Path
from mibench.ray_cluster import _held
with _held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")


def test_a_folder_is_swept_when_its_process_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "mibench-ray-1-ab"
    others = [tmp_path / "mibench-ray-2-no-lock", tmp_path / "ray"]
    for place in (folder, *others):
        (place / "session").mkdir(parents=True)
    (tmp_path / "ray" / "lock").touch()
    (tmp_path / "mibench-ray-3-link").symlink_to(tmp_path / "ray")
    (folder / "session" / "log").touch()
    (folder / "latest").symlink_to(folder / "session")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        sweep_folders(tmp_path)
        assert (folder / "session").is_dir()
        process.kill()
        process.wait()
    sweep_folders(tmp_path)
    assert not folder.exists()
    assert all((place / "session").is_dir() for place in others)
