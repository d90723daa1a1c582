"""A type checker rejects an attack that reaches beyond its access level."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "tests" / "typing" / "black_box_reaches_further.py"

# torch counts as Any, because reading it anew takes a minute; our own files are checked elsewhere
SETTINGS = """
[mypy]
strict = true
allow_subclassing_any = true
[mypy-mibench.*]
ignore_errors = true
[mypy-torch.*,pydantic.*,pydantic_core.*]
follow_imports = skip
ignore_missing_imports = true
"""


def errors_of_mypy(file: Path, scratch: Path) -> dict[int, str]:
    """What mypy says about a file, by line."""
    settings = scratch / "mypy.ini"
    settings.write_text(SETTINGS)
    options = ["--config-file", str(settings), "--cache-dir", str(scratch / "cache"), "--no-pretty"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(rf"{file.name}:(\d+): error: (.*)", done.stdout)
    assert done.stdout.count(": error: ") == len(found), done.stdout + done.stderr
    return {int(line): text for line, text in found}


def test_mypy_rejects_exactly_the_lines_that_reach_further(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy comes with the dev extra")
    lines = enumerate(FILE.read_text().splitlines(), start=1)
    marks = {number: re.search(r"# rejected: ([\w-]+) (\w+)", line) for number, line in lines}
    expected = {number: mark.groups() for number, mark in marks.items() if mark}
    found = errors_of_mypy(FILE, tmp_path)
    assert found.keys() == expected.keys()
    for line, (code, word) in expected.items():
        assert found[line].endswith(f"[{code}]")
        assert f'"{word}"' in found[line]
