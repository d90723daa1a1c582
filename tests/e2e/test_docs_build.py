"""The pages of docs/ build without a warning, and lead to each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")
pytest.importorskip("furo")


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-n",
        "-W",
        "--keep-going",
        "-b",
        "html",
        "-d",
        str(tmp_path / "seen"),
    ]
    done = subprocess.run(
        [*command, "docs", str(tmp_path / "html")], cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    for page in ("first-steps/author.html", "attacks/README.html", "adr/README.html", "statistics.html"):
        assert f'href="{page}"' in index
        assert (tmp_path / "html" / page).is_file()
    assert "<math" in (tmp_path / "html" / "statistics.html").read_text(encoding="utf-8")
    python = (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    for name in ("mibench.defense.Defense", "mibench.victim.WhiteBoxVictim", "mibench.statistics.holm"):
        assert f'id="{name}"' in python
