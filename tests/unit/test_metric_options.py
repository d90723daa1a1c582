"""Settings of metrics in a suite: where they go, what is refused, and what the key of a user's file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mibench.errors import MibenchError, SuiteError
from mibench.plan import build_plan
from mibench.suite import Suite, parse_suite
from mibench.weights import weights_digest

RAW: dict[str, Any] = {
    "name": "small",
    "metrics": ["aa", "kid", "lpips"],
    "data": {"private": 4, "public": 4, "defender": 4, "size": 32},
    "victim": {"net": "small_vgg", "width": 8},
    "judge": {"net": "small_resnet", "width": 8},
    "targets": {"protected": 1, "bystanders": 1, "attacked": 2, "images": 2},
    "attacks": {"mean_face": {}},
    "defenses": {"none": {}},
}


def suite(folder: Path, **tables: Any) -> Suite:
    return parse_suite({**RAW, "metric": tables}, where="suite small.toml", folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.pt").write_bytes(b"some weights")
    return tmp_path


def measures(suite: Suite) -> list[Any]:
    return [task for task in build_plan(suite).tasks.values() if task.stage == "measure"]


def test_fields_of_a_metric_are_set(folder: Path) -> None:
    made = suite(folder, kid={"subset_size": 7}, lpips={"weights": "net.pt", "net": "vgg"})
    assert [metric.name for metric in made.metrics] == ["aa", "kid", "lpips"]
    assert made.metrics[1].params() == {"subset_size": 7, "subsets": 100}
    assert made.metrics[2].params() == {"weights": str(folder / "net.pt"), "net": "vgg"}


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"kid": {"size": 3}}, r"suite small\.toml, metric\.kid: no field 'size'.*Its fields: subset_size"),
        ({"kid": {"subset_size": 1}}, "metric.kid: kid: subset_size must be >= 2"),
        ({"kid": 3}, r"metric\.kid: must be a table, got 3"),
        ({"recall": {}}, r"metric\.recall: is not among the metrics \(aa, kid, lpips\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    tables: dict[str, Any], words: str, folder: Path
) -> None:
    with pytest.raises(SuiteError, match=words):
        suite(folder, **tables)


def test_metric_must_be_a_table(folder: Path) -> None:
    with pytest.raises(SuiteError, match=r"suite small\.toml, metric: must be a table, got 'kid'"):
        parse_suite({**RAW, "metric": "kid"}, where="suite small.toml", folder=folder)


def test_keys_hold_the_digest_and_tasks_carry_the_path_beside_it(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    (elsewhere / "copy.bin").write_bytes((folder / "net.pt").read_bytes())
    (one,) = measures(suite(folder, lpips={"weights": "net.pt"}))
    (other,) = measures(suite(elsewhere, lpips={"weights": "copy.bin"}))
    assert one.key == other.key
    assert one.params["metrics"][2]["params"] == {"weights": weights_digest(folder / "net.pt"), "net": "alex"}
    assert one.locator["paths"] == {"lpips": {"weights": str(folder / "net.pt")}}
    assert str(folder) not in str(one.description())


def test_another_file_gives_another_key(folder: Path) -> None:
    (one,) = measures(suite(folder, lpips={"weights": "net.pt"}))
    (folder / "more.pt").write_bytes(b"other weights")
    (other,) = measures(suite(folder, lpips={"weights": "more.pt"}))
    assert one.key != other.key


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({}, r"metric 'lpips': field 'weights' is empty\. Give the path of a file in \[metric\.lpips\]"),
        ({"lpips": {"weights": "none.pt"}}, r"none\.pt: cannot be read \(No such file"),
    ],
)
def test_a_plan_without_the_file_is_refused(tables: dict[str, Any], words: str, folder: Path) -> None:
    with pytest.raises(MibenchError, match=words):
        build_plan(suite(folder, **tables))
