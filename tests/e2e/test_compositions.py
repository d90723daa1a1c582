"""Runs with compositions: what they share, what records say, what reports make of the sign in a name."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch
from torch import Tensor

from mibench.benchmark import bench
from mibench.key import Key
from mibench.nets import build
from mibench.noise import derive_seed
from mibench.plan import Plan, build_plan
from mibench.plugin import Context
from mibench.record import Record
from mibench.registry import get_defense
from mibench.report import comparison
from mibench.runner import run
from mibench.stages.protecting import defender_view, deployed
from mibench.stages.work import Work, trained_net
from mibench.store import Artifact, Store
from mibench.suite import Suite

MakeSuite = Callable[..., Suite]
TWO, THREE = "toy_short+toy_rounded", "toy_short+toy_decoy+toy_rounded"
SINGLE = "toy_decoy+toy_rounded"
DEFENSES: dict[str, Any] = {
    "none": {},
    "toy_short": {"epochs": 2},
    "toy_rounded": {},
    "toy_decoy": {},
    "toy_rounded+toy_short": {},
    SINGLE: {"toy_rounded": {"share": 0.25}},
    THREE: {},
}


@pytest.fixture
def plan(make_suite: MakeSuite) -> Plan:
    """A gradient attack on parts and compositions, in both views."""
    suite = make_suite(
        attacks={"toy_gradient": {}},
        defenses=DEFENSES,
        white_box=["stripped", "deployed"],
        targets={"protected": 2, "bystanders": 1, "attacked": 3, "images": 2},
    )
    return build_plan(suite)


def walk(plan: Plan, folder: Path) -> dict[tuple[str, str], Record]:
    """The records of a run by defense and view."""
    records = run(plan, Store(folder / "store"), results=folder)
    return {(record.defense["label"], record.view): record for record in records}


def test_a_run_with_compositions(plan: Plan, tmp_path: Path) -> None:
    records = walk(plan, tmp_path)
    assert {record.status for record in records.values()} == {"ok"}
    assert len(records) == 2 * len(DEFENSES)
    # the white-box view of a composition is that of its other parts, measured anew behind its release
    assert records[TWO, "stripped"].estimates["aa"] == records["toy_short", "stripped"].estimates["aa"]
    assert records[SINGLE, "stripped"].estimates["aa"] == records["toy_decoy", "stripped"].estimates["aa"]
    assert records[TWO, "stripped"].hits == records["toy_short", "stripped"].hits
    three = records[THREE, "deployed"]
    assert len(three.keys["models"]) == 2
    assert three.notes["toy_epochs"] == [2, 2]
    assert len(three.notes["decoy"]) == 2
    assert records[TWO, "deployed"].notes["toy_epochs"] == 2


def test_records_say_what_acts(plan: Plan, tmp_path: Path) -> None:
    records = walk(plan, tmp_path)
    record = records[THREE, "stripped"]
    assert record.defense["name"] == THREE
    assert record.defense["acts"] == "training, fine-tuning, output"
    assert record.defense["knows"] == ["attack_prior"]
    assert record.defense["per_target"] is True
    assert record.defense["parts"] == [
        {"name": name, "version": 1} for name in ("toy_short", "toy_decoy", "toy_rounded")
    ]
    assert record.defense["params"] == {
        "toy_short": {"epochs": 2},
        "toy_decoy": {},
        "toy_rounded": {"share": 0.5},
    }
    assert record.defense["title"] == "Toy: one pass + Toy: decoys of the prior + Toy: flattened scores"
    assert "parts" not in records["toy_short", "stripped"].defense


def test_reports_bear_the_sign_in_a_name(plan: Plan, tmp_path: Path) -> None:
    done = bench(plan, out=tmp_path, jobs=1, device="cpu")
    table = comparison(done.records, metrics=["aa"])
    assert THREE in table.to_html()
    assert THREE.replace("_", r"\_") in table.to_markdown()
    assert THREE.replace("_", r"\_") in table.to_latex()
    header = next(csv.reader(table.to_csv().splitlines()))
    assert any(word.startswith(THREE) for word in header)
    assert not any(word.startswith("'") for word in header)
    files = done.files
    assert {"index.html", "records.jsonl"} <= {file.name for file in done.folder.iterdir()}
    assert all(re.fullmatch(r"[\w./-]+", str(file.relative_to(done.folder))) for file in files)
    pages = [file for file in files if file.suffix == ".html"]
    broken = [(page.name, one) for page in pages for one in links(page) if not (page.parent / one).exists()]
    assert broken == []
    assert sum(THREE in page.read_text(encoding="utf-8") for page in pages) > 2


def links(page: Path) -> list[str]:
    """The relative paths that a page links to."""
    text = page.read_text(encoding="utf-8")
    found = [part.split('"')[0] for sign in ('href="', 'src="') for part in text.split(sign)[1:]]
    paths = (unquote(one.split("#")[0]) for one in found if not one.startswith(("http", "data:", "#")))
    return [path for path in paths if path]


def test_bits_are_those_of_the_parts_run_by_hand(make_suite: MakeSuite, tmp_path: Path) -> None:
    parts: dict[str, dict[str, Any]] = {
        "bido": {"scale": 0.1},
        "ad_mi": {"steps": 2, "width": 8, "epochs": 1, "batch": 4},
    }
    suite = make_suite(attacks={"mean_face": {}}, defenses={"ad_mi+bido": parts})
    plan, store = build_plan(suite), Store(tmp_path / "store")
    run(plan, store, results=tmp_path)
    ((model,),) = [cell.models for cell in plan.cells]
    train, output = artifact(store, model.train), artifact(store, model.output)
    view = defender_view(Work(plan.tasks[model.output or ""], store, Context()))
    bido, ad_mi = (get_defense(name).from_params(fields) for name, fields in parts.items())

    ctx = Context(seed=derive_seed(0, "train", "bido"))
    start = build(suite.victim.spec(suite.data, suite.data.private), ctx.generator("initial weights"))
    net = bido.train(start, view, ctx)
    assert_equal(train.tensors, net.state_dict())

    ctx = Context(seed=derive_seed(0, "output", "ad_mi"))
    state = ad_mi.learn_output(net, view, ctx)
    assert_equal(output.tensors, state)
    images, cpu = view.private_train.images, torch.device("cpu")
    by_run = deployed(trained_net(train, cpu), output, cpu, 64)(images)
    assert torch.equal(by_run, ad_mi.protect(net, state, ctx)(images))


def test_a_reshaped_net_is_fine_tuned_and_read_again(make_suite: MakeSuite, tmp_path: Path) -> None:
    suite = make_suite(
        attacks={"toy_gradient": {}}, defenses={"mid+toy_decoy+rounding": {"mid": {"beta": 0.01}}}
    )
    plan, store = build_plan(suite), Store(tmp_path / "store")
    (record,) = run(plan, store, results=tmp_path)
    assert record.status == "ok", record.error
    assert {"mid_nats", "decoy"} <= record.notes.keys()
    ((model,),) = [cell.models for cell in plan.cells]
    train = artifact(store, model.train)
    assert (train.task["plugin"], train.task["params"]["onto"]["plugin"]) == ("toy_decoy", "mid")
    again = trained_net(train, torch.device("cpu"))
    assert_equal(train.tensors, again.state_dict())
    base = artifact(store, plan.tasks[model.train].inputs["base"])
    assert base.tensors.keys() == train.tensors.keys()
    assert any(not torch.equal(base.tensors[name], value) for name, value in train.tensors.items())


def artifact(store: Store, key: Key | None) -> Artifact:
    """What lies in the store under a key."""
    found = store.get(key or "")
    assert found is not None
    return found


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Both hold the same names and bits."""
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
