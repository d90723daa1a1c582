"""Plugins are found in a checkout, when installed, and in a wheel, beside foreign folders of their names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("attacks", "defenses")
PARTS = ("mibench", *FAMILIES, "pyproject.toml", "README.md", "LICENSE")
SCRIPT = """
import json, mibench.registry as r
names = {"attacks": list(r.list_attacks()), "defenses": list(r.list_defenses())}
print(json.dumps({"file": r.__file__, **names}))
"""


def plugin_stems(family: str) -> list[str]:
    return sorted(file.stem for file in (ROOT / family).glob("*.py") if not file.name.startswith("_"))


def seen_from(folder: Path, *paths: Path) -> dict[str, object]:
    """What a fresh interpreter, started in a folder with more import paths, finds."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of the repository that make the package, without the version history."""
    folder = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=checkout, capture_output=True, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with its own attacks and defenses, as another research checkout has them."""
    for family in FAMILIES:
        (tmp_path / family).mkdir()
        for name in ("__init__", "theirs", *plugin_stems(family)):
            (tmp_path / family / f"{name}.py").write_text("raise ImportError('a foreign plugin')\n")
    return tmp_path


def test_the_wheel_carries_every_file_under_one_name(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {name for name in inside if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in package} == {"mibench"}
    of_core = {file.relative_to(ROOT) for file in (ROOT / "mibench").rglob("*") if file.is_file()}
    of_families = {file.relative_to(ROOT) for family in FAMILIES for file in (ROOT / family).glob("*.py")}
    wanted = {f.as_posix() for f in of_core} | {f"mibench/{f.as_posix()}" for f in of_families}
    assert {name for name in wanted if "__pycache__" not in name} <= package
    assert "mibench/py.typed" in package


def test_an_unpacked_wheel_finds_its_plugins_and_no_foreign_ones(
    wheel: Path, foreign: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    # foreign wheels unpack their top-level folders beside ours; without a pyproject.toml they do not count
    shutil.copytree(foreign / "attacks", site / "attacks")
    found = seen_from(foreign, site)
    assert str(found["file"]).startswith(str(site))
    assert {family: found[family] for family in FAMILIES} == {f: plugin_stems(f) for f in FAMILIES}


def test_a_checkout_needs_no_installation_and_a_new_file_is_a_new_attack(checkout: Path) -> None:
    new = checkout / "attacks" / "a_new_one.py"
    source = (ROOT / "attacks" / "mean_face.py").read_text(encoding="utf-8")
    new.write_text(source.replace('"mean_face"', '"a_new_one"'), encoding="utf-8")
    try:
        found = seen_from(checkout)
    finally:
        new.unlink()
    assert str(found["file"]).startswith(str(checkout))
    assert found["attacks"] == sorted([*plugin_stems("attacks"), "a_new_one"])


def test_the_installed_package_finds_its_plugins_from_anywhere(foreign: Path) -> None:
    try:
        distribution("mibench")
    except PackageNotFoundError:
        pytest.skip("mibench runs from a checkout and is not installed")
    found = seen_from(foreign)
    assert {family: found[family] for family in FAMILIES} == {f: plugin_stems(f) for f in FAMILIES}
