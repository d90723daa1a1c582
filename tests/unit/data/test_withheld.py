"""Images of people whose terms forbid it stand nowhere in a run's results but in `withheld/`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mibench.benchmark import Bench, bench
from mibench.data.dividing import Division, divide, write_split
from mibench.data.prepared import INFO, PreparedSet
from mibench.plan import build_plan
from mibench.suite import load_suite

from .make_set import make_set, toy_pixels

SUITE = """
name = "mine"
metrics = ["aa"]
[data]
kind = "prepared"
split = "toy/splits/default.json"
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 4
recipe = { epochs = 1 }
[judge]
net = "softmax_regression"
recipe = { epochs = 1 }
[attacks.mean_face]
[defenses.none]
"""
IMAGES = {"got.png", "nearest.png", "real.png", "reconstructions.png", "cell.json"}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    who = [f"p{person}" for person in range(7) for _ in range(3)]
    one = PreparedSet(make_set(tmp_path, toy_pixels(21), who))
    file = one.root / "splits" / "default.json"
    write_split(divide(Division(private=3, public=2, defender=2), one, one, one, file=file), file)
    (tmp_path / "mine.toml").write_text(SUITE, encoding="utf-8")
    return tmp_path / "mine.toml"


def run(suite: Path, *, may_publish: bool) -> Bench:
    info = suite.parent / "toy" / INFO
    raw = json.loads(info.read_text(encoding="utf-8"))
    info.write_text(json.dumps({**raw, "may_publish": may_publish}), encoding="utf-8")
    return bench(build_plan(load_suite(suite)), out=suite.parent / "results", jobs=1, device="cpu")


def pictures(folder: Path) -> set[str]:
    """Images of faces, with what places them: of cells, and grids of them."""
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.name in IMAGES or file.name.startswith("grid-")
    }


def test_images_lie_in_withheld_alone(suite: Path) -> None:
    done = run(suite, may_publish=False)
    found = pictures(done.folder)
    assert {Path(name).name for name in found} >= IMAGES
    assert all(name.startswith("withheld/") for name in found)
    subprocess.run(["git", "init", "--quiet", str(suite.parent)], check=True)
    subprocess.run(["git", "-C", str(suite.parent), "add", "results"], check=True)
    listed = subprocess.run(
        ["git", "-C", str(suite.parent), "ls-files"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert any(name.endswith("evidence.json") for name in listed)
    assert not [name for name in listed if "withheld" in name]


def test_images_go_when_the_terms_no_longer_allow_them(suite: Path) -> None:
    shown = pictures(run(suite, may_publish=True).folder)
    assert any(name.startswith("figures/grid-") for name in shown)
    assert not [name for name in shown if name.startswith("withheld/")]
    hidden = pictures(run(suite, may_publish=False).folder)
    assert {Path(name).name for name in hidden} == {Path(name).name for name in shown}
    assert all(name.startswith("withheld/") for name in hidden)
