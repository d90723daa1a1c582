"""Golden numbers: what counts as the same, as near enough, as departed, and as made for something else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mibench import golden
from mibench.cli import main
from mibench.errors import RecordError
from mibench.golden import Snapshot, compare, read_golden, take, write_golden
from mibench.golden.snapshot import PROBES, Outcome, Print, here
from mibench.plan import build_plan
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
ESTIMATE = {"value": 0.5, "low": 0.2, "high": 0.8, "count": 32}


def printed(stage: str, *, digest: str = "d", accuracy: float | None = None, **kinds: list[float]) -> Print:
    found = {kind: {"count": len(probes), "probes": probes} for kind, probes in kinds.items()}
    return Print(stage, f"{stage} of x", f"key of {stage}", digest, found, accuracy)


PRINTS = (
    printed("train", accuracy=0.5, float32=[1.0, 2.0, 2.0], int64=[3.0]),
    printed("data", uint8=[10.0, 200.0], int64=[0.0, 1.0]),
    printed("invert", uint8=[0.0, 255.0]),
)
CELL = Outcome(
    "ami on none",
    "ok",
    {"aa": ESTIMATE, "fid": {**ESTIMATE, "value": 20.0}},
    {"3": "11111111"},
    ("key of invert",),
)
GOLDEN = Snapshot({"torch": "2.15"}, PRINTS, (CELL,), ("aa",))
ELSEWHERE = dataclasses.replace(GOLDEN, made={"torch": "2.16"})


def changed(index: int, at: Snapshot = ELSEWHERE, **fields: Any) -> Snapshot:
    """The snapshot with one print changed, and another digest."""
    prints = list(at.prints)
    prints[index] = dataclasses.replace(prints[index], **{"digest": "other", **fields})
    return dataclasses.replace(at, prints=tuple(prints))


def with_cell(at: Snapshot = ELSEWHERE, **fields: Any) -> Snapshot:
    return dataclasses.replace(at, cells=(dataclasses.replace(CELL, **fields),))


def kinds(**probes: list[float]) -> dict[str, Any]:
    return {kind: {"count": len(values), "probes": values} for kind, values in probes.items()}


def test_equal_digests_and_cells_are_the_same_wherever_they_were_made() -> None:
    for now in (GOLDEN, ELSEWHERE):
        verdict = compare(GOLDEN, now)
        assert (verdict.status, verdict.first) == ("same", None)
        assert verdict.text == "same, bit for bit"
    assert [line.what for line in compare(GOLDEN, GOLDEN).lines] == ["data", "train", "invert", "cells"]


def test_at_home_any_other_bit_has_departed() -> None:
    verdict = compare(GOLDEN, changed(0, GOLDEN))
    assert verdict.is_home
    assert verdict.status == "departed"
    assert verdict.first is not None
    assert verdict.first.what == "train"
    assert verdict.text.startswith("departed on the very platform that the golden numbers are from, first in")
    near = {**CELL.estimates, "fid": {**ESTIMATE, "value": 20.01}}
    assert compare(GOLDEN, with_cell(GOLDEN, estimates=near)).status == "departed"


@pytest.mark.parametrize(
    ("index", "near", "far"),
    [
        (1, {"uint8": [11.0, 200.0], "int64": [0.0, 1.0]}, {"uint8": [12.0, 200.0], "int64": [0.0, 1.0]}),
        (1, {"uint8": [10.0, 200.0], "int64": [0.0, 1.0]}, {"uint8": [10.0, 200.0], "int64": [0.0, 2.0]}),
        (0, {"float32": [1.0, 2.2, 2.0], "int64": [3.0]}, {"float32": [1.0, 2.5, 2.0], "int64": [3.0]}),
        (2, {"uint8": [255.0, 0.0]}, {"uint8": [0.0, 255.0, 0.0]}),
    ],
)
def test_elsewhere_each_stage_has_its_bound(
    index: int, near: dict[str, list[float]], far: dict[str, list[float]]
) -> None:
    within, departed = (compare(GOLDEN, changed(index, kinds=kinds(**one))) for one in (near, far))
    assert within.status == "within"
    assert "within the stated tolerance" in within.text
    assert departed.status == "departed"
    assert departed.first is not None
    assert departed.first.what == PRINTS[index].stage
    assert f"first in {PRINTS[index].stage}: " in departed.text
    assert "platform that" not in departed.text


def test_a_number_that_is_no_longer_finite_has_departed() -> None:
    broken = {
        "float32": {"count": 3, "probes": [1.0, None, 2.0]},
        "int64": PRINTS[0].kinds["int64"],
    }
    verdict = compare(GOLDEN, changed(0, kinds=broken))
    assert verdict.status == "departed"
    assert "no longer finite" in verdict.text


def test_accuracy_may_move_by_an_eighth_of_the_images() -> None:
    assert compare(GOLDEN, changed(0, accuracy=0.625)).status == "within"
    assert compare(GOLDEN, changed(0, accuracy=0.66)).status == "departed"
    assert compare(GOLDEN, changed(0, accuracy=None)).status == "departed"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("aa", 0.5 + 4 / 32, "within"),
        ("aa", 0.5 + 5 / 32, "departed"),
        ("fid", 22.0, "within"),
        ("fid", 23.0, "departed"),
        ("fid", None, "departed"),
    ],
)
def test_fractions_may_move_by_images_and_other_metrics_by_a_share(
    name: str, value: float | None, status: str
) -> None:
    moved = {**CELL.estimates, name: {**CELL.estimates[name], "value": value}}
    verdict = compare(GOLDEN, with_cell(estimates=moved))
    assert verdict.status == status
    if value is not None and status == "departed":
        assert f"ami on none: {name} {value:.4g}, golden {CELL.estimates[name]['value']:.4g}" in verdict.text


def test_a_share_of_successes_may_lose_its_meaning_and_a_distance_may_not() -> None:
    assert compare(GOLDEN, with_cell(estimates={**CELL.estimates, "aa": None})).status == "within"
    assert compare(GOLDEN, with_cell(estimates={**CELL.estimates, "fid": None})).status == "departed"


def test_distances_of_another_start_are_others_and_fractions_are_not() -> None:
    moved = {**CELL.estimates, "fid": {**ESTIMATE, "value": 35.0}}
    other = changed(2, with_cell(estimates=moved), kinds=kinds(uint8=[17.0, 255.0]))
    verdict = compare(GOLDEN, other)
    assert verdict.status == "within"
    assert verdict.lines[-1].text == "0 of 1 with equal numbers; 1 cells kept other starts"
    near = changed(2, with_cell(estimates=moved), kinds=kinds(uint8=[16.0, 255.0]))
    assert compare(GOLDEN, near).status == "departed"
    lost = {**moved, "aa": {**ESTIMATE, "value": 0.0}}
    far = changed(2, with_cell(estimates=lost), kinds=kinds(uint8=[17.0, 255.0]))
    assert compare(GOLDEN, far).status == "departed"


def test_a_distance_near_zero_is_held_against_its_usual_size() -> None:
    cells = [
        dataclasses.replace(CELL, estimates={"gap": {**ESTIMATE, "value": v}}) for v in (0.001, 5.0, 5.0)
    ]
    golden_run = dataclasses.replace(GOLDEN, cells=tuple(cells))
    for value, status in ((0.4, "within"), (0.6, "departed")):
        one = dataclasses.replace(cells[0], estimates={"gap": {**ESTIMATE, "value": value}})
        now = dataclasses.replace(ELSEWHERE, cells=(one, *cells[1:]))
        assert compare(golden_run, now).status == status


def test_hits_and_outcomes_of_cells_are_held_against_the_golden_ones() -> None:
    assert compare(GOLDEN, with_cell(hits={"3": "11111110"})).status == "within"
    assert compare(GOLDEN, with_cell(hits={"3": "11111100"})).status == "departed"
    assert compare(GOLDEN, with_cell(hits={"3": "1111111"})).status == "departed"
    assert "ami on none: failed, golden ok" in compare(GOLDEN, with_cell(status="failed")).text


def test_the_first_departure_is_the_first_that_data_flows_through() -> None:
    now = changed(0, changed(1, kinds=kinds(uint8=[90.0, 200.0], int64=[0.0, 1.0])), accuracy=0.0)
    first = compare(GOLDEN, now).first
    assert first is not None
    assert first.what == "data"
    assert "data of x, is 80 gray levels away" in first.text


def test_other_tasks_make_the_golden_numbers_stale() -> None:
    verdict = compare(GOLDEN, changed(2, GOLDEN, key="another", title="a new attack"))
    assert verdict.status == "stale"
    assert verdict.lines[0].text == "1 of 3 are new, 1 are no longer there; the first: a new attack"
    fewer = dataclasses.replace(GOLDEN, prints=PRINTS[:2])
    assert "1 are no longer there; the first: invert of x" in compare(GOLDEN, fewer).lines[0].text


def test_a_run_is_kept_small_and_read_back_as_it_was(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(attacks={"toy_scores": {}, "toy_gradient": {}}), zoo=False)
    one = take(plan, jobs=1)
    assert {print_.stage for print_ in one.prints} == {task.stage for task in plan.tasks.values()}
    assert [print_.key for print_ in one.prints] == list(plan.tasks)
    assert all(
        len(kind["probes"]) == min(PROBES, kind["count"]) for p in one.prints for kind in p.kinds.values()
    )
    assert [cell.status for cell in one.cells] == ["ok", "ok"]
    assert one.made == here()
    assert one.percent == ("aa", "mc_all")
    file = write_golden(one, tmp_path / "golden.json")
    assert compare(read_golden(file), take(plan, jobs=1)).text == "same, bit for bit"
    assert str(tmp_path) not in file.read_text(encoding="utf-8")


def test_a_broken_file_is_named_with_what_mends_it(tmp_path: Path) -> None:
    (tmp_path / "golden.json").write_text('{"made": {}}', encoding="utf-8")
    for file in ("golden.json", "none.json"):
        with pytest.raises(RecordError, match="Write them anew with `mibench doctor --golden --write`"):
            read_golden(tmp_path / file)


def test_the_doctor_writes_compares_and_exits_1_where_numbers_departed(
    make_suite: MakeSuite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, plan = tmp_path / "golden.json", build_plan(make_suite(), zoo=False)
    monkeypatch.setattr(golden, "GOLDEN", file)
    monkeypatch.setattr(golden, "read_golden", lambda: read_golden(file))
    monkeypatch.setattr(golden, "golden_plan", lambda: plan)
    monkeypatch.setattr(golden, "take", lambda plan: take(plan, jobs=1))
    assert main(["doctor", "--golden", "--write"]) == 0
    assert main(["doctor", "--golden"]) == 0
    assert "golden: same, bit for bit" in capsys.readouterr().out
    content = json.loads(file.read_text(encoding="utf-8"))
    content["made"]["torch"] = "0.1"
    file.write_text(json.dumps(content), encoding="utf-8")
    assert main(["doctor", "--golden"]) == 0
    assert f"torch 0.1 there, {torch.__version__} here" in capsys.readouterr().out
    content["prints"][0]["digest"] = "0" * 64
    content["prints"][0]["kinds"]["uint8"]["probes"][0] += 9
    file.write_text(json.dumps(content), encoding="utf-8")
    assert main(["doctor", "--golden"]) == 1
    assert "departed, first in data: " in capsys.readouterr().out
    assert main(["doctor", "--write"]) == 2
