"""The script on the printed focal loss: its numbers are those of the mathematics, its picture is drawn."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


def script() -> Any:
    spec = importlib.util.spec_from_file_location("focal", ROOT / "docs" / "focal.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FOCAL = script()


@pytest.mark.parametrize("gamma", FOCAL.GAMMAS)
def test_the_loss_is_largest_inside(gamma: float) -> None:
    q, value = FOCAL.peak(gamma)
    assert q == pytest.approx(math.exp(-1 / gamma), abs=1e-3)
    assert value == pytest.approx(1 / (gamma * math.e), abs=1e-5)


@pytest.mark.parametrize("gamma", FOCAL.GAMMAS)
@pytest.mark.parametrize("start", FOCAL.STARTS)
def test_descent_ends_there_from_both_sides(start: float, gamma: float) -> None:
    rest = math.exp(-1 / gamma)
    path = FOCAL.descent("focal_literal", start, gamma=gamma)
    assert min(FOCAL.STARTS) < rest < max(FOCAL.STARTS)
    assert path[0] == start
    assert path[-1] == pytest.approx(rest, abs=1e-3)


@pytest.mark.parametrize("variant", ["ce", "focal_detached", "focal_neg"])
@pytest.mark.parametrize("start", FOCAL.STARTS)
def test_descent_on_the_others_falls_at_every_step(variant: str, start: float) -> None:
    path = FOCAL.descent(variant, start, steps=200)
    assert all(after < before for before, after in itertools.pairwise(path))
    assert path[-1] < 0.2


def test_the_repaired_push_is_the_fastest_where_fakes_start() -> None:
    after = {variant: FOCAL.descent(variant, 0.95, steps=10)[-1] for variant in FOCAL.VARIANTS}
    assert min(after, key=lambda variant: after[variant]) == "focal_neg"


def test_the_picture_and_the_numbers_tell_the_same(tmp_path: Path) -> None:
    paths = {
        (variant, start): FOCAL.descent(variant, start) for variant in FOCAL.VARIANTS for start in (0.95, 0.3)
    }
    text = FOCAL.numbers(paths)
    assert "| 2 | 0.607 | 0.607 | 0.1839 |" in text
    rows = [line.split("|")[1:] for line in text.splitlines() if line.startswith("| focal_literal")]
    assert [row[-2].strip() for row in rows] == ["0.6065", "0.6065"]
    file = tmp_path / "figures" / "focal.png"
    FOCAL.draw(paths, file)
    with Image.open(file) as drawn, Image.open(FOCAL.PICTURE) as kept:
        assert drawn.size == kept.size
        assert drawn.size[0] > 1000
        assert len(drawn.convert("RGB").getcolors(2**16) or []) > 50
