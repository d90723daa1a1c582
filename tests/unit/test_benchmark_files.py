"""Runs of the benchmarks are condensed into the committed form, and compared line by line."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "results" / "benchmarks"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("compare")


def one(name: str, seconds: dict[str, float], *, module: str = "test_growth", **extra: Any) -> dict[str, Any]:
    stats = {"max": 3.0, "mean": 2.0, "median": 2.0, "min": 1.0, "rounds": 3, "stddev": 0.5, "data": [1.0]}
    info = {"cpu_s": seconds, **extra} if seconds else extra
    return {"name": name, "fullname": f"benchmarks/{module}.py::{name}", "extra_info": info, "stats": stats}


def raw(*benchmarks: dict[str, Any]) -> dict[str, Any]:
    machine = {"node": "secret", "machine": "m", "python_version": "3", "system": "s", "cpu": {"count": 2}}
    head = {"datetime": "now", "version": "5", "commit_info": {"id": "c"}, "machine_info": machine}
    return {**head, "benchmarks": list(benchmarks)}


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_committed_files_are_written_as_condense_writes(
    compare: ModuleType, file: Path, tmp_path: Path
) -> None:
    compare.write(tmp_path / "again.json", compare.read(file))
    assert (tmp_path / "again.json").read_bytes() == file.read_bytes()


def test_condensed_keeps_numbers_and_no_name_of_the_machine(compare: ModuleType, tmp_path: Path) -> None:
    before, after = tmp_path / "raw.json", tmp_path / "out.json"
    before.write_text(json.dumps(raw(one("a", {"10": 0.1, "9": 0.2}))), encoding="utf-8")
    assert compare.main(["--condense", str(before), str(after)]) == 0
    found = json.loads(after.read_text(encoding="utf-8"))
    assert found["benchmarks"][0]["extra_info"]["cpu_s"] == {"10": 0.1, "9": 0.2}
    assert found["benchmarks"][0]["stats"] == {"rounds": 3}
    assert found["machine"] == {"machine": "m", "python_version": "3", "system": "s", "cpu": {"count": 2}}
    assert "secret" not in after.read_text(encoding="utf-8")


def test_a_folder_gets_one_file_a_module(compare: ModuleType, tmp_path: Path) -> None:
    both = raw(one("a", {"1": 0.1}), one("b", {}, module="test_input_pipeline"))
    (tmp_path / "raw").write_text(json.dumps(both), encoding="utf-8")
    assert compare.condense(tmp_path / "raw", tmp_path) == [tmp_path / "growth.json", tmp_path / "data.json"]
    (other,) = compare.read(tmp_path / "data.json")["benchmarks"]
    assert other["name"] == "b"
    assert other["stats"] == {"max": 3.0, "mean": 2.0, "median": 2.0, "min": 1.0, "rounds": 3, "stddev": 0.5}


def test_lines_of_a_comparison(compare: ModuleType) -> None:
    old = raw(one("a", {"9": 9.0, "10": 1.0}, exponent=1.0), one("gone", {}))
    new = raw(one("a", {"9": 9.0, "10": 3.0}, exponent=2.0), one("fresh", {}))
    _, a, fresh, gone = compare.compared(old, new)
    assert a.split() == ["a", "1", "3", "3.00", "2.00", "<-", "1.00"]
    assert fresh.split() == ["fresh", "new", "2"]
    assert gone.split() == ["gone", "gone"]


def test_a_folder_is_all_its_files(compare: ModuleType, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.json").write_text(json.dumps(raw(one(name, {}))), encoding="utf-8")
    assert [part["name"] for part in compare.read(tmp_path)["benchmarks"]] == ["a", "b"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"benchmarks": [{}]}'])
def test_other_files_are_refused(
    compare: ModuleType, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "odd.json"
    file.write_text(content, encoding="utf-8")
    assert compare.main([str(file), str(file)]) == 2
    assert "odd.json" in capsys.readouterr().err


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_slope_is_the_exponent(monkeypatch: pytest.MonkeyPatch, exponent: float) -> None:
    spec = importlib.util.spec_from_file_location("growing", ROOT / "benchmarks" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    growing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(growing)
    found = growing.slope({size: 0.01 * size**exponent for size in (10, 100, 1000)})
    assert math.isclose(found, exponent, abs_tol=1e-12)
