"""Tables must come up fast and where torch is not installed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from mibench.report import comparison

MODULES = ("write", "table", "plot", "grid", "site", "tiles", "table_text", "table_latex", "table_html",
           "curves", "curve_plot", "equal_utility", "ranks", "risk", "risk_plot", "evidence",
           "evidence_page", "why", "cell_diff", "find_cell", "flag_meanings")  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the code."""
    script = f"{code}\nimport sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_part_of_the_report_imports_torch() -> None:
    code = "\n".join(f"import mibench.report.{name}" for name in MODULES)
    assert "torch" not in loaded_by(code)


def test_a_table_needs_neither_matplotlib_nor_jinja() -> None:
    assert not {"matplotlib", "jinja2", "torch"} & loaded_by("from mibench.report import comparison")


@pytest.mark.slow
def test_ten_thousand_records_are_compared_in_two_seconds(make_record: Callable[..., Any]) -> None:
    attacks = [(f"attack-{i}", "score", i >= 40, 0.4) for i in range(50)]
    defenses = [(f"defense-{i}", "training", 0.9, 0.5) for i in range(40)]
    records = [make_record(a, d, seed=s) for a in attacks for d in defenses for s in range(5)]
    start = time.process_time()
    table = comparison(records)
    table.to_rich()
    assert time.process_time() - start < 2
    assert len(table.entries) == 50 * 40 * 4
