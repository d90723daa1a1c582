"""The page and the figure of a profile, from JSON values alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mibench.expected_flops import Expected
from mibench.report.expected_page import expected_page
from mibench.report.profile_page import figure, page, scaled, write_page


def row(stage: str, plugin: str = "", **changes: Any) -> dict[str, Any]:
    values = {
        **{"stage": stage, "plugin": plugin, "tasks": 2, "counted": 2, "wall_s": 30.0, "cpu_s": 28.0},
        **{"peak_mib": 512.4, "flops": 2.5e12, "flops_per_s": 9e10, "mfu": 0.25, "work": 1e12},
    }
    return {**values, **changes}


def values(**changes: Any) -> dict[str, Any]:
    found = {
        **{"suite": "small", "missing": 0, "idle": [], "schema": 1},
        "machine": {"device": "cpu", "torch": "2.6.0", "platform": "Linux x86_64"},
        "peaks": {"float32": {"flops_per_s": 3.6e11, "source": "measured"}},
        "stages": [
            row("train", wall_s=90.0),
            row("measure", mfu=None, flops_per_s=None, counted=0, cpu_s=None),
        ],
        "plugins": [row("train", "gan_id", wall_s=90.0), row("measure", "measure")],
        "total": row("", tasks=4, counted=4, wall_s=120.0),
    }
    return {**found, **changes}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0, "0 F"), (999.0, "999 F"), (1e6, "1 MF"), (2.5e16, "25 PF"), (3e21, "3e+03 EF")],
)
def test_numbers_have_three_digits_and_a_prefix(value: float | None, text: str) -> None:
    assert scaled(value, "F") == text


def test_the_page_has_a_row_a_stage_and_a_plugin_and_their_sum() -> None:
    lines = page(values()).splitlines()
    assert "cpu, torch 2.6.0, Linux x86\\_64. Peaks: float32 360 GFLOP/s (measured)." in lines
    assert "| train | 2 | 90.0 | 75.0 % | 28.0 | 2.5 T | 90 G | 25.0 % | 512 |" in lines
    assert "| measure | 2 | 30.0 | 25.0 % | n/a | 2.5 T of 0 | n/a | n/a | 512 |" in lines
    assert "| train | gan\\_id | 2 | 90.0 | 75.0 % | 28.0 | 2.5 T | 90 G | 25.0 % | 512 |" in lines
    assert "| all |  | 4 | 120.0 | 100.0 % | 28.0 | 2.5 T | 90 G | 25.0 % | 512 |" in lines
    assert "idle" not in page(values())
    assert "never run" not in page(values())


def test_waiting_and_missing_tasks_are_told_where_there_are_any() -> None:
    idle = [{"stage": "train", "plugin": "gan_id", "title": "x", "idle": 0.125, "window_s": 1.0}]
    text = page(values(idle=idle, missing=3))
    assert "## Share of time between operations of torch" in text
    assert "| train | gan\\_id | 1.00 | 12.5 % |" in text
    assert "3 tasks have no seconds on this device" in text
    on_card = {"device": "NVIDIA H100", "torch": "2.6.0", "platform": "Linux x86_64"}
    assert "## Share of time without a kernel" in page(values(idle=idle, machine=on_card))


def widths(axes: Axes) -> list[float]:
    return [bar.get_width() for bar in axes.patches if isinstance(bar, Rectangle)]


def test_the_figure_has_a_bar_a_plugin_in_both_panels() -> None:
    left, right = figure(values()).axes
    assert widths(left) == [90.0, 30.0]
    assert widths(right) == [25.0, 25.0]
    assert [label.get_text() for label in left.get_yticklabels()] == ["train gan_id", "measure measure"]


def test_files_are_the_same_again(tmp_path: Path) -> None:
    files = write_page(values(), tmp_path)
    assert [file.name for file in files] == ["profile.md", "profile.png", "profile.pdf"]
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_page(values(), tmp_path)] == before


def test_what_a_suite_would_compute_and_the_share_of_the_peak_that_a_time_asks_for() -> None:
    rows = [
        Expected("train", 3, 3e15, "bfloat16", 30.0),
        Expected("measure", 1, 1e15, "float32", 60.0),
        Expected("all", 4, 4e15, "", 90.0),
    ]
    lines = expected_page(rows, card="A Card", minutes=15).splitlines()
    assert lines[0].endswith("| seconds at the peak of A Card |")
    assert "| train | 3 | 3 P | 75.0 % | bfloat16 | 30.0 |" in lines
    assert "| all | 4 | 4 P | 100.0 % |  | 90.0 |" in lines
    assert lines[-1] == "All in 15 minutes is an MFU of 10.0 %."
