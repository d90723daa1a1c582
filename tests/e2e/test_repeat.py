"""The command on a cell's card, taken as it stands, makes the cell again elsewhere: same keys, same bits."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mibench.benchmark import bench
from mibench.choose import choose
from mibench.cli import main
from mibench.errors import SuiteError
from mibench.export import export_images
from mibench.one_cell import cell_suite, check_cell_suite
from mibench.plan import Plan, build_plan
from mibench.record import Record, read_records
from mibench.registry import forget_files
from mibench.report.evidence import read_evidence, repeat_command
from mibench.store import Store
from mibench.subsuite import part_of_suite
from mibench.suite import Suite, load_suite
from mibench.sweep import sweep

MakeSuite = Callable[..., Suite]
FOLDER_SUITE = """
name = "mine"
metrics = ["aa", "kid"]
[data]
kind = "folder"
path = "faces"
size = 16
channels = 1
private = 2
public = 2
defender = 2
test_fraction = 0.4
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 4
[judge]
net = "softmax_regression"
[metric.kid]
subsets = 7
[attacks.mean_face]
[defenses.none]
"""
GMI = {
    "prior": {"latent_dim": 4, "width": 4, "critic_width": 4, "steps": 2, "batch": 4},
    "search": {"steps": 2},
    "restarts": 1,
}


def repeated(results: Path, record: Record, elsewhere: Path) -> Record:
    """The record that the command of a cell's card gives, run where nothing but the cell's folder is."""
    place = f"cells/{record.cell}/"
    shutil.copytree(results / place, elsewhere / place)
    words = shlex.split(repeat_command(vars(record), read_evidence(elsewhere / place), place))
    forget_files()  # the plugins that the run had loaded are not there
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)
        assert main([*words[1:], "--jobs", "1"]) == 0
    (found,) = [one for file in elsewhere.glob("repeated/*/records.jsonl") for one in read_records(file)]
    return found


def assert_same(found: Record, record: Record) -> None:
    """All that was measured is equal bit for bit, under equal keys."""
    fields = (
        "cell",
        "keys",
        "estimates",
        "hits",
        "notes",
        "queries",
        "targets",
        "attack",
        "defense",
        "flags",
    )
    assert {name: getattr(found, name) for name in fields} == {name: getattr(record, name) for name in fields}


def ran(plan: Plan, folder: Path) -> list[Record]:
    """The records of a run with everything beside them."""
    records = bench(plan, out=folder, jobs=1, device="cpu").records
    assert [record.error for record in records] == [None] * len(records)
    return records


def test_the_second_seed_takes_the_priors_of_the_first(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(
        attacks={"gmi": GMI}, seeds=[3, 5], share_priors=True, white_box=["stripped", "deployed"],
        data={**_small(), "size": 32}, defenses={"rounding": {"step": 0.2}}, crossed=1,
    )  # fmt: skip
    plan = build_plan(suite)
    records = ran(plan, tmp_path / "run")
    (record,) = [
        one for one in records if (one.seed, one.view, one.defense["label"]) == (5, "deployed", "rounding")
    ]
    assert_same(repeated(tmp_path / "run" / "toy", record, tmp_path / "elsewhere"), record)


def test_a_composition_of_files_brings_its_plugins(
    make_suite: MakeSuite, toys: Callable[[str], Path], tmp_path: Path
) -> None:
    toys("toy_gradient")
    suite = make_suite(
        attacks={"quick": {"plugin": "toy_gradient"}},
        defenses={"none": {}, "toy_short+toy_decoy+toy_rounded": {"toy_rounded": {"share": 0.25}}},
        targets={"protected": 2, "bystanders": 1, "attacked": 3, "images": 2},
    )
    records = ran(build_plan(suite), tmp_path / "run")
    record = next(one for one in records if one.attack["label"] == "quick" and "parts" in one.defense)
    results = tmp_path / "run" / "toy"
    found = repeated(results, record, tmp_path / "elsewhere")
    assert_same(found, record)
    assert len(list((tmp_path / "elsewhere" / "cells").rglob("toy_*.py"))) == 4
    # the same bits give the same evidence, up to the name of the suite and where its files lay
    cells = f"cells/{record.cell}"
    before = read_evidence(results / cells)
    after = read_evidence(next((tmp_path / "elsewhere" / "repeated").glob(f"*/{cells}")))
    assert before is not None
    assert after is not None
    assert before.shots == after.shots
    assert before.files == after.files


def test_evidence_agrees_with_the_record(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(audit={"net": "mlp", "width": 4, "recipe": {"epochs": 1}})
    plan = build_plan(suite)
    (record,) = ran(plan, tmp_path)
    evidence = read_evidence(tmp_path / "toy" / "cells" / record.cell)
    assert evidence is not None
    assert evidence.shots is not None
    assert len(evidence.shots) == 4
    own = [one for one in evidence.shots if one.protected]
    bits = "".join("01"[one.judge_top == one.label] for one in own)
    assert bits == "".join(record.hits.values())
    assert all(one.audit_top is not None for one in evidence.shots)
    assert all(one.distance is not None for one in evidence.shots)
    nearest = [min(one.own_distance or 0, one.other_distance or 0) for one in evidence.shots]
    assert nearest == [one.distance for one in evidence.shots]
    assert evidence.facts["keys"] == record.keys


def test_files_are_written_once_and_repeat_bit_for_bit(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite())
    records = ran(plan, tmp_path)
    folder, cpu = tmp_path / "toy", torch.device("cpu")
    place = folder / "cells" / records[0].cell
    before = (place / "evidence.json").read_bytes()
    store = Store(tmp_path / "store")
    assert export_images(plan, store, records, folder, device=cpu) == []
    shutil.rmtree(place)
    export_images(plan, store, records, folder, device=cpu)
    assert (place / "evidence.json").read_bytes() == before
    # a reader of another version makes it anew, and without the artifacts keeps what the records say
    content = json.loads(before)
    (place / "evidence.json").write_text(json.dumps({**content, "schema": 99}), encoding="utf-8")
    export_images(plan, Store(tmp_path / "nothing"), records, folder, device=cpu)
    poor = read_evidence(place)
    assert poor is not None
    assert poor.shots is None
    assert poor.files == ("cell.toml", "attacks/toy_scores.py")


def test_a_failed_cell_can_be_repeated(make_suite: MakeSuite, tmp_path: Path) -> None:
    plan = build_plan(make_suite(attacks={"toy_failing": {}}))
    (record,) = bench(plan, out=tmp_path, jobs=1, device="cpu").records
    assert record.status == "failed"
    evidence = read_evidence(tmp_path / "toy" / "cells" / record.cell)
    assert evidence is not None
    assert evidence.files == ("cell.toml", "attacks/toy_failing.py")


def test_images_and_weights_are_named_from_where_the_cell_lies(tmp_path: Path) -> None:
    for name in "abcdef":
        for i in range(3):
            place = tmp_path / "faces" / name / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (16, 16), ord(name) + i).save(place)
    file = tmp_path / "mine.toml"
    file.write_text(FOLDER_SUITE, encoding="utf-8")
    plan = build_plan(load_suite(file))
    (cell,) = plan.cells
    place = tmp_path / "results" / "mine" / "cells" / cell.id
    text = cell_suite(plan, cell, place)
    assert 'path = "../../../../faces"' in text
    assert str(tmp_path) not in text
    check_cell_suite(text, plan, cell, place)
    place.mkdir(parents=True)
    (place / "cell.toml").write_text(text, encoding="utf-8")
    (again,) = build_plan(load_suite(place / "cell.toml")).cells
    assert again.measure == cell.measure
    (record,) = ran(plan, tmp_path / "results")
    assert record.cell == cell.id
    assert sorted(file.name for file in place.iterdir()) == ["cell.toml", "evidence.json", "index.html"]
    evidence = read_evidence(place)
    assert evidence is not None
    assert len(evidence.shots or ()) == 4
    page = (place / "index.html").read_text(encoding="utf-8")
    assert "name your copy" in page
    assert 'class="face"' not in page
    with pytest.raises(SuiteError, match="plans"):  # other people are another cell
        check_cell_suite(text.replace("test_fraction = 0.4", "test_fraction = 0.3"), plan, cell, place)


def test_what_the_command_line_makes_of_a_suite_can_be_told(tmp_path: Path) -> None:
    picked = choose("quick", attacks=["dmi"], defenses=["rounding@0.5", "bido+ad_mi"], seeds=[4, 2])
    swept = sweep("quick", defenses=["rounding"], levels=["0.1,0.5"], attacks=["dmi"]).suite
    part = part_of_suite(
        "quick", prefix="tifs23-table2", attacks=["dmi"], defenses=["bido", "none"], seeds=[7, 8]
    )
    for suite in (picked, swept, part):
        plan = build_plan(suite)
        assert len(plan.cells) > 1
        for cell in plan.cells:
            check_cell_suite(cell_suite(plan, cell, tmp_path), plan, cell, tmp_path)


@pytest.mark.parametrize("name", ["smoke", "quick", "instances", "adaptive"])
def test_every_built_in_suite_can_be_told_cell_by_cell(name: str, tmp_path: Path) -> None:
    plan = build_plan(choose(name))
    for cell in plan.cells[:: max(1, len(plan.cells) // 4)]:  # each takes a tenth of a second
        check_cell_suite(cell_suite(plan, cell, tmp_path), plan, cell, tmp_path)


def _small() -> dict[str, Any]:
    return {
        "channels": 1, "private": 3, "private_images": 4, "test_images": 2, "public": 4, "public_images": 2,
        "defender": 2, "defender_images": 2,
    }  # fmt: skip
