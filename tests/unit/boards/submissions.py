"""A submission of a few seconds, and means to change it: for the tests of bundles."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mibench.boards.packing import Packed, Texts, pack, zipped
from mibench.choose import choose
from mibench.key import canonical
from mibench.one_cell import cell_suite, plugin_files
from mibench.plan import build_plan
from mibench.registry import forget_files
from mibench.runner import run
from mibench.store import Store

SUITE = """
name = "mini"
metrics = ["mc_all", "mc_target", "aa", "fid", "knn_distance", "aa_audit"]
[data]
size = 16
channels = 1
private = 3
private_images = 4
test_images = 2
public = 4
public_images = 2
defender = 2
defender_images = 2
[targets]
attacked = 2
images = 2
[victim]
net = "mlp"
width = 8
recipe = { epochs = 2, batch = 8 }
[judge]
net = "softmax_regression"
recipe = { epochs = 2, batch = 8 }
[audit]
net = "mlp"
width = 4
recipe = { epochs = 1, batch = 8 }
[defenses.none]
[attacks.mean_face]
[attacks.mi_face]
max_iter = 4
"""
SHIELD = '''"""A defense that trains for one pass only."""

import dataclasses
from dataclasses import dataclass

from mibench.defense import DefenderView, Defense
from mibench.nets.classifier import Classifier
from mibench.plugin import Card, Context
from mibench.training import fit


@dataclass(frozen=True, kw_only=True)
class Shield(Defense):
    """Training stopped early."""

    name = "shield"
    acts = "training"
    card = Card(title="Shield: one pass", paper="none", year=2026)
    epochs: int = 1

    def train(self, net: Classifier, view: DefenderView, ctx: Context) -> Classifier:
        """One pass over the private images."""
        recipe = dataclasses.replace(view.recipe, epochs=self.epochs)
        ctx.note("passes", self.epochs)
        return fit(net, view.private_train, ctx, recipe=recipe)
'''

Members = dict[str, bytes]


def make_results(folder: Path) -> Path:
    """Results of `mini` with the defense `shield` from a file, without pages; the store lies in `store`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mini.toml").write_text(SUITE, encoding="utf-8")
    (folder / "shield.py").write_text(SHIELD, encoding="utf-8")
    results = folder / "mini"
    try:
        plan = build_plan(choose(folder / "mini.toml", defenses=["none", str(folder / "shield.py")]))
        run(plan, Store(folder / "store"), results=results)
        for cell in plan.cells:
            place = results / "cells" / cell.id
            place.mkdir(parents=True)
            (place / "cell.toml").write_text(cell_suite(plan, cell, place), encoding="utf-8")
            for name, source in plugin_files(plan, cell).items():
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_bytes(source.read_bytes())
    finally:
        forget_files()
    return results


def make_bundle(results: Path, out: Path, **texts: str) -> Packed:
    """The bundle of `shield`."""
    try:
        return pack(
            results,
            kind="defense",
            label="shield",
            out=out,
            store=Store(results.parent / "store"),
            texts=Texts(**texts),
        )
    finally:
        forget_files()


def members_of(bundle: bytes) -> Members:
    """The members of a bundle by name."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(members: Mapping[str, bytes], change: Callable[[dict[str, Any]], None] = lambda _: None) -> bytes:
    """A bundle of members whose hashes fit, as one who edits a submission and knows the format makes it.

    Args:
        members: all but `bundle.json` as they shall be; that one is made anew from the one given.
        change: edits the new `bundle.json`.
    """
    manifest = json.loads(members["bundle.json"])
    rest = {name: content for name, content in members.items() if name != "bundle.json"}
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in rest.items()
    }
    change(manifest)
    return zipped({**rest, "bundle.json": f"{canonical(manifest)}\n".encode()})


def with_records(members: Members, change: Callable[[list[dict[str, Any]]], None]) -> Members:
    """The members with edited records."""
    records = [json.loads(line) for line in members["records.jsonl"].splitlines()]
    change(records)
    lines = "".join(f"{json.dumps(record, sort_keys=True)}\n" for record in records)
    return {**members, "records.jsonl": lines.encode()}
